"""The HTTPRoute that clients come through, as a pure function of the InferenceService."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clients import names

GATEWAY = {"name": "kserve-ingress-gateway", "namespace": "kserve"}
PORT = 80

STRIPPED = "ce-id"
"""The header by which a client could name the event of its request; its copies would have the same name."""


def list_canaries(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `spec.canary`, oldest first; empty when there is none."""
    return list(service["spec"].get("canary") or [])


def is_ready(service: Mapping[str, Any], canary_name: str) -> bool:
    """Whether the canary's model servers can take traffic, by the InferenceService's status."""
    statuses = service.get("status", {}).get("canaryStatuses") or []
    return any(status.get("name") == canary_name and bool(status.get("ready")) for status in statuses)


def ask_weights(service: Mapping[str, Any]) -> dict[str, int]:
    """Return the percentage asked for, by canary; a canary that is not ready gets none."""
    weights = {}
    for canary in list_canaries(service):
        name = canary["predictor"]["name"]
        weights[name] = int(canary.get("trafficPercent", 0)) if is_ready(service, name) else 0
    return weights


def read_weights(route: Mapping[str, Any], service: Mapping[str, Any]) -> dict[str, int]:
    """Return the percentage that a route gives each canary now; 0 for one that it does not know."""
    backends = {
        backend["name"]: int(backend.get("weight", 1))
        for backend in route["spec"]["rules"][-1]["backendRefs"]
    }
    name = service["metadata"]["name"]
    canaries = [canary["predictor"]["name"] for canary in list_canaries(service)]
    return {canary: backends.get(names.service_name(name, canary), 0) for canary in canaries}


def build_route(
    service: Mapping[str, Any],
    weights: Mapping[str, int],
    domain: str,
    mirrors: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Build the HTTPRoute of an InferenceService.

    A request with the header `x-tenure-variant` goes to the variant it names, whatever the weights; so a
    canary can be asked before any customer is. All others are split. Canaries come first: where a split
    sticks to a customer, one who met the canary keeps it when its share grows.

    No request brings its own event id: where one is copied or tried again, the rows of both variants would
    be one event, and the ledger would keep only one of them.

    Args:
        service: The InferenceService.
        weights: Percent of the traffic by canary name; the stable predictor gets the rest.
        domain: The gateway's domain; the route answers to NAME-NAMESPACE.DOMAIN.
        mirrors: Percent of the split requests that is copied to a canary, by its name; the copies' answers
            reach nobody.
    """
    metadata = service["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    stable = names.service_name(name, service["spec"]["predictor"].get("name"))
    canaries = {
        canary["predictor"]["name"]: names.service_name(name, canary["predictor"]["name"])
        for canary in list_canaries(service)
    }
    variants = {**canaries, names.stable_name(service): stable}
    strip = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [STRIPPED]}}
    rules: list[dict[str, Any]] = [
        {
            "filters": [strip],
            "matches": [{"headers": [{"type": "Exact", "name": names.VARIANT_HEADER, "value": variant}]}],
            "backendRefs": [{"name": backend, "port": PORT}],
        }
        for variant, backend in variants.items()
    ]
    split: list[dict[str, Any]] = [
        {"name": canaries[canary], "port": PORT, "weight": weights.get(canary, 0)} for canary in canaries
    ]
    rest = 100 - sum(backend["weight"] for backend in split)
    copies = [
        {
            "type": "RequestMirror",
            "requestMirror": {"backendRef": {"name": canaries[canary], "port": PORT}, "percent": percent},
        }
        for canary, percent in (mirrors or {}).items()
        if canary in canaries
    ]
    rules.append(
        {
            "filters": [strip, *copies],
            "backendRefs": [*split, {"name": stable, "port": PORT, "weight": rest}],
        }
    )
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {names.PROJECT_LABEL: metadata["labels"][names.PROJECT_LABEL]},
        },
        "spec": {
            "parentRefs": [dict(GATEWAY)],
            "hostnames": [names.hostname(name, namespace, domain)],
            "rules": rules,
        },
    }


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
