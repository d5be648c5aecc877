"""Reading Kubernetes documents: names, conditions, quantities, times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Document = dict[str, Any]

_FACTORS = {
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


def name_of(document: Mapping[str, Any]) -> str:
    """Return a resource's name."""
    return str(document["metadata"]["name"])


def namespace_of(document: Mapping[str, Any]) -> str:
    """Return a resource's namespace, nothing for what has none."""
    return str(document["metadata"].get("namespace", ""))


def path_of(document: Mapping[str, Any]) -> str:
    """Return NAMESPACE/NAME."""
    namespace = namespace_of(document)
    return f"{namespace}/{name_of(document)}" if namespace else name_of(document)


def labels_of(document: Mapping[str, Any]) -> Mapping[str, str]:
    """Return a resource's labels."""
    return document["metadata"].get("labels") or {}


def find_condition(document: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Return the status condition of type `kind`."""
    return pick_condition((document.get("status") or {}).get("conditions"), kind)


def pick_condition(conditions: Any, kind: str) -> Mapping[str, Any] | None:
    """Return the condition of type `kind` from a list of conditions."""
    for condition in conditions or ():
        if condition.get("type") == kind:
            found: Mapping[str, Any] = condition
            return found
    return None


def is_true(document: Mapping[str, Any], kind: str) -> bool:
    """Say whether the condition of type `kind` is reported and true."""
    condition = find_condition(document, kind)
    return condition is not None and condition.get("status") == "True"


def explain(condition: Mapping[str, Any] | None) -> str:
    """Return a condition's reason and message as one line."""
    if condition is None:
        return "nothing is reported yet"
    parts = [str(condition[key]).strip() for key in ("reason", "message") if condition.get(key)]
    return shorten(": ".join(parts)) or f"{condition.get('type')} is {condition.get('status')}"


def read_quantity(text: object) -> float:
    """Return a Kubernetes quantity (`250m`, `2Gi`) as a number."""
    value = str(text)
    for suffix in sorted(_FACTORS, key=len, reverse=True):
        if value.endswith(suffix):
            return float(value.removesuffix(suffix)) * _FACTORS[suffix]
    return float(value)


def read_time(text: str | None) -> datetime | None:
    """Return a timestamp of a document."""
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def shorten(text: str, limit: int = 300) -> str:
    """Return the text as one line of at most `limit` characters; its end usually says most."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    head = limit // 3
    return f"{line[:head]} … {line[-(limit - head - 3) :]}"
