"""How a service's HTTPRoute shares the customers' requests, read from its document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def find_split(route: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rule that shares the requests: the first that asks for no header; {} when there is none."""
    for rule in route["spec"]["rules"]:
        if not any(match.get("headers") for match in rule.get("matches") or ()):
            return dict(rule)
    return {}


def read_weights(route: Mapping[str, Any]) -> dict[str, int]:
    """Return the weights by Service, in the route's own order and scale; a Service may be named twice."""
    weights: dict[str, int] = {}
    for backend in find_split(route).get("backendRefs") or ():
        weights[backend["name"]] = weights.get(backend["name"], 0) + int(backend.get("weight", 1))
    return weights


def read_shares(route: Mapping[str, Any]) -> dict[str, int]:
    """Return percent by Service, rounded: a share that only keeps a way open counts as none."""
    weights = read_weights(route)
    total = sum(weights.values())
    return {name: round(100 * weight / total) if total else 0 for name, weight in weights.items()}
