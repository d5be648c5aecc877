"""What a person's annotations ask of an InferenceService, decided without touching anything.

The order that loses no request: first the route moves, then the InferenceService changes. So each decision is
a pair: the weights that must be in effect, and the InferenceService that may be written once they are.
Everything that has begun is written in the InferenceService itself, so the pilot can be killed between any
two steps.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from clients import names
from serving.pilot.route import ask_weights, is_ready, list_canaries, read_weights

REVERT_TIMEOUT_SECONDS = 300.0
"""How long a returning bundle may take to become ready before the attempt is given up."""

Outcome = Literal["promoted", "rolled_back", "reverting", "refused", "failed"]


@dataclass(frozen=True)
class Decision:
    """What to do about one InferenceService now.

    Attributes:
        weights: Percent by canary that the route must give.
        then: The InferenceService to write once the weights are in effect; None to leave it.
        outcome: What writing `then` means; None while there is nothing to write.
        digest: Bundle digest that the outcome is about, where there is one.
    """

    weights: dict[str, int]
    then: dict[str, Any] | None = None
    outcome: Outcome | None = None
    digest: str | None = None


def decide(service: Mapping[str, Any], route: Mapping[str, Any] | None, now: datetime) -> Decision:
    """Decide the next step for an InferenceService.

    Args:
        service: The InferenceService as it is.
        route: Its HTTPRoute as it is; None when there is none yet.
        now: The time to record, with a zone.
    """
    annotations = service["metadata"].get("annotations") or {}
    if names.ROLLBACK in annotations:
        return _roll_back(service, now)
    if names.REVERTING in annotations:
        return _revert(service, now)
    paused = annotations.get(names.PAUSE, "").lower() == "true"
    weights = read_weights(route, service) if paused and route is not None else ask_weights(service)
    if names.PROMOTE in annotations:
        if paused:
            return _refuse(service, weights, names.PROMOTE, "the rollout is paused; resume it first", now)
        return _promote(service, weights, now)
    return Decision(weights)


def _promote(service: Mapping[str, Any], weights: dict[str, int], now: datetime) -> Decision:
    asked = service["metadata"]["annotations"][names.PROMOTE]
    canary = _find_canary(service, asked)
    if canary is None:
        return _refuse(service, weights, names.PROMOTE, f"there is no canary {asked}", now)
    if not is_ready(service, asked):
        return _refuse(service, weights, names.PROMOTE, f"canary {asked} is not ready", now)
    return _take_over(service, canary, names.PROMOTE, "promoted", now)


def _take_over(
    service: Mapping[str, Any], canary: Mapping[str, Any], annotation: str, outcome: Outcome, now: datetime
) -> Decision:
    """Let a ready canary become the stable predictor: all traffic first, then the specification."""
    others = [entry["predictor"]["name"] for entry in list_canaries(service)]
    then = copy.deepcopy(dict(service))
    stable = then["spec"]["predictor"]
    old_uri, new_uri = stable["model"]["storageUri"], canary["model"]["storageUri"]
    stable["name"] = canary["name"]
    stable["model"]["storageUri"] = new_uri
    then["spec"].pop("canary")
    digest = names.digest_of(new_uri)
    marks = then["metadata"]["annotations"]
    marks.pop(annotation)
    marks[names.PREVIOUS] = old_uri
    _record(marks, outcome, now, digest=digest, previous=names.digest_of(old_uri))
    weights = {name: 100 if name == canary["name"] else 0 for name in others}
    return Decision(weights, then, outcome, digest)


def _roll_back(service: Mapping[str, Any], now: datetime) -> Decision:
    asked = service["metadata"]["annotations"][names.ROLLBACK]
    weights = ask_weights(service)
    canary = _find_canary(service, asked)
    if canary is not None:
        then = copy.deepcopy(dict(service))
        _remove_canary(then, asked)
        marks = then["metadata"]["annotations"]
        for annotation in (names.ROLLBACK, names.PROMOTE, names.REVERTING):
            marks.pop(annotation, None)
        digest = names.digest_of(canary["model"]["storageUri"])
        _record(marks, "rolled_back", now, digest=digest)
        return Decision(weights | {asked: 0}, then, "rolled_back", digest)
    if asked != names.stable_name(service):
        reason = f"there is no variant {asked}"
        return _refuse(service, weights, names.ROLLBACK, reason, now)
    if list_canaries(service):
        reason = f"a canary is in front of {asked}; roll the canary back first"
        return _refuse(service, weights, names.ROLLBACK, reason, now)
    if names.PREVIOUS not in service["metadata"]["annotations"]:
        reason = f"{asked} is the first version: there is no earlier bundle to return to"
        return _refuse(service, weights, names.ROLLBACK, reason, now)
    return _return_to_previous(service, now)


def _return_to_previous(service: Mapping[str, Any], now: datetime) -> Decision:
    """Begin to bring the earlier bundle back, as a canary without customers."""
    then = copy.deepcopy(dict(service))
    marks = then["metadata"]["annotations"]
    marks.pop(names.ROLLBACK)
    uri = marks[names.PREVIOUS]
    digest = names.digest_of(uri)
    stable = then["spec"]["predictor"]
    model = {**stable["model"], "name": "kserve-container", "storageUri": uri}
    entry = {key: value for key, value in stable.items() if key in ("minReplicas", "logger")}
    entry |= {"name": names.canary_name(digest), "model": model}
    then["spec"]["canary"] = [{"predictor": entry, "trafficPercent": 0}]
    marks[names.REVERTING] = json.dumps({"canary": entry["name"], "since": now.isoformat()}, sort_keys=True)
    _record(marks, "reverting", now, digest=digest)
    return Decision({}, then, "reverting", digest)


def _revert(service: Mapping[str, Any], now: datetime) -> Decision:
    """Go on bringing back an earlier bundle: wait until its canary is ready, then let it take over."""
    state = json.loads(service["metadata"]["annotations"][names.REVERTING])
    weights = {canary["predictor"]["name"]: 0 for canary in list_canaries(service)}
    canary = _find_canary(service, state["canary"])
    if canary is None:
        return _refuse(service, weights, names.REVERTING, f"canary {state['canary']} was removed", now)
    if is_ready(service, canary["name"]):
        return _take_over(service, canary, names.REVERTING, "rolled_back", now)
    waited = (now - datetime.fromisoformat(state["since"])).total_seconds()
    if waited < REVERT_TIMEOUT_SECONDS:
        return Decision(weights)
    then = copy.deepcopy(dict(service))
    _remove_canary(then, state["canary"])
    marks = then["metadata"]["annotations"]
    marks.pop(names.REVERTING)
    digest = names.digest_of(canary["model"]["storageUri"])
    _record(
        marks, "failed", now, digest=digest, reason=f"the earlier bundle was not ready after {waited:.0f} s"
    )
    return Decision(weights, then, "failed", digest)


def _refuse(
    service: Mapping[str, Any], weights: dict[str, int], annotation: str, reason: str, now: datetime
) -> Decision:
    then = copy.deepcopy(dict(service))
    marks = then["metadata"]["annotations"]
    marks.pop(annotation)
    _record(marks, "refused", now, asked=annotation.rpartition("/")[2], reason=reason)
    return Decision(weights, then, "refused")


def _find_canary(service: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    predictors = (canary["predictor"] for canary in list_canaries(service))
    return next((predictor for predictor in predictors if predictor["name"] == name), None)


def _remove_canary(service: dict[str, Any], name: str) -> None:
    rest = [canary for canary in list_canaries(service) if canary["predictor"]["name"] != name]
    if rest:
        service["spec"]["canary"] = rest
    else:
        service["spec"].pop("canary", None)


def _record(marks: dict[str, str], outcome: Outcome, now: datetime, **facts: str) -> None:
    """Write what happened beside what it did, in the same update."""
    at = now.astimezone(UTC).isoformat(timespec="milliseconds")
    marks[names.TRANSITION] = json.dumps({"outcome": outcome, "at": at, **facts}, sort_keys=True)
