"""The kinds that the laptop's API serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from embedded.kubernetes import columns
from embedded.kubernetes.columns import TableColumn
from embedded.kubernetes.schemas import (
    Event,
    HttpRoute,
    InferenceService,
    Namespace,
    Schema,
    ServingRuntime,
)

READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")


@dataclass(frozen=True)
class Resource:
    """One kind: its names, what may be done to it, its schema and its columns in a table."""

    group: str
    version: str
    kind: str
    plural: str
    schema: type[Schema]
    columns: tuple[TableColumn, ...]
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    verbs: tuple[str, ...] = READ + WRITE
    has_status: bool = False
    fields: Callable[[dict[str, Any]], dict[str, str]] | None = None

    @property
    def singular(self) -> str:
        """The name of one, in lower case."""
        return self.kind.lower()

    @property
    def key(self) -> str:
        """The name under which the storage keeps it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """`apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


def _list_event_fields(event: dict[str, Any]) -> dict[str, str]:
    """Return the fields that events can be selected by (`kubectl describe` does)."""
    involved = event.get("involvedObject", {})
    fields = {f"involvedObject.{key}": str(value) for key, value in involved.items()}
    return fields | {"reason": event.get("reason", ""), "type": event.get("type", "")}


INFERENCE_SERVICES = Resource(
    group="serving.kserve.io",
    version="v1beta1",
    kind="InferenceService",
    plural="inferenceservices",
    schema=InferenceService,
    columns=columns.INFERENCE_SERVICE,
    short_names=("isvc",),
    has_status=True,
)
SERVING_RUNTIMES = Resource(
    group="serving.kserve.io",
    version="v1alpha1",
    kind="ServingRuntime",
    plural="servingruntimes",
    schema=ServingRuntime,
    columns=columns.SERVING_RUNTIME,
    verbs=READ,
)
HTTP_ROUTES = Resource(
    group="gateway.networking.k8s.io",
    version="v1",
    kind="HTTPRoute",
    plural="httproutes",
    schema=HttpRoute,
    columns=columns.HTTP_ROUTE,
    has_status=True,
)
NAMESPACES = Resource(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    schema=Namespace,
    columns=columns.NAMESPACE,
    short_names=("ns",),
    namespaced=False,
)
EVENTS = Resource(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    schema=Event,
    columns=columns.EVENT,
    short_names=("ev",),
    verbs=(*READ, "create"),
    fields=_list_event_fields,
)
RESOURCES = (NAMESPACES, EVENTS, INFERENCE_SERVICES, SERVING_RUNTIMES, HTTP_ROUTES)


def find_resource(group: str, version: str, plural: str) -> Resource | None:
    """Return the resource with these names, or None."""
    for resource in RESOURCES:
        if (resource.group, resource.version, resource.plural) == (group, version, plural):
            return resource
    return None
