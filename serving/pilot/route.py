"""The HTTPRoute that clients come through, as a function of the InferenceService and the route before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clients import names, split
from serving.pilot.course import SCALE, assign_places, step

HTTP_PORT, GRPC_PORT = 80, 8081
"""The ports of KServe's Services: V1 and V2 over HTTP, and V2 over gRPC."""

GRPC_TYPES = ("application/grpc", "application/grpc+proto")
"""What a gRPC request calls its content."""

STRIPPED = "ce-id"
"""The header by which a client could name the event of its request; its copies would have the same name."""

GATEWAY = "kserve/kserve-ingress-gateway"
"""The Gateway by default, as NAMESPACE/NAME."""

_STRIP = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [STRIPPED]}}

Document = dict[str, Any]


def list_canaries(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `spec.canary`, oldest first; empty when there is none."""
    return list(service["spec"].get("canary") or [])


def is_ready(service: Mapping[str, Any], canary_name: str) -> bool:
    """Whether the canary's model servers can take traffic, by the InferenceService's status."""
    statuses = service.get("status", {}).get("canaryStatuses") or []
    return any(status.get("name") == canary_name and bool(status.get("ready")) for status in statuses)


def is_proven(service: Mapping[str, Any]) -> bool:
    """Whether customers may meet the stable model: a first one must be proven by its roll-out before."""
    return names.UNPROVEN not in (service["metadata"].get("annotations") or {})


def ask_weights(service: Mapping[str, Any]) -> dict[str, int]:
    """Return the percentage asked for, by canary; a canary that is not ready gets none."""
    weights = {}
    for canary in list_canaries(service):
        name = canary["predictor"]["name"]
        weights[name] = int(canary.get("trafficPercent", 0)) if is_ready(service, name) else 0
    return weights


def read_weights(route: Mapping[str, Any], service: Mapping[str, Any]) -> dict[str, int]:
    """Return the percentage that a route gives each canary now; 0 for one that it does not know."""
    shares = split.read_shares(route)
    name = service["metadata"]["name"]
    canaries = [canary["predictor"]["name"] for canary in list_canaries(service)]
    return {canary: shares.get(names.service_name(name, canary), 0) for canary in canaries}


@dataclass(frozen=True)
class Leg:
    """A route to write next, and whether it is the one that is wanted in the end."""

    route: Document
    last: bool


def plan_route(
    service: Mapping[str, Any],
    weights: Mapping[str, int],
    domain: str,
    mirrors: Mapping[str, int] | None = None,
    *,
    gateway: str = GATEWAY,
    before: Mapping[str, Any] | None = None,
) -> Leg:
    """Return the next HTTPRoute on the way from `before` to what is wanted of an InferenceService.

    The first two rules split the requests, one for HTTP and one for gRPC, which has a port of its own. Then
    come two for each variant: a request with the header `x-tenure-variant` goes to the variant it names,
    whatever the weights; so a canary can be asked before any customer is. A Service keeps its place among the
    backends (`serving.pilot.course`), and has a filter of its own, for only then does Envoy Gateway count its
    requests apart from those of the others.

    No request brings its own event id: where one is copied or tried again, the rows of both variants would
    be one event, and the ledger would keep only one of them.

    A first model that its roll-out has not proven yet has the rules of variants alone: whoever does not ask
    for it by that header gets 404.

    Args:
        service: The InferenceService.
        weights: Percent of the traffic by canary name; the stable predictor gets the rest.
        domain: The gateway's domain; the route answers to NAME-NAMESPACE.DOMAIN.
        mirrors: Percent of the split requests that is copied to a canary, by its name; the copies' answers
            reach nobody.
        gateway: The Gateway that it attaches to, as NAMESPACE/NAME.
        before: The route as it is; None when there is none yet.
    """
    metadata = service["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    stable = names.service_name(name, service["spec"]["predictor"].get("name"))
    variants = {stable: names.stable_name(service)}
    for canary in list_canaries(service):
        variants[names.service_name(name, canary["predictor"]["name"])] = canary["predictor"]["name"]
    now = [] if before is None else _list_backends(before)
    places = assign_places(now, list(variants))
    goal = {backend: weights.get(variant, 0) for backend, variant in variants.items()}
    goal[stable] = 100 - sum(weight for backend, weight in goal.items() if backend != stable)
    shares = step({} if before is None else split.read_weights(before), goal)
    copies = {
        backend: percent
        for canary, percent in (mirrors or {}).items()
        for backend, variant in variants.items()
        if variant == canary
    }
    rules: list[Document] = []
    for port in (HTTP_PORT, GRPC_PORT) if is_proven(service) else ():
        backends = [
            {**_build_backend(place or stable, port), "weight": 0 if place is None else shares[place]}
            for place in places
        ]
        mirrored = [
            {
                "type": "RequestMirror",
                "requestMirror": {"backendRef": {"name": backend, "port": port}, "percent": percent},
            }
            for backend, percent in copies.items()
        ]
        rules.append(
            {"matches": _build_matches(port), "filters": [_STRIP, *mirrored], "backendRefs": backends}
        )
    for place in places:
        for port in (HTTP_PORT, GRPC_PORT):
            backend = place or stable
            rules.append(
                {
                    "matches": _build_matches(port, variants[backend]),
                    "filters": [_STRIP],
                    "backendRefs": [_build_backend(backend, port)],
                }
            )
    owner, _, parent = gateway.partition("/")
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": names.route_name(name),
            "namespace": namespace,
            "labels": {names.PROJECT_LABEL: metadata["labels"][names.PROJECT_LABEL]},
        },
        "spec": {
            "parentRefs": [{"name": parent, "namespace": owner}],
            "hostnames": [names.hostname(name, namespace, domain)],
            "rules": rules,
        },
    }
    return Leg(route, shares == goal)


def is_leg(route: Mapping[str, Any]) -> bool:
    """Whether a route is one on the way to another."""
    return sum(split.read_weights(route).values()) == SCALE


def list_clusters(route: Mapping[str, Any]) -> dict[str, str]:
    """Return the Services by what Envoy Gateway calls the clusters of a route's backends and copies."""
    metadata = route["metadata"]
    prefix = f"httproute/{metadata['namespace']}/{metadata['name']}/rule"
    clusters: dict[str, str] = {}
    for number, rule in enumerate(route["spec"]["rules"]):
        for place, backend in enumerate(rule.get("backendRefs") or ()):
            clusters[f"{prefix}/{number}/backend/{place}"] = backend["name"]
        for place, entry in enumerate(rule.get("filters") or ()):
            if "requestMirror" in entry:
                name = entry["requestMirror"]["backendRef"]["name"]
                clusters[f"{prefix}/{number}-mirror-{place}"] = name
    return clusters


def covers(actual: Any, wanted: Any) -> bool:
    """Whether `actual` says everything that `wanted` says; an API server's defaults may say more.

    Filters are no default: those that nobody wants are a difference.
    """
    if isinstance(wanted, Mapping):
        if not isinstance(actual, Mapping) or (actual.get("filters") and not wanted.get("filters")):
            return False
        return all(key in actual and covers(actual[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(wanted)
            and all(covers(one, other) for one, other in zip(actual, wanted, strict=True))
        )
    return bool(actual == wanted)


def is_in_effect(route: Mapping[str, Any]) -> bool:
    """Whether the gateway has taken over the route's newest generation."""
    generation = route["metadata"].get("generation")
    parents = route.get("status", {}).get("parents") or []
    accepted = [
        condition
        for parent in parents
        for condition in parent.get("conditions", [])
        if condition.get("type") == "Accepted"
    ]
    return bool(accepted) and all(
        condition.get("status") == "True" and condition.get("observedGeneration") == generation
        for condition in accepted
    )


def _list_backends(route: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return the Services and weights of the rule that splits, in their order."""
    backends = split.find_split(route).get("backendRefs") or []
    return [(backend["name"], int(backend.get("weight", 1))) for backend in backends]


def _build_backend(name: str, port: int) -> Document:
    return {"name": name, "port": port, "filters": [_STRIP]}


def _build_matches(port: int, variant: str | None = None) -> list[Document]:
    """Return what requests of a protocol look like, and those that ask for a variant."""
    asked = [] if variant is None else [{"type": "Exact", "name": names.VARIANT_HEADER, "value": variant}]
    if port == HTTP_PORT:
        return [{"headers": asked}] if asked else [{"path": {"type": "PathPrefix", "value": "/"}}]
    return [
        {"headers": [*asked, {"type": "Exact", "name": "content-type", "value": kind}]} for kind in GRPC_TYPES
    ]
