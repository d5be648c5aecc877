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
from datetime import datetime
from typing import Any, Literal

from clients import names
from serving.pilot.errors import SpecificationError
from serving.pilot.flight import is_paused, read_flight
from serving.pilot.journal import share_out, write_transition
from serving.pilot.route import ask_weights, is_ready, list_canaries, read_weights

REVERT_TIMEOUT_SECONDS = 300.0
"""How long a returning bundle may take to become ready before the attempt is given up."""

_KEPT = ("minReplicas", "logger", "serviceAccountName")
"""What an earlier bundle that comes back takes over from the stable predictor."""

Outcome = Literal["promoted", "rolled_back", "replaced", "reverting", "refused", "failed"]


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
    if names.SUPERSEDE in annotations:
        return _make_room(service, now)
    paused = is_paused(service)
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
    # The logger's address names the version; another one would start new model servers.
    stable.pop("logger", None)
    if "logger" in canary:
        stable["logger"] = canary["logger"]
    then["spec"].pop("canary")
    digest = names.digest_of(new_uri)
    marks = then["metadata"]["annotations"]
    marks.pop(annotation)
    marks[names.PREVIOUS] = old_uri
    reason, evidence = _explain(service, digest, "promote")
    _forget(marks)
    facts = {"digest": digest, "previous": names.digest_of(old_uri), "reason": reason}
    write_transition(marks, outcome, now, share_out(then, {}), evidence, **facts)
    weights = {name: 100 if name == canary["name"] else 0 for name in others}
    return Decision(weights, then, outcome, digest)


def _roll_back(service: Mapping[str, Any], now: datetime) -> Decision:
    asked = service["metadata"]["annotations"][names.ROLLBACK]
    weights = ask_weights(service)
    canary = _find_canary(service, asked)
    if canary is not None:
        digest = names.digest_of(canary["model"]["storageUri"])
        reason, evidence = _explain(service, digest, "rollback")
        return _take_back(service, canary, "rolled_back", reason, evidence, now)
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


def _make_room(service: Mapping[str, Any], now: datetime) -> Decision:
    """Take a canary away for a newer challenger: as always its requests first, then its entry."""
    asked = service["metadata"]["annotations"][names.SUPERSEDE]
    canary = _find_canary(service, asked)
    if canary is None:
        reason = f"there is no canary {asked}"
        return _refuse(service, ask_weights(service), names.SUPERSEDE, reason, now)
    _, evidence = _explain(service, names.digest_of(canary["model"]["storageUri"]), "rollback")
    return _take_back(service, canary, "replaced", "a newer challenger takes its place", evidence, now)


def _take_back(
    service: Mapping[str, Any],
    canary: Mapping[str, Any],
    outcome: Literal["rolled_back", "replaced"],
    reason: str,
    evidence: Mapping[str, Any],
    now: datetime,
) -> Decision:
    """Let a canary go: its share to the stable version first, then the entry."""
    then = copy.deepcopy(dict(service))
    _remove_canary(then, canary["name"])
    marks = then["metadata"]["annotations"]
    for annotation in (names.ROLLBACK, names.SUPERSEDE, names.PROMOTE, names.REVERTING):
        marks.pop(annotation, None)
    digest = names.digest_of(canary["model"]["storageUri"])
    _forget(marks)
    weights = ask_weights(service) | {canary["name"]: 0}
    write_transition(marks, outcome, now, _share_out(then, weights), evidence, digest=digest, reason=reason)
    return Decision(weights, then, outcome, digest)


def _return_to_previous(service: Mapping[str, Any], now: datetime) -> Decision:
    """Begin to bring the earlier bundle back, as a canary without customers."""
    then = copy.deepcopy(dict(service))
    marks = then["metadata"]["annotations"]
    marks.pop(names.ROLLBACK)
    uri = marks[names.PREVIOUS]
    digest = names.digest_of(uri)
    stable = then["spec"]["predictor"]
    model = {**stable["model"], "name": "kserve-container", "storageUri": uri}
    entry = {key: value for key, value in stable.items() if key in _KEPT}
    entry |= {"name": names.canary_name(digest), "model": model}
    if "logger" in entry:
        sink = str(entry["logger"]["url"]).rsplit("/", 1)[0]
        entry["logger"] = {**entry["logger"], "url": f"{sink}/{digest[:12]}"}
    then["spec"]["canary"] = [{"predictor": entry, "trafficPercent": 0}]
    marks[names.REVERTING] = json.dumps({"canary": entry["name"], "since": now.isoformat()}, sort_keys=True)
    reason = "the version before is asked for"
    write_transition(marks, "reverting", now, _share_out(then, {}), digest=digest, reason=reason)
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
    reason = f"the earlier bundle was not ready after {waited:.0f} s"
    write_transition(marks, "failed", now, _share_out(then, weights), digest=digest, reason=reason)
    return Decision(weights, then, "failed", digest)


def _refuse(
    service: Mapping[str, Any], weights: dict[str, int], annotation: str, reason: str, now: datetime
) -> Decision:
    then = copy.deepcopy(dict(service))
    marks = then["metadata"]["annotations"]
    marks.pop(annotation)
    facts = {"asked": annotation.rpartition("/")[2], "reason": reason}
    write_transition(marks, "refused", now, _share_out(then, weights), None, **facts)
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


def _share_out(then: Mapping[str, Any], weights: Mapping[str, int]) -> dict[str, int]:
    """Return percent by version for weights, of which some may be of canaries that are gone by then."""
    left = {entry["predictor"]["name"] for entry in list_canaries(then)}
    return share_out(then, {name: weight for name, weight in weights.items() if name in left})


def _explain(service: Mapping[str, Any], digest: str, action: str) -> tuple[str, dict[str, Any]]:
    """Return why a canary is promoted or taken back, and what was known of it by then."""
    try:
        flight = read_flight(service, digest)
    except SpecificationError:
        flight = None
    if flight is None:
        return "a person asked for it", {}
    return flight.reason if flight.asked == action else "a person asked for it", flight.evidence


def _forget(marks: dict[str, str]) -> None:
    """Take away what was known of a canary that is none any more."""
    for annotation in (names.ROLLOUT, names.PROVEN):
        marks.pop(annotation, None)
