"""The Kubernetes API as plain paths and documents; nothing is ever changed through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, Self

from clients.errors import SettingsError
from console.doctor.document import Document, shorten

_TIMEOUT = (5, 30)


class Reply(NamedTuple):
    """What the API server answered.

    Attributes:
        status: Of HTTP; 0 when there was no answer.
        document: The JSON, empty when it was none.
        text: The server's message when it refused, or what it said as text.
    """

    status: int
    document: Document
    text: str

    @property
    def is_good(self) -> bool:
        """Whether the server did what was asked."""
        return 200 <= self.status < 300


class Api:
    """One context of the kubeconfig; thread-safe."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def connect(cls, kubeconfig: Path, context: str) -> Self:
        """Build the client; sends nothing yet.

        Raises:
            SettingsError: The kubeconfig is wrong.
        """
        from kubernetes import client, config

        configuration = client.Configuration()
        try:
            config.load_kube_config(str(kubeconfig), context, client_configuration=configuration)
        except (config.ConfigException, OSError, TypeError) as error:
            raise SettingsError(f"the kubeconfig {kubeconfig}, context {context}: {error}") from error
        configuration.retries = False
        return cls(client.ApiClient(configuration))

    @property
    def server(self) -> str:
        """The address of the API."""
        return str(self._client.configuration.host)

    def get(self, path: str, accept: str = "application/json") -> Reply:
        """Read a path."""
        return self._call("GET", path, None, accept)

    def try_create(self, path: str, document: Document) -> Reply:
        """Ask for a create as a dry run: everything is checked, nothing is stored."""
        return self._call("POST", f"{path}?dryRun=All", document, "application/json")

    def review(self, document: Document) -> Reply:
        """Ask what this user may do (`SelfSubjectAccessReview`); such a question is not stored."""
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return self._call("POST", path, document, "application/json")

    def _call(self, method: str, path: str, body: Document | None, accept: str) -> Reply:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer, status, _ = self._client.call_api(
                path,
                method,
                header_params={"Accept": accept, "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=False,
                _request_timeout=_TIMEOUT,
            )
        except ApiException as error:
            return Reply(int(error.status or 0), {}, _read_message(error))
        except (HTTPError, OSError) as error:
            return Reply(0, {}, shorten(str(error)))
        text = answer.data.decode("utf-8", "replace")
        try:
            document = json.loads(text)
        except ValueError:
            document = {}
        return Reply(int(status), document if isinstance(document, dict) else {}, text)


def _read_message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else error.body
        return shorten(str(body or error.reason or "no reason given"))
