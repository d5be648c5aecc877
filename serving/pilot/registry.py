"""Where transitions are recorded: the registry, the ledger, the service's events; and people are told."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from clients import names
from clients.detector import Detector
from clients.errors import ClientError, RefusedError
from clients.ledger.instant import to_us
from clients.tracking import CHALLENGER, CHAMPION, Tracking, Version
from serving.pilot.journal import Transition, identify, read_unrecorded
from serving.pilot.navigator import Alarm
from serving.pilot.route import is_proven

logger = logging.getLogger("tenure.pilot")

RECORDED = ("promoted", "rolled_back", "replaced", "failed")
"""Outcomes that end a canary: the registry's tag `rollout` of its version."""

ALARMING = ("rolled_back", "failed")
"""Outcomes that people are told of."""

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Rests before a recording that failed is tried again."""


class Announcer(Protocol):
    """The part of `clients.announcement.Announcer` that the recorder needs."""

    def announce(
        self,
        about: Mapping[str, Any],
        identity: str,
        reason: str,
        message: str,
        at: datetime,
        kind: Any = "Normal",
    ) -> None:
        """Write an event about a resource."""


class Sink:
    """The detector, which alone writes the ledger.

    Args:
        detector: Its client.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def post(self, identity: str, service: str, transition: Transition) -> None:
        """Write a transition into the ledger; the same twice is one row.

        Raises:
            UnreachableError: The detector does not answer, or cannot write now.
            RefusedError: It does not take the transition.
        """
        told = ("at", "outcome", "shares", "reason")
        row = {
            "id": identity,
            "service": service,
            "at": to_us(datetime.fromisoformat(transition["at"])),
            "outcome": transition["outcome"],
            "shares": transition["shares"],
            "reason": transition.get("reason", ""),
            "evidence": {key: value for key, value in transition.items() if key not in told},
        }
        self._detector.post_transitions([row])


