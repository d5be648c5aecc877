"""What the pilot writes into the model registry: who serves, and what became of a challenger."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from clients import names
from clients.tracking import CHALLENGER, CHAMPION, Tracking, Version

logger = logging.getLogger("tenure.pilot")

RECORDED = ("promoted", "rolled_back", "failed")


class Recorder:
    """Keeps the registry in step with InferenceServices; everything it writes may be written twice."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._seen: dict[str, tuple[str, str | None]] = {}

    def record(self, service: Mapping[str, Any]) -> None:
        """Write who serves and the last transition, if either is new since this process last wrote it.

        Raises:
            clients.errors.ClientError: When the registry does not answer; the next call tries again.
        """
        metadata = service["metadata"]
        annotations = metadata.get("annotations") or {}
        stable = names.digest_of(service["spec"]["predictor"]["model"]["storageUri"])
        state = (stable, annotations.get(names.TRANSITION))
        key = f"{metadata['namespace']}/{metadata['name']}"
        if self._seen.get(key) == state:
            return
        model = metadata["labels"][names.PROJECT_LABEL]
        version = self._tracking.find_version(model, stable)
        if version is None:
            logger.warning("%s serves bundle %s, which the registry does not know", key, stable)
        elif is_serving(service):
            self._tracking.set_alias(model, CHAMPION, version.version)
            self._drop_challenger(version)
        else:
            return  # a first model that never answered must not become champion; look again
        if state[1] is not None:
            self._record_transition(model, json.loads(state[1]))
        self._seen[key] = state

    def _record_transition(self, model: str, transition: Mapping[str, str]) -> None:
        outcome = transition["outcome"]
        if outcome not in RECORDED:
            return
        for digest, tag in _list_tags(transition):
            version = self._tracking.find_version(model, digest)
            if version is None:
                continue
            tags = {"rollout": tag, "rollout.at": transition["at"]}
            self._tracking.tag_version(model, version.version, tags)
            if outcome != "promoted":
                self._drop_challenger(version)

    def _drop_challenger(self, version: Version) -> None:
        challenger = self._tracking.find_alias(version.name, CHALLENGER)
        if challenger is not None and challenger.version == version.version:
            self._tracking.delete_alias(version.name, CHALLENGER)


def _list_tags(transition: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the bundles that a transition is about, each with what became of it."""
    outcome, digest, previous = (transition.get(key) for key in ("outcome", "digest", "previous"))
    if outcome == "rolled_back" and digest and previous:  # the stable one had to go, and an earlier came back
        return [(previous, "rolled_back"), (digest, "restored")]
    return [(digest, str(outcome))] if digest else []


def is_serving(service: Mapping[str, Any]) -> bool:
    """Whether the stable predictor is ready, by the InferenceService's status."""
    conditions = service.get("status", {}).get("conditions") or []
    return any(
        condition.get("type") == "PredictorReady" and condition.get("status") == "True"
        for condition in conditions
    )
