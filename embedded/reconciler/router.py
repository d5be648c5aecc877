"""Keeps Envoy in step with the HTTPRoutes and the ready processes, in a thread of its own.

Apart from everything slow, so that a changed weight is at work within milliseconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from embedded.errors import StorageError
from embedded.gateway import Endpoint, Gateway, GatewayError, Routing, Service
from embedded.gateway.routing import GATEWAY, is_our_gateway
from embedded.kubernetes.objects import format_now
from embedded.kubernetes.registry import Registry
from embedded.kubernetes.resources import HTTP_ROUTES, INFERENCE_SERVICES
from embedded.kubernetes.storage import Change

_LOG = logging.getLogger(__name__)

Document = dict[str, Any]
Services = Mapping[tuple[str, str], Service]

CONTROLLER = "tenure.dev/laptop"
INTERVAL = 1.0


class Router(threading.Thread):
    """Publishes where requests go whenever a route or a Service's processes change.

    Args:
        registry: The HTTPRoutes.
        gateway: Envoy.
        domain: Every InferenceService that no HTTPRoute leads to answers as NAME-NAMESPACE.DOMAIN.
    """

    #: Called when Envoy has begun to send requests to other processes.
    on_routed: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, registry: Registry, gateway: Gateway, domain: str) -> None:
        super().__init__(name="router", daemon=True)
        self._registry = registry
        self._gateway = gateway
        self._domain = domain
        self._lock = threading.Lock()
        self._services: Services | None = None
        self._routed: set[Endpoint] = set()
        self._routed_since = 0.0
        self._problem: str | None = "the gateway has not been told yet"
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._unsubscribe = registry.storage.subscribe(self._notice)

    def set_services(self, services: Services) -> None:
        """Say which Services there are and which of their processes are ready."""
        with self._lock:
            if services == self._services:
                return
            self._services = dict(services)
        self._woken.set()

    def seconds_without(self, endpoint: Endpoint) -> float:
        """Return for how long Envoy has not sent requests to a process; 0 while it may."""
        with self._lock:
            if endpoint in self._routed or not self._routed_since:
                return 0.0
            return time.monotonic() - self._routed_since

    def knows(self, endpoints: Iterable[Endpoint]) -> bool:
        """Return whether requests can go to all of these processes."""
        with self._lock:
            return set(endpoints) <= self._routed

    @property
    def problem(self) -> str | None:
        """Why requests may not go where they should; None when all is well."""
        with self._lock:
            return self._problem

    def run(self) -> None:
        """Publish until `end`."""
        while not self._ended.is_set():
            self._woken.wait(INTERVAL)
            self._woken.clear()
            if self._ended.is_set():
                return
            try:
                self.publish()
            except StorageError as error:
                # Requests go where they should; that this is so is written down when there is room again.
                _LOG.warning("%s", error)

    def end(self) -> None:
        """Publish no more; Envoy goes on as it is."""
        self._unsubscribe()
        self._ended.set()
        self._woken.set()
        if self.is_alive():
            self.join(20)

    def publish(self) -> None:
        """Bring Envoy and the status of the routes up to date."""
        with self._lock:
            services = self._services
        if services is None:  # after a start: what runs is not known yet, and Envoy is right as it is
            return
        bodies, _ = self._registry.storage.list_all(HTTP_ROUTES.key)
        routing = Routing(services, [*bodies, *self._make_own_routes(bodies, services)])
        refused = None
        try:
            self._gateway.publish(routing)
            problem = self._gateway.describe_problem()
        except GatewayError as error:
            problem = refused = str(error)
            _LOG.error("%s", error)
        with self._lock:
            changed = self._problem != problem
            self._problem = problem
            if refused is None:
                routed = {endpoint for service in services.values() for endpoint in service.endpoints}
                if routed != self._routed or not self._routed_since:
                    self._routed_since = time.monotonic()
                    changed = True
                self._routed = routed
        if changed:
            self.on_routed()
        for body in bodies:
            self._write_status(body, services, refused)

    def _notice(self, change: Change) -> None:
        if change.resource in (HTTP_ROUTES.key, INFERENCE_SERVICES.key):
            self._woken.set()

    def _make_own_routes(self, bodies: list[Document], services: Services) -> list[Document]:
        """Return a route to the stable variant of each InferenceService without one, as KServe makes it."""
        led_to = {
            (body["metadata"]["namespace"], backend["name"])
            for body in bodies
            for rule in body["spec"]["rules"]
            for backend in rule["backendRefs"]
        }
        reached = {(service.namespace, service.model) for key, service in services.items() if key in led_to}
        namespace, name = GATEWAY
        return [
            {
                # Later than any real one, which so goes first where both want the same path.
                "metadata": {
                    "namespace": service.namespace,
                    "name": service.model,
                    "creationTimestamp": "9999-12-31T00:00:00Z",
                },
                "spec": {
                    "parentRefs": [{"namespace": namespace, "name": name}],
                    "hostnames": [f"{service.model}-{service.namespace}.{self._domain}"],
                    "rules": [{"backendRefs": [{"name": service.name, "port": 80}]}],
                },
            }
            for service in services.values()
            if service.stable and (service.namespace, service.model) not in reached
        ]

    def _write_status(self, body: Document, services: Services, refused: str | None) -> None:
        metadata = body["metadata"]
        missing = sorted(
            {
                backend["name"]
                for rule in body["spec"]["rules"]
                for backend in rule["backendRefs"]
                if (metadata["namespace"], backend["name"]) not in services
            }
        )
        resolved = ("True", "ResolvedRefs", "every backend is a Service of an InferenceService")
        if missing:
            resolved = (
                "False",
                "BackendNotFound",
                f"no InferenceService has the Service {', '.join(missing)}",
            )
        parents = []
        for parent in body["spec"]["parentRefs"]:
            accepted = ("True", "Accepted", "the gateway routes by it")
            if not is_our_gateway(body, parent):
                accepted = ("False", "NoMatchingParent", f"the only Gateway here is {'/'.join(GATEWAY)}")
            elif refused is not None:
                accepted = ("False", "Pending", refused)
            old = _find_parent(body, parent)
            conditions = [
                _make_condition(old, kind, *values, metadata.get("generation", 1))
                for kind, values in (("Accepted", accepted), ("ResolvedRefs", resolved))
            ]
            parents.append({"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions})
        self._registry.set_status(HTTP_ROUTES, metadata["namespace"], metadata["name"], {"parents": parents})


def _find_parent(body: Document, parent: Document) -> Document:
    for entry in (body.get("status") or {}).get("parents", []):
        if entry.get("parentRef") == parent:
            found: Document = entry
            return found
    return {}


def _make_condition(
    old: Document, kind: str, status: str, reason: str, message: str, generation: int
) -> Document:
    """Return a condition; its time is when its status last changed."""
    since = format_now()
    for condition in old.get("conditions", []):
        if condition["type"] == kind and condition["status"] == status:
            since = condition["lastTransitionTime"]
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }
