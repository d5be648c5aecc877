from __future__ import annotations

from typing import Any

import pytest

from components.variant import build_canary, build_service, read_readiness
from tenure.canary import Rollout


def make_service(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "churn"}, "spec": {"predictor": {}}, "status": status}


def make_condition(kind: str, status: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": status}]


FAILED = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": "no such bundle"}}


@pytest.mark.parametrize(
    ("status", "canary", "ready", "blocked"),
    [
        ({"conditions": make_condition("PredictorReady", "True")}, None, True, False),
        ({"conditions": make_condition("PredictorReady", "False"), "modelStatus": FAILED}, None, False, True),
        (
            {"conditions": make_condition("PredictorReady", "False"), "modelStatus": FAILED},
            "b1",
            False,
            False,
        ),
        (
            {
                "conditions": make_condition("CanaryPredictorReady", "False"),
                "canaryStatuses": [{"name": "b1", "ready": False, "modelStatus": FAILED}],
            },
            "b1",
            False,
            True,
        ),
        ({"conditions": make_condition("CanaryPredictorReady", "True")}, "b1", False, False),
        ({}, None, False, False),
    ],
)
def test_readiness_is_that_of_the_variant_asked_about(
    status: dict[str, Any], canary: str | None, ready: bool, blocked: bool
) -> None:
    readiness = read_readiness(make_service(**status), canary)
    assert (readiness.ready, readiness.blocked) == (ready, blocked)


def test_model_servers_have_the_rights_of_their_account():
    rollout = Rollout(service="churn", namespace="default")
    uri = f"s3://tenure/bundles/{'a' * 64}"
    service = build_service(rollout, "telco", uri, account="tenure-predictor")
    canary = build_canary(rollout, uri, 0, account="tenure-predictor")
    assert service["spec"]["predictor"]["serviceAccountName"] == "tenure-predictor"
    assert canary["predictor"]["serviceAccountName"] == "tenure-predictor"
    assert "serviceAccountName" not in build_canary(rollout, uri, 0)["predictor"]
