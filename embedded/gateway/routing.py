"""Where requests go: the Services with their processes, and the HTTPRoutes that share the traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

GATEWAY = ("kserve", "kserve-ingress-gateway")
HTTP, GRPC = "http", "grpc"
PROTOCOLS = (HTTP, GRPC)


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
    """A Service in a rule: its share, and who takes over when it has no healthy process."""

    service: str
    weight: int
    fallback: str | None = None


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
    """

    matches: tuple[Match, ...]
    backends: tuple[Backend, ...]
    mirrors: tuple[tuple[str, int], ...] = ()
    removed: tuple[str, ...] = ()


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
        references = rule["backendRefs"]
        names = [reference["name"] for reference in references]
        stable = self._find_stable(namespace, names)
        backends = []
        for reference in references:
            name = reference["name"]
            fallback = None
            if len(names) > 1 and name != stable:
                fallback = stable
            backends.append(Backend(name, reference.get("weight", 1), fallback))
        mirrors: list[tuple[str, int]] = []
        removed: list[str] = []
        for entry in rule.get("filters") or []:
            if entry["type"] == "RequestMirror":
                mirror = entry["requestMirror"]
                mirrors.append((mirror["backendRef"]["name"], mirror.get("percent", 100)))
            else:
                removed += [name.lower() for name in entry["requestHeaderModifier"]["remove"]]
        matches = tuple(_read_match(match) for match in rule.get("matches") or [{}])
        return Rule(matches, tuple(backends), tuple(mirrors), tuple(removed))

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


def _read_match(match: Document) -> Match:
    path = match.get("path") or {}
    headers = tuple((header["name"].lower(), header["value"]) for header in match.get("headers") or [])
    return Match(path.get("value", "/"), path.get("type") == "Exact", headers)
