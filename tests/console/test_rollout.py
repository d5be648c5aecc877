from __future__ import annotations

import json

from console.rollout import describe_service

STABLE, CANARY = "a" * 64, "b" * 64


def make_service():
    return {
        "metadata": {
            "name": "churn",
            "namespace": "default",
            "annotations": {
                "tenure.dev/pause": "true",
                "tenure.dev/promote": "bbbbbbbbbbb",
                "tenure.dev/previous": f"s3://tenure/bundles/{CANARY}",
                "tenure.dev/last-transition": json.dumps({"outcome": "promoted", "at": "now"}),
            },
        },
        "spec": {
            "predictor": {"model": {"storageUri": f"s3://tenure/bundles/{STABLE}"}},
            "canary": [
                {
                    "trafficPercent": 20,
                    "predictor": {
                        "name": "bbbbbbbbbbb",
                        "model": {"storageUri": f"s3://tenure/bundles/{CANARY}"},
                    },
                }
            ],
        },
        "status": {
            "conditions": [{"type": "PredictorReady", "status": "True"}],
            "canaryStatuses": [{"name": "bbbbbbbbbbb", "ready": True}],
        },
    }


def make_route():
    backends = [
        {"name": "churn-bbbbbbbbbbb-predictor", "weight": 5},
        {"name": "churn-predictor", "weight": 95},
    ]
    return {"spec": {"rules": [{"backendRefs": backends}]}}


def test_state_tells_the_share_in_effect_beside_the_share_asked_for():
    state = describe_service(make_service(), make_route())
    assert [(one.role, one.version, one.weight, one.asked, one.ready) for one in state.variants] == [
        ("stable", "a" * 12, 95, 80, True),
        ("canary", "b" * 12, 5, 20, True),
    ]
    assert state.paused
    assert state.pending == ["promote"]
    assert state.previous == "b" * 12
    assert state.transition == {"outcome": "promoted", "at": "now"}


def test_without_a_route_nothing_gets_traffic():
    state = describe_service(make_service(), None)
    assert [variant.weight for variant in state.variants] == [0, 0]