class Recorder:
    """Keeps everybody in step with InferenceServices; all it writes may be written twice.

    Args:
        tracking: The model registry.
        sink: The ledger's writer; None without one.
        announcer: Writes the service's events; None writes none.
        alarm: Tells people; None tells nobody.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        tracking: Tracking,
        sink: Sink | None = None,
        announcer: Announcer | None = None,
        alarm: Alarm | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracking = tracking
        self._sink = sink
        self._announcer = announcer
        self._alarm = alarm
        self._clock = clock
        self._seen: dict[str, str] = {}
        self._done: dict[str, set[str]] = {}
        self._rests: dict[str, tuple[int, float]] = {}

    def record(self, service: Mapping[str, Any]) -> set[str]:
        """Record who serves, if that is new, and every transition that waits.

        Returns:
            The transitions that are recorded everywhere, by their ids: they may be taken off the list.

        Raises:
            clients.errors.ClientError: Somebody does not answer; a later call tries again.
        """
        metadata = service["metadata"]
        key = f"{metadata['namespace']}/{metadata['name']}"
        failures, until = self._rests.get(key, (0, 0.0))
        if failures and self._clock() < until:
            return set()
        recorded: set[str] = set()
        try:
            self._record_champion(service, key)
            for transition in read_unrecorded(service):
                identity = identify(key, transition)
                self._record_transition(service, identity, transition)
                recorded.add(identity)
        except ClientError:
            rest = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
            self._rests[key] = (failures + 1, self._clock() + rest)
            if not recorded:
                raise
            return recorded
        self._rests.pop(key, None)
        self._done = {identity: done for identity, done in self._done.items() if identity in recorded}
        return recorded

    def _record_champion(self, service: Mapping[str, Any], key: str) -> None:
        stable = names.digest_of(service["spec"]["predictor"]["model"]["storageUri"])
        if self._seen.get(key) == stable:
            return
        model = service["metadata"]["labels"][names.PROJECT_LABEL]
        version = self._tracking.find_version(model, stable)
        if version is None:
            logger.warning("%s serves bundle %s, which the registry does not know", key, stable)
        elif is_serving(service):
            self._tracking.set_alias(model, CHAMPION, version.version)
            self._drop_challenger(version)
        else:
            return  # a first model that was never proven must not become champion; look again
        self._seen[key] = stable

    def _record_transition(self, service: Mapping[str, Any], identity: str, transition: Transition) -> None:
        """Record a transition wherever this process has not yet done so."""
        name = service["metadata"]["name"]
        at = datetime.fromisoformat(transition["at"])
        message = describe_transition(transition)
        alarming = transition["outcome"] in ALARMING
        steps: dict[str, Callable[[], object]] = {}
        if alarming and self._alarm is not None:
            alarm = self._alarm
            title = f"{name}: {transition['outcome'].replace('_', ' ')}"
            steps["alarm"] = lambda: alarm.notify("rollback", title, message)
        steps["registry"] = lambda: self._tag(service["metadata"]["labels"][names.PROJECT_LABEL], transition)
        if self._announcer is not None:
            announcer = self._announcer
            reason = "".join(word.capitalize() for word in transition["outcome"].split("_"))
            kind = "Warning" if alarming or transition["outcome"] == "stopped" else "Normal"

            def announce() -> None:
                try:
                    announcer.announce(service, identity, reason, message, at, kind)
                except RefusedError as error:  # a nicety that may be forbidden must not hold up the rollout
                    logger.warning("%s: %s", name, error)

            steps["event"] = announce
        if self._sink is not None:
            sink = self._sink
            steps["ledger"] = lambda: sink.post(identity, name, transition)
        done = self._done.setdefault(identity, set())
        problems: list[ClientError] = []
        for step, carry_out in steps.items():
            if step in done:
                continue
            try:
                carry_out()
            except ClientError as error:
                problems.append(error)
            else:
                done.add(step)
        if problems:
            raise problems[0]

    def _tag(self, model: str, transition: Transition) -> None:
        for digest, tags in _list_tags(transition):
            version = self._tracking.find_version(model, digest)
            if version is None:
                continue
            self._tracking.tag_version(model, version.version, tags)
            if transition["outcome"] in ("rolled_back", "failed"):
                self._drop_challenger(version)

    def _drop_challenger(self, version: Version) -> None:
        challenger = self._tracking.find_alias(version.name, CHALLENGER)
        if challenger is not None and challenger.version == version.version:
            self._tracking.delete_alias(version.name, CHALLENGER)


def describe_transition(transition: Transition) -> str:
    """Return a transition in a sentence."""
    shares = ", ".join(f"{version} {share} %" for version, share in transition["shares"].items())
    words = [transition["outcome"].replace("_", " ")]
    if "digest" in transition:
        words.append(transition["digest"][:12])
    text = " ".join(words)
    if transition.get("reason"):
        text += f": {transition['reason']}"
    return f"{text}. From then on: {shares}"


def _list_tags(transition: Transition) -> list[tuple[str, dict[str, str]]]:
    """Return the bundles that a transition is about, each with the tags of its version."""
    outcome, digest, previous = (transition.get(key) for key in ("outcome", "digest", "previous"))
    if not digest:
        return []
    facts = {"rollout.at": transition["at"], "rollout.reason": transition.get("reason", "")}
    if transition.get("evidence"):
        facts["rollout.evidence"] = json.dumps(transition["evidence"], sort_keys=True)
    if outcome == "rolled_back" and previous:  # the stable one had to go, and an earlier came back
        return [(previous, {"rollout": "rolled_back", **facts}), (digest, {"rollout": "restored", **facts})]
    if outcome in RECORDED or outcome == "stopped":
        return [(digest, {"rollout": str(outcome), **facts})]
    if outcome == "advanced":
        return [(digest, {"rollout": "canary", "rollout.step": str(transition["step"]), **facts})]
    return []


def is_serving(service: Mapping[str, Any]) -> bool:
    """Whether the stable predictor is ready, by the InferenceService's status, and customers may meet it."""
    conditions = service.get("status", {}).get("conditions") or []
    ready = any(
        condition.get("type") == "PredictorReady" and condition.get("status") == "True"
        for condition in conditions
    )
    return ready and is_proven(service)
