"""The way to Kubeflow Pipelines: the connection, its errors, and what is uploaded there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from clients.errors import (
    ClientError,
    ConflictError,
    NotFoundError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from clients.package import read_package
from clients.run import PipelineVersion, read_version
from clients.settings import Settings
from clients.token import Token

PIPELINE = "tenure-training"
"""What the uploaded training pipeline is called."""


class Kubeflow:
    """The runs API's pipelines. Every method raises NotFoundError, RefusedError or UnreachableError."""

    def __init__(
        self, client: Any, url: str, token: Token, account: str | None = None, image: str | None = None
    ) -> None:
        self._client = client
        self._url = url
        self._token = token
        self._account = account
        self.image = image
        """Image that the steps of our pipelines shall run in; None for the pipelines' own choice."""

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Build the client (importing kfp takes a second) and ask the address for its health."""
        url = settings.runs_url.rstrip("/")
        token = Token.of(settings)
        namespace = _choose_namespace(settings.runs_namespace, _ask_health(url, token), url)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it warns of servers older than 2.0
            from kfp.client import Client

            client = Client(
                host=url,
                # kfp would take them from a file of the user's, whatever server that was written for.
                cookies="",
                namespace=namespace or "kubeflow",
                credentials=token if token.given else None,
            )
        client._context_setting["namespace"] = namespace
        return cls(client, url, token, settings.runs_account, settings.components_image)

    def upload(self, package: Path | str, name: str = PIPELINE) -> PipelineVersion:
        """Make a compiled pipeline the newest version of the pipeline `name`; nothing happens if it is.

        Its steps run in `image` from then on, whoever starts a run, unless the run says another. The version
        is called like the beginning of the package's SHA-256. One that was the newest before, and is again,
        gets a number behind it: the newest version always is what was uploaded last.

        Raises:
            RefusedError: There is no such file, or the server refuses the pipeline.
        """
        path = Path(package)
        content = read_package(path, self.image)
        digest = hashlib.sha256(content).hexdigest()[:12]
        with self._translate(f"uploading {path}"), _write_package(path.name, content) as file:
            pipeline_id = self._ensure_pipeline(name)
            known = self._list_versions(pipeline_id)
            if known and known[0].name.partition("-")[0] == digest:
                return known[0]
            earlier = sum(version.name.partition("-")[0] == digest for version in known)
            title = f"{digest}-{earlier + 1}" if earlier else digest
            try:
                made = self._client.upload_pipeline_version(str(file), title, pipeline_id=pipeline_id)
            except self._refusal as error:
                if error.status != 409:
                    raise
                # Someone else has uploaded the same at the same time.
                return next(version for version in self._list_versions(pipeline_id) if version.name == title)
        return read_version(made)

    def find_version(self, name: str = PIPELINE) -> PipelineVersion:
        """Return the newest version of an uploaded pipeline.

        Raises:
            NotFoundError: Nothing was uploaded under this name.
        """
        with self._translate(f"looking for the pipeline {name}"):
            pipeline_id = self._client.get_pipeline_id(name)
            versions = self._list_versions(pipeline_id) if pipeline_id else []
        if not versions:
            raise NotFoundError(
                f"{self._url}: no pipeline {name!r} was uploaded; `tenure up` does it on a laptop, "
                f"`kfp pipeline create-version` on a cluster"
            )
        return versions[0]

    @property
    def _refusal(self) -> Any:
        """What kfp raises when the server says no (imported late: kfp takes a second)."""
        from kfp_server_api.exceptions import ApiException

        return ApiException

    def _ensure_pipeline(self, name: str) -> str:
        from kfp_server_api import V2beta1Pipeline

        found = self._client.get_pipeline_id(name)
        if found is not None:
            return str(found)
        try:
            # kfp.Client only makes a pipeline together with a version of the same name.
            body = V2beta1Pipeline(display_name=name, name=name)
            made = self._client._pipelines_api.pipeline_service_create_pipeline(pipeline=body)
        except self._refusal as error:
            if error.status != 409:
                raise
            return str(self._client.get_pipeline_id(name))
        return str(made.pipeline_id)

    def _list_versions(self, pipeline_id: str) -> list[PipelineVersion]:
        """Return the newest versions, the newest first."""
        answer = self._client.list_pipeline_versions(pipeline_id, page_size=100, sort_by="created_at desc")
        return [read_version(version) for version in answer.pipeline_versions or ()]

    def _find_experiment(self, name: str) -> str | None:
        found = self._client.list_experiments(page_size=1, filter=match_name(name)).experiments
        return str(found[0].experiment_id) if found else None

    def _ensure_experiment(self, name: str) -> str:
        found = self._find_experiment(name)
        if found is not None:
            return found
        try:
            return str(self._client.create_experiment(name).experiment_id)
        except self._refusal as error:
            if error.status != 409:
                raise
            return str(self._find_experiment(name))

    @contextmanager
    def _translate(self, action: str) -> Iterator[None]:
        """Turn kfp's exceptions into ours, and keep its links to a web page off our output."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except ApiException as error:
            raise _translate_status(error, f"{self._url}: {action}", self._token) from error
        except HTTPError as error:
            raise UnreachableError(f"{self._url}: {action}: no answer ({error})") from error


@contextmanager
def _write_package(name: str, content: bytes) -> Iterator[Path]:
    """Give kfp, which reads packages from files only, one with this content."""
    with tempfile.TemporaryDirectory(prefix="tenure-") as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        yield file


def match_name(name: str) -> str:
    """Return the filter of list calls for exactly this name."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def is_local(url: str) -> bool:
    """Say whether the URL points at this machine, where a proxy from the environment cannot help."""
    return url.startswith(("http://127.", "http://localhost", "http://[::1]"))


def _ask_health(url: str, token: Token) -> Mapping[str, Any]:
    """Return what the server says of itself."""
    import httpx

    path = f"{url}/apis/v2beta1/healthz"
    try:
        # kfp.Client asks too, but gives a dead address half a minute.
        answer = httpx.get(path, headers=token.headers(), timeout=10, trust_env=not is_local(url))
    except httpx.TransportError as error:
        raise UnreachableError(f"{url}: no answer ({error}). Is the platform up? `tenure status`") from error
    if answer.status_code in (401, 403):
        why = _explain(answer.status_code, token)
        raise RefusedError(f"{url}: the token is refused (status {answer.status_code}): {why}")
    if answer.status_code >= 400:
        raise UnreachableError(f"{url}: its health check answers with status {answer.status_code}")
    try:
        found = answer.json()
    except ValueError as error:
        raise RefusedError(
            f"{path}: what answers there is no pipelines API (no JSON); check TENURE_RUNS_URL"
        ) from error
    return found if isinstance(found, Mapping) else {}


def _choose_namespace(wanted: str | None, health: Mapping[str, Any], url: str) -> str:
    """Return the namespace of experiments and runs; empty where the server knows one user only.

    kfp.Client would take its own pod's namespace and write it into its home directory.

    Raises:
        SettingsError: The server knows several users, and nobody says which we are.
    """
    if not (health.get("multi_user") or health.get("multiUser")):
        # A server with one user refuses calls that name a namespace.
        return ""
    if not wanted:
        raise SettingsError(
            f"{url}: this Kubeflow Pipelines has several users; name the namespace that the runs belong to: "
            "TENURE_RUNS_NAMESPACE"
        )
    return wanted


def _explain(status: int, token: Token) -> str:
    """Say what to do about 401 and 403."""
    if status == 401:
        return f"the token comes from {token.origin}"
    return f"it may not do that; the token comes from {token.origin}, its account needs a role for it"


def _translate_status(error: Any, action: str, token: Token) -> ClientError:
    try:
        document = json.loads(error.body)
        message = document.get("message") or document.get("error_message") or document
    except (TypeError, ValueError, AttributeError):
        message = error.reason or "no reason given"
    text = f"{action}: {message}"
    if error.status == 404:
        return NotFoundError(text)
    if error.status == 409:
        return ConflictError(text)
    if error.status in (401, 403):
        return RefusedError(f"{text} (status {error.status}): {_explain(error.status, token)}")
    if not error.status or error.status in (429, 502, 503, 504):
        return UnreachableError(f"{text} (status {error.status})")
    return RefusedError(f"{text} (status {error.status})")
