"""What `kubectl get` prints for each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Cell = str | int


@dataclass(frozen=True)
class TableColumn:
    """One column; `wide` ones show with `-o wide` only."""

    name: str
    read: Callable[[dict[str, Any]], Cell]
    description: str = ""
    wide: bool = False
    format: str = ""


def find_condition(body: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the status condition of type `kind`, or an empty one."""
    for condition in (body.get("status") or {}).get("conditions", []):
        if condition.get("type") == kind:
            found: dict[str, Any] = condition
            return found
    return {}


def format_age(then: str | None, now: datetime | None = None) -> str:
    """Say how long ago an RFC 3339 time was, as kubectl does: 12s, 5m, 3h, 2d."""
    if not then:
        return "<unknown>"
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(then)).total_seconds())
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    if seconds < 7200:
        return f"{seconds // 60}m"
    if seconds < 172800:
        return f"{seconds // 3600}h"
    return f"{seconds // 86400}d"


def _read_name(body: dict[str, Any]) -> Cell:
    return str(body["metadata"]["name"])


def _read_age(body: dict[str, Any]) -> Cell:
    return format_age(body["metadata"].get("creationTimestamp"))


def _read_canaries(body: dict[str, Any]) -> Cell:
    canaries = body.get("spec", {}).get("canary") or []
    return ",".join(entry["predictor"]["name"] for entry in canaries) or "<none>"


def _read_shares(body: dict[str, Any]) -> Cell:
    canaries = body.get("spec", {}).get("canary") or []
    return ",".join(f"{entry.get('trafficPercent', 0)}%" for entry in canaries)


def _read_ready_reason(body: dict[str, Any]) -> Cell:
    return str(find_condition(body, "Ready").get("reason", ""))


def _read_weights(body: dict[str, Any]) -> Cell:
    weights: dict[str, int] = {}
    for rule in body.get("spec", {}).get("rules") or []:
        if not any(match.get("headers") for match in rule.get("matches") or []):
            for backend in rule.get("backendRefs") or []:
                weights[backend["name"]] = weights.get(backend["name"], 0) + backend.get("weight", 1)
            break
    return ",".join(f"{name}={weight}" for name, weight in weights.items())


def _read_accepted(body: dict[str, Any]) -> Cell:
    for parent in (body.get("status") or {}).get("parents", []):
        for condition in parent.get("conditions", []):
            if condition["type"] == "Accepted":
                return str(condition["status"])
    return "Unknown"


def _read_formats(body: dict[str, Any]) -> Cell:
    return ",".join(entry["name"] for entry in body.get("spec", {}).get("supportedModelFormats", []))


def _read_object(body: dict[str, Any]) -> Cell:
    involved = body.get("involvedObject", {})
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


_NAME = TableColumn("Name", _read_name, "Name, unique in its namespace.", format="name")
_AGE = TableColumn("Age", _read_age, "Time since it was created.")

INFERENCE_SERVICE = (
    _NAME,
    TableColumn("URL", lambda body: (body.get("status") or {}).get("url", ""), "Its name at the gateway."),
    TableColumn(
        "Ready", lambda body: find_condition(body, "Ready").get("status", "Unknown"), "Whether it answers."
    ),
    TableColumn(
        "Stable", lambda body: body["spec"]["predictor"].get("name", "stable"), "The stable variant."
    ),
    TableColumn("Canary", _read_canaries, "The canaries."),
    TableColumn("Traffic", _read_shares, "The share that each canary is meant to have."),
    _AGE,
    TableColumn("Reason", _read_ready_reason, "Why it is not ready.", wide=True),
    TableColumn(
        "Storage",
        lambda body: body["spec"]["predictor"]["model"]["storageUri"],
        "The stable model.",
        wide=True,
    ),
)
HTTP_ROUTE = (
    _NAME,
    TableColumn(
        "Hostnames", lambda body: ",".join(body["spec"].get("hostnames") or ["*"]), "Where it applies."
    ),
    TableColumn("Weights", _read_weights, "The last weighted rule."),
    TableColumn("Accepted", _read_accepted, "Whether the gateway took it."),
    _AGE,
)
NAMESPACE = (
    _NAME,
    TableColumn("Status", lambda body: (body.get("status") or {}).get("phase", ""), "Its phase."),
    _AGE,
)
SERVING_RUNTIME = (
    _NAME,
    TableColumn(
        "Disabled", lambda body: str(body["spec"].get("disabled", False)).lower(), "Whether it is off."
    ),
    TableColumn("ModelType", _read_formats, "The formats that it serves."),
    TableColumn(
        "Containers",
        lambda body: ",".join(container["name"] for container in body["spec"].get("containers", [])),
        "Its containers.",
    ),
    _AGE,
)
EVENT = (
    TableColumn("Last Seen", lambda body: format_age(body.get("lastTimestamp")), "When it last happened."),
    TableColumn("Type", lambda body: body.get("type", ""), "Normal or Warning."),
    TableColumn("Reason", lambda body: body.get("reason", ""), "What happened, in one word."),
    TableColumn("Object", _read_object, "To what."),
    TableColumn("Message", lambda body: body.get("message", ""), "What happened, in a sentence."),
    TableColumn("Count", lambda body: body.get("count", 1), "How often.", wide=True),
    TableColumn("Name", _read_name, "Name of the event.", wide=True, format="name"),
)
