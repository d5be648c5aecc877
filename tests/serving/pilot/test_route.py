from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.kubernetes.admission import Surroundings, check_http_route
from serving.pilot.route import ask_weights, build_route, covers, is_in_effect, read_weights


def test_route_without_canary_sends_everything_to_stable(make):
    route = build_route(make.service(), {}, "example.com")
    assert route["spec"]["hostnames"] == ["churn-default.example.com"]
    assert route["spec"]["rules"][-1] == {
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["ce-id"]}}],
        "backendRefs": [{"name": "churn-predictor", "port": 80, "weight": 100}],
    }


def test_canary_comes_first_and_each_variant_can_be_asked_by_header(make):
    service = make.service()
    name = make.canary(service, percent=20)
    rules = build_route(service, ask_weights(service), "example.com")["spec"]["rules"]
    asked = {rule["matches"][0]["headers"][0]["value"]: rule["backendRefs"][0]["name"] for rule in rules[:-1]}
    assert asked == {name: f"churn-{name}-predictor", "stable": "churn-predictor"}
    assert [(backend["name"], backend["weight"]) for backend in rules[-1]["backendRefs"]] == [
        (f"churn-{name}-predictor", 20),
        ("churn-predictor", 80),
    ]


def test_no_rule_lets_a_clients_event_id_through_and_copies_go_to_known_canaries_only(make):
    service = make.service()
    name = make.canary(service)
    route = build_route(service, {}, "example.com", {name: 25, "gone": 50})
    for rule in route["spec"]["rules"]:
        assert rule["filters"][0]["requestHeaderModifier"] == {"remove": ["ce-id"]}
    mirror = {"backendRef": {"name": f"churn-{name}-predictor", "port": 80}, "percent": 25}
    assert route["spec"]["rules"][-1]["filters"][1:] == [{"type": "RequestMirror", "requestMirror": mirror}]
    assert check_http_route(route, None, Surroundings()) == []


def test_a_route_of_before_without_its_filter_is_a_difference(make):
    wanted = build_route(make.service(), {}, "example.com")["spec"]
    before = [{key: value for key, value in rule.items() if key != "filters"} for rule in wanted["rules"]]
    assert not covers({**wanted, "rules": before}, wanted)


def test_canary_that_is_not_ready_gets_no_traffic(make):
    service = make.service()
    name = make.canary(service, percent=20, ready=False)
    assert ask_weights(service) == {name: 0}


@given(percent=st.integers(0, 100))
def test_weights_read_back_are_the_weights_written_and_add_up(make, percent):
    service = make.service()
    name = make.canary(service)
    route = build_route(service, {name: percent}, "example.com")
    assert read_weights(route, service) == {name: percent}
    assert sum(backend["weight"] for backend in route["spec"]["rules"][-1]["backendRefs"]) == 100


def test_defaults_filled_in_by_an_api_server_are_no_difference(make):
    wanted = build_route(make.service(), {}, "example.com")["spec"]
    actual = {**wanted, "parentRefs": [{**wanted["parentRefs"][0], "kind": "Gateway"}]}
    assert covers(actual, wanted)
    assert not covers({**wanted, "hostnames": ["other"]}, wanted)
    assert not covers({**wanted, "rules": wanted["rules"][1:]}, wanted)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, False),
        ({"parents": []}, False),
        (
            {"parents": [{"conditions": [{"type": "Accepted", "status": "True", "observedGeneration": 3}]}]},
            True,
        ),
        (
            {"parents": [{"conditions": [{"type": "Accepted", "status": "True", "observedGeneration": 2}]}]},
            False,
        ),
        (
            {"parents": [{"conditions": [{"type": "Accepted", "status": "False", "observedGeneration": 3}]}]},
            False,
        ),
    ],
)
def test_route_is_in_effect_when_its_newest_generation_is_accepted(status, expected):
    assert is_in_effect({"metadata": {"generation": 3}, "status": status}) is expected
