"""The pilot's own decisions about a canary, made without touching anything.

How far a canary has come stands in `names.ROLLOUT` of its InferenceService, beside the newest judgement. What
a person asks for by annotation comes first and is not this module's business (`serving.pilot.transition`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from clients import names
from serving.pilot.errors import SpecificationError
from serving.pilot.journal import read_unrecorded, share_out, write_transition
from serving.pilot.route import ask_weights, is_ready, list_canaries
from tenure.canary import Rollout
from tenure.judgement import Evidence, Judgement, Progress

Document = dict[str, Any]


@dataclass(frozen=True)
class Flight:
    """A canary's way so far, as its InferenceService tells it.

    Attributes:
        progress: Step, times, and the gateway's counters.
        judgement: The newest; None before the first.
        mirror: Percent of the requests that are copied to the canary.
        asked: What the pilot has asked for (an annotation as a person would write it), if it has.
    """

    progress: Progress
    judgement: Judgement | None = None
    mirror: int = 0
    asked: Literal["promote", "rollback"] | None = None

    @property
    def reason(self) -> str:
        """Why the pilot asked, or would ask."""
        return self.judgement.text if self.judgement is not None else ""

    @property
    def evidence(self) -> dict[str, Any]:
        """The newest judgement as JSON."""
        return {} if self.judgement is None else self.judgement.model_dump(mode="json")


@dataclass(frozen=True)
class Proven:
    """What the roll-out said of the canary that it has proven."""

    digest: str
    difference: float | None


def find_proven(service: Mapping[str, Any]) -> tuple[Document, Proven] | None:
    """Return the predictor of the canary that may be judged, or None.

    A canary that a person put there by hand has not been proven: its share is left to its owner.
    """
    text = _read_marks(service).get(names.PROVEN)
    if text is None:
        return None
    try:
        document = json.loads(text)
        proven = Proven(str(document["digest"]), document.get("difference"))
    except (ValueError, KeyError, TypeError) as error:
        raise SpecificationError(f"annotation {names.PROVEN}: {error}; roll out again") from error
    for entry in list_canaries(service):
        if names.digest_of(entry["predictor"]["model"]["storageUri"]) == proven.digest:
            return entry["predictor"], proven
    return None


def read_flight(service: Mapping[str, Any], digest: str) -> Flight | None:
    """Return how far the canary with this bundle has come; None before its beginning.

    Raises:
        SpecificationError: The annotation is not what the pilot writes.
    """
    text = _read_marks(service).get(names.ROLLOUT)
    if text is None:
        return None
    try:
        document = json.loads(text)
        progress = Progress.model_validate_json(json.dumps(document["progress"]))
        if progress.digest != digest:
            return None
        judgement = document.get("judgement")
        return Flight(
            progress,
            None if judgement is None else Judgement.model_validate_json(json.dumps(judgement)),
            int(document.get("mirror", 0)),
            document.get("asked"),
        )
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise SpecificationError(
            f"annotation {names.ROLLOUT}: {error}; remove it, and the canary begins anew"
        ) from error


def begin(service: Mapping[str, Any], proven: Proven, rollout: Rollout, now: datetime) -> Flight:
    """Return the beginning of a canary's way: the dark launch, or the step of the share that it has."""
    percent = max(
        int(entry.get("trafficPercent", 0))
        for entry in list_canaries(service)
        if names.digest_of(entry["predictor"]["model"]["storageUri"]) == proven.digest
    )
    passed = [number for number, share in enumerate(rollout.steps) if share <= percent]
    step = passed[-1] if passed else (0 if percent else -1)
    progress = Progress(
        canary=proven.digest[:12], digest=proven.digest, step=step, began=now, since=now, counters={}
    )
    return Flight(progress, mirror=rollout.mirror_percent if step < 0 else 0)


def act(
    service: Mapping[str, Any], flight: Flight, evidence: Evidence, rollout: Rollout, now: datetime
) -> Document | None:
    """Return the InferenceService to write for the flight's newest judgement; None when it is to wait.

    Everything goes into one update: share, progress, transition and evidence.
    """
    judgement = flight.judgement
    if judgement is None or is_paused(service) or judgement.action in ("wait", "hold"):
        return None
    then = copy.deepcopy(dict(service))
    marks = then["metadata"].setdefault("annotations", {})
    canary = names.canary_name(flight.progress.digest)
    facts = {"digest": flight.progress.digest, "reason": flight.reason}
    if judgement.action == "rollback":
        _set_percent(then, canary, 0)
        marks[names.ROLLBACK] = canary
        shares = share_out(then, ask_weights(then) | {canary: 0})
        write_transition(marks, "stopped", now, shares, flight.evidence, **facts)
        write_flight(marks, replace(flight, asked="rollback", mirror=0), now)
        return then
    if read_unrecorded(service) or not is_ready(service, canary):
        return None  # what went before is not recorded everywhere yet, or nobody could answer
    following = flight.progress.step + 1
    if judgement.action == "promote" or following >= len(rollout.steps):
        if rollout.promotion == "manual":
            return None
        marks[names.PROMOTE] = canary
        write_flight(marks, replace(flight, asked="promote"), now)
        return then
    share = max(rollout.steps[following], _read_percent(service, canary))
    _set_percent(then, canary, share)
    shares = share_out(then, ask_weights(then))
    write_transition(marks, "advanced", now, shares, flight.evidence, step=str(following + 1), **facts)
    write_flight(marks, replace(flight, progress=flight.progress.advance(evidence, now), mirror=0), now)
    return then


def write_flight(marks: dict[str, str], flight: Flight, now: datetime) -> None:
    """Write the flight into the annotations `marks`."""
    document = {
        "progress": flight.progress.model_dump(mode="json"),
        "judgement": flight.evidence or None,
        "mirror": flight.mirror,
        "asked": flight.asked,
        "at": now.astimezone(UTC).isoformat(timespec="milliseconds"),
    }
    marks[names.ROLLOUT] = json.dumps(document, sort_keys=True)


def find_mirrors(service: Mapping[str, Any]) -> dict[str, int]:
    """Return the percent of the requests that is copied, by canary: in a dark launch, while it is ready."""
    found = find_proven(service)
    if found is None:
        return {}
    predictor, proven = found
    flight = read_flight(service, proven.digest)
    name = predictor["name"]
    if flight is None or not flight.mirror or flight.progress.step >= 0 or not is_ready(service, name):
        return {}
    return {name: flight.mirror}


def is_paused(service: Mapping[str, Any]) -> bool:
    """Whether a person wants all shares to stay as they are."""
    return _read_marks(service).get(names.PAUSE, "").lower() == "true"


def _read_marks(service: Mapping[str, Any]) -> dict[str, str]:
    return service["metadata"].get("annotations") or {}


def _read_percent(service: Mapping[str, Any], canary: str) -> int:
    return next(
        int(entry.get("trafficPercent", 0))
        for entry in list_canaries(service)
        if entry["predictor"]["name"] == canary
    )


def _set_percent(service: Document, canary: str, percent: int) -> None:
    for entry in service["spec"]["canary"]:
        if entry["predictor"]["name"] == canary:
            entry["trafficPercent"] = percent
