from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from console.cockpit import WIDTH, build_view, draw_interval
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


SIGNAL = {
    "name": "errors",
    "estimate": 0.01,
    "low": -0.02,
    "high": 0.05,
    "tolerance": 0.03,
    "harm": False,
    "safe": False,
    "n": 120,
    "text": "",
}


def make_flight(service, **changes):
    judgement = {"action": "wait", "text": "waits for 280 more answers", "signals": [{**SIGNAL, **changes}]}
    progress = {"step": 0, "since": "2026-01-01T00:00:00Z"}
    service["metadata"]["annotations"] |= {
        "tenure.dev/rollout": json.dumps({"progress": progress, "judgement": judgement, "mirror": 0}),
        "tenure.dev/unrecorded": json.dumps([{}, {}]),
    }
    return service


def test_state_tells_what_the_pilot_knows_of_the_canary():
    state = describe_service(make_flight(make_service()), make_route())
    assert state.flight is not None
    assert (state.flight.step, state.flight.action) == (0, "wait")
    assert state.unrecorded == 2
    assert json.loads(state.model_dump_json())["flight"]["signals"][0]["name"] == "errors"


@pytest.mark.parametrize(
    ("changes", "verdict"), [({}, "not yet sure"), ({"safe": True}, "safe"), ({"harm": True}, "harm")]
)
def test_view_shows_step_signals_and_what_it_waits_for(changes, verdict):
    state = describe_service(make_flight(make_service(), **changes), make_route())
    console = Console(width=200)
    with console.capture() as capture:
        console.print(build_view(state, (20, 50)))
    text = capture.get()
    for word in ("1 of 2: 20 %, then 50 %", "waits for 280 more answers", "-0.0200 .. +0.0500", verdict):
        assert word in text


def test_view_without_a_canary_shows_no_signals():
    service = make_service()
    del service["spec"]["canary"]
    state = describe_service(make_flight(service), None)
    assert state.flight is None


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_interval_is_as_wide_as_its_column(low, width, tolerance):
    drawn = draw_interval(low, low + width, tolerance)
    assert len(drawn) == WIDTH
    assert drawn[WIDTH // 2] == "|"
