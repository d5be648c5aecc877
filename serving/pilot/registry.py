"""What the pilot writes into the model registry: who serves, and what became of a challenger."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from clients import names

logger = logging.getLogger("tenure.pilot")

RECORDED = ("promoted", "rolled_back", "failed")


class Versions(Protocol):
    """The part of `clients.tracking` that the pilot needs."""

    def version_of_bundle(self, model: str, digest: str) -> str | None:
        """Return the registered version of a bundle, or None."""

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point an alias to a version."""

    def drop_alias(self, model: str, alias: str, version: str) -> None:
        """Remove an alias if it points to that version."""

    def tag_version(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""


class Recorder:
    """Keeps the registry in step with InferenceServices; everything it writes may be written twice."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
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
        version = self._versions.version_of_bundle(model, stable)
        if version is None:
            logger.warning("%s serves bundle %s, which the registry does not know", key, stable)
        elif is_serving(service):
            self._versions.set_alias(model, "champion", version)
            self._versions.drop_alias(model, "challenger", version)
        else:
            return  # a first model that never answered must not become champion; look again
        if state[1] is not None:
            self._record_transition(model, json.loads(state[1]))
        self._seen[key] = state

    def _record_transition(self, model: str, transition: Mapping[str, str]) -> None:
        digest, outcome = transition.get("digest"), transition["outcome"]
        version = self._versions.version_of_bundle(model, digest) if digest else None
        if version is None or outcome not in RECORDED:
            return
        self._versions.tag_version(model, version, {"rollout": outcome, "rollout.at": transition["at"]})
        if outcome != "promoted":
            self._versions.drop_alias(model, "challenger", version)


def is_serving(service: Mapping[str, Any]) -> bool:
    """Whether the stable predictor is ready, by the InferenceService's status."""
    conditions = service.get("status", {}).get("conditions") or []
    return any(
        condition.get("type") == "PredictorReady" and condition.get("status") == "True"
        for condition in conditions
    )
