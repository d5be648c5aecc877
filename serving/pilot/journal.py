"""What happened to a rollout, written into the InferenceService in the same update as what it did.

A transition stands in two annotations: `names.TRANSITION` has the newest, and `names.UNRECORDED` all that
registry, ledger and events do not hold yet. So none is lost, wherever the pilot is killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from clients import names
from tenure.canonical import dump_canonical

LIMIT = 40
"""Most transitions that may wait to be recorded; above it only what a person or harm demands is written."""

_TEXT = 600
"""Most characters of a text in evidence: all annotations of a resource together have 256 KiB."""

Transition = dict[str, Any]
"""`outcome`, `at` (ISO 8601), `shares` (version -> percent from then on); and, where they apply, `digest`,
`previous`, `asked`, `reason`, `evidence`."""


def write_transition(
    marks: dict[str, str],
    outcome: str,
    now: datetime,
    shares: Mapping[str, int],
    evidence: Mapping[str, Any] | None = None,
    **facts: str,
) -> Transition:
    """Add a transition to the annotations `marks`.

    Args:
        marks: The annotations of the InferenceService that is about to be written.
        outcome: What happened, in one word.
        now: When, with a zone.
        shares: Percent of the requests by version, from then on.
        evidence: Why: a judgement as JSON.
        facts: Digests and reasons.
    """
    at = now.astimezone(UTC).isoformat(timespec="milliseconds")
    transition: Transition = {"outcome": outcome, "at": at, "shares": dict(shares), **facts}
    if evidence:
        transition["evidence"] = _shorten(evidence)
    marks[names.TRANSITION] = json.dumps(transition, sort_keys=True)
    waiting = [*json.loads(marks.get(names.UNRECORDED, "[]")), transition]
    marks[names.UNRECORDED] = json.dumps(waiting, sort_keys=True)
    return transition


def read_unrecorded(service: Mapping[str, Any]) -> list[Transition]:
    """Return the transitions that wait to be recorded, oldest first."""
    marks = service["metadata"].get("annotations") or {}
    return list(json.loads(marks.get(names.UNRECORDED, "[]")))


def read_last(service: Mapping[str, Any]) -> Transition | None:
    """Return the newest transition, or None before the first."""
    text = (service["metadata"].get("annotations") or {}).get(names.TRANSITION)
    return None if text is None else dict(json.loads(text))


def drop_recorded(marks: dict[str, str], recorded: set[str], service: str) -> None:
    """Take transitions off the list of those that wait, by their ids."""
    waiting = json.loads(marks.get(names.UNRECORDED, "[]"))
    rest = [transition for transition in waiting if identify(service, transition) not in recorded]
    if rest:
        marks[names.UNRECORDED] = json.dumps(rest, sort_keys=True)
    else:
        marks.pop(names.UNRECORDED, None)


def identify(service: str, transition: Transition) -> str:
    """Return the SHA-256 of a transition's content: the same twice is one row of the ledger."""
    return hashlib.sha256(dump_canonical([service, transition])).hexdigest()


def share_out(service: Mapping[str, Any], weights: Mapping[str, int]) -> dict[str, int]:
    """Return percent by version, for weights by canary; versions without a share are left out."""
    spec = service["spec"]
    shares = {_read_version(spec["predictor"]): 100 - sum(weights.values())}
    for entry in spec.get("canary") or []:
        predictor = entry["predictor"]
        version = _read_version(predictor)
        shares[version] = shares.get(version, 0) + weights.get(predictor["name"], 0)
    return {version: share for version, share in shares.items() if share}


def _read_version(predictor: Mapping[str, Any]) -> str:
    return names.digest_of(predictor["model"]["storageUri"])[:12]


def _shorten(document: Any) -> Any:
    """Return the document with no text longer than the limit."""
    if isinstance(document, str):
        return document if len(document) <= _TEXT else document[: _TEXT - 1] + "…"
    if isinstance(document, Mapping):
        return {key: _shorten(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_shorten(value) for value in document]
    return document
