"""What there is to know of a rollout, read from its InferenceService and the route in front of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from clients import names
from clients.services import get_condition
from clients.split import read_shares


class Variant(BaseModel):
    """One version in front of customers.

    Attributes:
        weight: Percent of the requests that the route gives it now.
        asked: Percent that the InferenceService asks for.
    """

    name: str
    role: str
    version: str
    digest: str
    weight: int
    asked: int
    ready: bool


class Flight(BaseModel):
    """How far the canary has come, and what is known of it.

    Attributes:
        step: Of the project's steps, from 0; -1 is the dark launch.
        since: When this step began.
        mirror: Percent of the requests that are copied to it.
        action: What the pilot makes of it.
        text: The same in words: what is seen, and what it waits for.
        signals: Each signal's estimate and interval (`tenure.judgement.Signal`).
    """

    step: int
    since: datetime
    mirror: int
    action: str
    text: str
    signals: list[dict[str, Any]]


class State(BaseModel):
    """An InferenceService as its owner wants to see it."""

    name: str
    namespace: str
    variants: list[Variant]
    paused: bool
    pending: list[str]
    transition: dict[str, Any] | None
    previous: str | None
    flight: Flight | None = None
    unrecorded: int = 0


def describe_service(service: Mapping[str, Any], route: Mapping[str, Any] | None) -> State:
    """Read the state of a rollout from its InferenceService and the route in front of it."""
    metadata, spec = service["metadata"], service["spec"]
    annotations = metadata.get("annotations") or {}
    weights = read_shares(route) if route is not None else {}
    statuses = service.get("status", {}).get("canaryStatuses") or []
    ready = {status["name"]: bool(status.get("ready")) for status in statuses}
    canaries = spec.get("canary") or []

    def build(predictor: Mapping[str, Any], role: str, asked: int, is_ready: bool) -> Variant:
        digest = names.digest_of(predictor["model"]["storageUri"])
        backend = names.service_name(metadata["name"], predictor.get("name"))
        return Variant(
            name=predictor.get("name") or names.STABLE,
            role=role,
            version=digest[:12],
            digest=digest,
            weight=weights.get(backend, 0),
            asked=asked,
            ready=is_ready,
        )

    condition = get_condition(service, "PredictorReady")
    rest = 100 - sum(int(canary.get("trafficPercent", 0)) for canary in canaries)
    stable_ready = condition is not None and condition.get("status") == "True"
    variants = [build(spec["predictor"], "stable", rest, stable_ready)]
    for canary in canaries:
        predictor = canary["predictor"]
        asked = int(canary.get("trafficPercent", 0))
        variants.append(build(predictor, "canary", asked, ready.get(predictor["name"], False)))
    pending = [action for action in (names.PROMOTE, names.ROLLBACK) if action in annotations]
    transition = annotations.get(names.TRANSITION)
    previous = annotations.get(names.PREVIOUS)
    return State(
        name=metadata["name"],
        namespace=metadata["namespace"],
        variants=variants,
        paused=annotations.get(names.PAUSE, "").lower() == "true",
        pending=[action.rpartition("/")[2] for action in pending],
        transition=json.loads(transition) if transition else None,
        previous=names.digest_of(previous)[:12] if previous else None,
        flight=_read_flight(annotations) if canaries else None,
        unrecorded=len(json.loads(annotations.get(names.UNRECORDED, "[]"))),
    )


def _read_flight(annotations: Mapping[str, str]) -> Flight | None:
    text = annotations.get(names.ROLLOUT)
    if text is None:
        return None
    document = json.loads(text)
    progress, judgement = document["progress"], document.get("judgement") or {}
    return Flight(
        step=progress["step"],
        since=progress["since"],
        mirror=document.get("mirror", 0),
        action=judgement.get("action", "wait"),
        text=judgement.get("text", "nothing is known yet"),
        signals=judgement.get("signals", []),
    )
