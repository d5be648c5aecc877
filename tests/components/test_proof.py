from __future__ import annotations

from typing import Any

import pytest

from clients.errors import ClientError, RefusedError, UnreachableError
from components import proof
from components.proof import Deadline, prove
from tenure.project import Rollout

DIGEST = "a" * 64


class Cluster:
    """InferenceServices of which one is read, in the given states one after the other."""

    namespace = "default"

    def __init__(self, *states: str) -> None:
        self.states = list(states)

    def get(self, name: str) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {
            "metadata": {"name": name},
            "spec": {"predictor": {"model": {"storageUri": f"s3://tenure/bundles/{DIGEST}"}}},
            "status": {
                "conditions": [{"type": "PredictorReady", "status": "False", "message": state}],
                "modelStatus": {"transitionStatus": state},
            },
        }


class Bundle:
    digest = DIGEST


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "_INTERVAL", 0.001)
    monkeypatch.setattr(proof, "BLOCKED_SECONDS", 0.05)


def ask(*states: str, seconds: float) -> None:
    cluster: Any = Cluster(*states)
    bundle: Any = Bundle()
    settings: Any = None
    prove(cluster, settings, Rollout(service="churn"), bundle, "stable", Deadline(seconds))


def test_a_model_that_cannot_be_loaded_is_not_waited_for() -> None:
    with pytest.raises(RefusedError, match="cannot be loaded: PredictorReady is False, BlockedByFailedLoad"):
        ask("BlockedByFailedLoad", seconds=60)


def test_a_model_that_is_still_loading_is_waited_for() -> None:
    with pytest.raises(UnreachableError, match="last seen: PredictorReady is False, InProgress"):
        ask("InProgress", seconds=0.2)


def test_a_failure_that_passes_starts_the_patience_anew() -> None:
    with pytest.raises(UnreachableError, match="InProgress"):
        ask("BlockedByFailedLoad", "InProgress", "BlockedByFailedLoad", "InProgress", seconds=0.2)


def test_deadline_tells_what_was_missing_last() -> None:
    with pytest.raises(ClientError, match="still cold"):
        Deadline(0.01).wait("the oven", lambda: "still cold")
