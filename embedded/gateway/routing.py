"""Where requests go: the Services with their processes, and the HTTPRoutes that share the traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

GATEWAY = ("kserve", "kserve-ingress-gateway")
HTTP, GRPC = "http", "grpc"
PROTOCOLS = (HTTP, GRPC)
GRPC_PORT = 8081


@dataclass(frozen=True, order=True)
class Endpoint:
    """One model-server process on loopback."""

    http_port: int
    grpc_port: int


@dataclass(frozen=True)
class Service:
    """The processes of one variant.

    Attributes:
        namespace: Its namespace.
        name: Its name, as KServe names Services.
        model: The InferenceService, and so the model name in V1 and V2 paths.
        stable: Whether it is the InferenceService's stable variant.
        endpoints: Those that are ready.
    """

    namespace: str
    name: str
    model: str
    stable: bool
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class Backend:
    """A Service in a rule: its share, who takes over when it has no healthy process, and what it never sees.

    Attributes:
        removed: Headers that are taken away from its requests.
    """

    service: str
    weight: int
    fallback: str | None = None
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Match:
    """A path and headers that a request must have."""

    path: str = "/"
    exact: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Rule:
    """Requests that match any of `matches` go to the backends.

    Attributes:
        matches: What a request must have.
        backends: Who shares the requests.
        mirrors: Who gets copies: Service and percent.
        removed: Headers that nobody behind the gateway gets to see.
        protocols: What its requests may speak: those to port 80 both, those to 8081 gRPC.
    """

    matches: tuple[Match, ...]
    backends: tuple[Backend, ...]
    mirrors: tuple[tuple[str, int], ...] = ()
    removed: tuple[str, ...] = ()
    protocols: tuple[str, ...] = PROTOCOLS


@dataclass(frozen=True)
class Route:
    """One HTTPRoute, read."""

    namespace: str
    name: str
    hostnames: tuple[str, ...]
    models: tuple[str, ...]
    rules: tuple[Rule, ...]

    def list_services(self) -> list[str]:
        """Return every Service that it names, once."""
        names = [backend.service for rule in self.rules for backend in rule.backends]
        names += [service for rule in self.rules for service, _ in rule.mirrors]
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Routing:
    """All that the gateway is to do.

    Attributes:
        services: By (namespace, name).
        routes: HTTPRoute objects, as the API holds them.
    """

    services: Mapping[tuple[str, str], Service] = field(default_factory=dict)
    routes: Sequence[Document] = ()

    def read_routes(self) -> list[Route]:
        """Return the routes that attach to our gateway, the oldest first."""
        attached = [body for body in self.routes if attaches(body)]
        attached.sort(
            key=lambda body: (
                body["metadata"].get("creationTimestamp", ""),
                body["metadata"]["namespace"],
                body["metadata"]["name"],
            )
        )
        return [self._read_route(body) for body in attached]

    def _read_route(self, body: Document) -> Route:
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        rules = tuple(self._read_rule(namespace, rule) for rule in body["spec"]["rules"])
        models = []
        for rule in rules:
            for backend in rule.backends:
                service = self.services.get((namespace, backend.service))
                models.append(service.model if service else name)
        return Route(
            namespace=namespace,
            name=name,
            hostnames=tuple(body["spec"].get("hostnames") or ()),
            models=tuple(dict.fromkeys(models)),
            rules=rules,
        )

    def _read_rule(self, namespace: str, rule: Document) -> Rule:
        weights: dict[str, int] = {}
        hidden: dict[str, tuple[str, ...]] = {}
        for reference in rule["backendRefs"]:  # a Service is named twice where it keeps a place in the list
            name, weight = reference["name"], reference.get("weight", 1)
            weights[name] = weights.get(name, 0) + weight
            if weight or name not in hidden:
                hidden[name] = tuple(_list_removed(reference.get("filters") or []))
        stable = self._find_stable(namespace, list(weights))
        backends = [
            Backend(name, weight, None if name == stable else stable, hidden[name])
            for name, weight in weights.items()
        ]
        filters = rule.get("filters") or []
        mirrors = tuple(
            (entry["requestMirror"]["backendRef"]["name"], entry["requestMirror"].get("percent", 100))
            for entry in filters
            if entry["type"] == "RequestMirror"
        )
        matches = tuple(_read_match(match) for match in rule.get("matches") or [{}])
        only_grpc = all(reference.get("port") == GRPC_PORT for reference in rule["backendRefs"])
        protocols = (GRPC,) if only_grpc else PROTOCOLS
        return Rule(matches, tuple(backends), mirrors, tuple(_list_removed(filters)), protocols)

    def _find_stable(self, namespace: str, names: Sequence[str]) -> str:
        """Return the backend that takes over for the others: the stable variant, else the last one listed."""
        for name in names:
            service = self.services.get((namespace, name))
            if service is not None and service.stable:
                return name
        return names[-1]


def attaches(body: Document) -> bool:
    """Return whether an HTTPRoute names our gateway as its parent."""
    return any(is_our_gateway(body, parent) for parent in body["spec"]["parentRefs"])


def is_our_gateway(body: Document, parent: Document) -> bool:
    """Return whether one parentRef of an HTTPRoute means our gateway."""
    return (parent.get("namespace", body["metadata"]["namespace"]), parent["name"]) == GATEWAY


def _list_removed(filters: Sequence[Document]) -> list[str]:
    """Return the headers that filters take away."""
    return [
        name.lower()
        for entry in filters
        if entry["type"] == "RequestHeaderModifier"
        for name in entry["requestHeaderModifier"]["remove"]
    ]


def _read_match(match: Document) -> Match:
    path = match.get("path") or {}
    headers = tuple((header["name"].lower(), header["value"]) for header in match.get("headers") or [])
    return Match(path.get("value", "/"), path.get("type") == "Exact", headers)
