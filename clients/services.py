"""InferenceServices and HTTPRoutes as plain dicts, through the Kubernetes SDK."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from clients.errors import (
    ClientError,
    ConflictError,
    NotFoundError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from clients.settings import Settings

Document = dict[str, Any]
"""A Kubernetes resource as JSON gives it."""

_TIMEOUT = (5, 30)
"""Seconds to connect and to wait for a byte."""


class Event(NamedTuple):
    """One watch event: `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Document


@dataclass(frozen=True)
class Resource:
    """Which kind of resource a collection holds."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """The `apiVersion` of such documents."""
        return f"{self.group}/{self.version}"


INFERENCE_SERVICE = Resource("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService")
HTTP_ROUTE = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")


class Collection:
    """All resources of one kind in one namespace.

    Every method raises NotFoundError (404), ConflictError (409: it exists already, or somebody changed it
    since `metadata.resourceVersion`), RefusedError (any other refusal, with the server's reason) and
    UnreachableError. Thread-safe.
    """

    def __init__(self, api: Any, resource: Resource, namespace: str, server: str) -> None:
        self._api = api
        self._server = server
        self.resource = resource
        self.namespace = namespace

    def get(self, name: str) -> Document:
        """Return the resource called `name`."""
        return self._call(
            f"reading {self._describe(name)}", self._api.get_namespaced_custom_object, name=name
        )

    def find(self, name: str) -> Document | None:
        """Return the resource called `name`, or None when there is none."""
        try:
            return self.get(name)
        except NotFoundError:
            return None

    def list(self, labels: Mapping[str, str] | None = None) -> list[Document]:
        """Return all resources, or those that carry all of `labels`."""
        return list(self.snapshot(labels)["items"])

    def snapshot(self, labels: Mapping[str, str] | None = None) -> Document:
        """Return the list document; its `metadata.resourceVersion` is where a watch may start."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        return self._call(
            f"listing {self.resource.plural}",
            self._api.list_namespaced_custom_object,
            **({"label_selector": selector} if selector else {}),
        )

    def create(self, document: Document) -> Document:
        """Create the resource and return it as stored; `apiVersion` and `kind` are filled in."""
        name = document["metadata"]["name"]
        return self._call(
            f"creating {self._describe(name)}",
            self._api.create_namespaced_custom_object,
            body=self._complete(document),
        )

    def patch(self, name: str, patch: Document) -> Document:
        """Merge `patch` (RFC 7386: null removes, lists are replaced) and return the result.

        With `metadata.resourceVersion` in the patch, ConflictError says that somebody was faster.
        """
        return self._call(
            f"patching {self._describe(name)}",
            self._api.patch_namespaced_custom_object,
            name=name,
            body=patch,
        )

    def replace(self, document: Document) -> Document:
        """Replace the resource by `document`, which carries the resourceVersion that was read."""
        name = document["metadata"]["name"]
        return self._call(
            f"replacing {self._describe(name)}",
            self._api.replace_namespaced_custom_object,
            name=name,
            body=self._complete(document),
        )

    def update(
        self, name: str, change: Callable[[Document], Document | None], attempts: int = 10
    ) -> Document:
        """Read, change and patch, again whenever somebody else was faster.

        Args:
            name: The resource.
            change: Takes the current document and returns the merge patch to apply, or None for no change.
                It may run several times.
            attempts: How often to try before ConflictError is let through.

        Returns:
            The document as it is afterwards.
        """
        while True:
            current = self.get(name)
            patch = change(current)
            if patch is None:
                return current
            metadata = {**patch.get("metadata", {})}
            metadata["resourceVersion"] = current["metadata"]["resourceVersion"]
            try:
                return self.patch(name, {**patch, "metadata": metadata})
            except ConflictError:
                attempts -= 1
                if attempts <= 0:
                    raise

    def create_event(self, event: Document) -> None:
        """Create a core/v1 Event in this namespace; ConflictError says that it exists."""
        from kubernetes.client import CoreV1Api

        with self._translate(f"creating Event {self.namespace}/{event['metadata']['name']}"):
            CoreV1Api(self._api.api_client).create_namespaced_event(
                self.namespace, event, _request_timeout=_TIMEOUT
            )

    def delete(self, name: str) -> None:
        """Delete the resource called `name`."""
        self._call(f"deleting {self._describe(name)}", self._api.delete_namespaced_custom_object, name=name)

    def watch(self, resource_version: str | None = None, timeout_seconds: int = 60) -> Iterator[Event]:
        """Yield changes until the server ends the watch, at the latest after `timeout_seconds`.

        Args:
            resource_version: Where to start, from `snapshot`; by default the watch begins with an ADDED
                event for each resource that exists. ConflictError says it is too old: take a new snapshot.
            timeout_seconds: When the server should end the watch.
        """
        from kubernetes.watch import Watch

        options: dict[str, Any] = {"timeout_seconds": timeout_seconds}
        if resource_version is not None:
            options["resource_version"] = resource_version
        watch = Watch()
        with self._translate(f"watching {self.resource.plural}"):
            for event in watch.stream(
                self._api.list_namespaced_custom_object,
                **self._address,
                **options,
                _request_timeout=(_TIMEOUT[0], timeout_seconds + 10),
            ):
                yield Event(event["type"], event["raw_object"])

    @property
    def _address(self) -> dict[str, str]:
        return {
            "group": self.resource.group,
            "version": self.resource.version,
            "namespace": self.namespace,
            "plural": self.resource.plural,
        }

    def _describe(self, name: str) -> str:
        return f"{self.resource.kind} {self.namespace}/{name}"

    def _complete(self, document: Document) -> Document:
        return {**document, "apiVersion": self.resource.api_version, "kind": self.resource.kind}

    def _call(self, action: str, method: Callable[..., Any], **arguments: Any) -> Document:
        with self._translate(action):
            answer: Document = method(**self._address, **arguments, _request_timeout=_TIMEOUT)
        return answer

    @contextmanager
    def _translate(self, action: str) -> Iterator[None]:
        """Turn the SDK's exceptions into ours."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise _translate_status(error, f"{self._server}: {action}") from error
        except (HTTPError, OSError) as error:
            raise UnreachableError(
                f"{self._server}: {action}: no answer ({error}). Is the platform up? `tenure status`"
            ) from error


class Services:
    """The Kubernetes API, as far as Tenure needs it."""

    def __init__(self, inference: Collection, routes: Collection) -> None:
        self.inference = inference
        """InferenceServices (serving.kserve.io/v1beta1)."""
        self.routes = routes
        """HTTPRoutes (gateway.networking.k8s.io/v1)."""

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Build the client from the kubeconfig, or inside a pod from its own account. Sends nothing yet.

        Raises:
            SettingsError: When the kubeconfig is missing or wrong, or when this is no pod either.
        """
        import yaml
        from kubernetes import client, config
        from urllib3.util import Retry

        configuration = client.Configuration()
        try:
            if settings.kubeconfig is not None:
                config.load_kube_config(
                    config_file=str(settings.kubeconfig),
                    context=settings.kube_context,
                    client_configuration=configuration,
                )
            else:
                config.load_incluster_config(client_configuration=configuration)
        except (config.ConfigException, OSError, yaml.YAMLError, TypeError, AttributeError) as error:
            where = settings.kubeconfig or "the pod's own account"
            raise SettingsError(
                f"TENURE_KUBECONFIG: {where}: {error}. On a laptop `tenure up` writes the file."
            ) from error
        configuration.retries = Retry(connect=2, read=0, redirect=0, status=0, other=0, backoff_factor=0.1)
        if _is_loopback(configuration.host):
            configuration.proxy = None
        api = client.CustomObjectsApi(client.ApiClient(configuration))
        return cls(
            *(
                Collection(api, resource, settings.namespace, configuration.host)
                for resource in (INFERENCE_SERVICE, HTTP_ROUTE)
            )
        )


def get_condition(document: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Return the status condition of type `kind`, or None when it is not (yet) reported."""
    for condition in document.get("status", {}).get("conditions") or ():
        if condition.get("type") == kind:
            return dict(condition)
    return None


def _is_loopback(url: str) -> bool:
    """Say whether a URL points at this machine, where a proxy from the environment cannot help."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _translate_status(error: Any, action: str) -> ClientError:
    """Build our exception from an ApiException, with the message of the server's Status document."""
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = str(error.body or error.reason or "no reason given").strip()
    text = f"{action}: {message}"
    if error.status == 404:
        return NotFoundError(text)
    if error.status in (409, 410):
        return ConflictError(text)
    if not error.status or error.status in (429, 502, 503, 504):
        return UnreachableError(f"{text} (status {error.status}); try again")
    return RefusedError(f"{text} (status {error.status})")
