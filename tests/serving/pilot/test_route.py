from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.names import UNPROVEN
from clients.split import read_shares
from embedded.kubernetes.admission import Surroundings, check_http_route
from serving.pilot.route import (
    ask_weights,
    covers,
    is_in_effect,
    is_leg,
    list_clusters,
    plan_route,
    read_weights,
)

STRIP = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["ce-id"]}}
ROOT = [{"path": {"type": "PathPrefix", "value": "/"}}]


def read_backends(route, rule=0):
    return [
        (backend["name"], backend.get("weight")) for backend in route["spec"]["rules"][rule]["backendRefs"]
    ]


def travel(service, weights, before=None):
    """Go all the way; returns every route on it."""
    legs = []
    while True:
        leg = plan_route(service, weights, "example.com", before=before)
        legs.append(before := leg.route)
        assert len(legs) < 5
        if leg.last:
            return legs


def test_route_without_canary_sends_everything_to_stable(make):
    route = plan_route(make.service(), {}, "example.com", gateway="edge/front").route
    assert route["metadata"]["name"] == "churn-customers"
    assert route["spec"]["hostnames"] == ["churn-default.example.com"]
    assert route["spec"]["parentRefs"] == [{"name": "front", "namespace": "edge"}]
    assert route["spec"]["rules"][0] == {
        "matches": ROOT,
        "filters": [STRIP],
        "backendRefs": [{"name": "churn-predictor", "port": 80, "filters": [STRIP], "weight": 100}],
    }


def test_a_first_model_that_is_not_proven_is_reached_by_its_header_alone(make):
    service = make.service(annotations={UNPROVEN: make.STABLE})
    (route,) = travel(service, {})
    rules = route["spec"]["rules"]
    assert all(
        match["headers"][0]["name"] == "x-tenure-variant" for rule in rules for match in rule["matches"]
    )
    assert {rule["backendRefs"][0]["port"] for rule in rules} == {80, 8081}
    assert read_shares(route) == {}
    del service["metadata"]["annotations"][UNPROVEN]
    assert read_shares(travel(service, {}, route)[-1]) == {"churn-predictor": 100}


def test_grpc_goes_to_its_own_port_with_the_same_weights(make):
    service = make.service()
    make.canary(service, percent=20)
    rules = plan_route(service, ask_weights(service), "example.com").route["spec"]["rules"]
    http, grpc = rules[0], rules[1]
    kinds = [match["headers"][0]["value"] for match in grpc["matches"]]
    assert kinds == ["application/grpc", "application/grpc+proto"]
    ports = [{backend["port"] for backend in rule["backendRefs"]} for rule in (http, grpc)]
    assert ports == [{80}, {8081}]
    shares = [[(b["name"], b["weight"]) for b in rule["backendRefs"]] for rule in (http, grpc)]
    assert shares[0] == shares[1]


def test_each_variant_can_be_asked_by_header_over_both_protocols(make):
    service = make.service()
    name = make.canary(service, percent=20)
    rules = plan_route(service, ask_weights(service), "example.com").route["spec"]["rules"]
    asked = {
        (rule["matches"][0]["headers"][0]["value"], rule["backendRefs"][0]["port"]): rule["backendRefs"][0][
            "name"
        ]
        for rule in rules[2:]
    }
    canary = f"churn-{name}-predictor"
    assert asked == {
        ("stable", 80): "churn-predictor",
        ("stable", 8081): "churn-predictor",
        (name, 80): canary,
        (name, 8081): canary,
    }


def test_no_rule_lets_a_clients_event_id_through_and_copies_go_to_known_canaries_only(make):
    service = make.service()
    name = make.canary(service)
    route = plan_route(service, {}, "example.com", {name: 25, "gone": 50}).route
    for rule in route["spec"]["rules"]:
        assert rule["filters"][0] == STRIP
        assert all(backend["filters"] == [STRIP] for backend in rule["backendRefs"])
    for rule, port in zip(route["spec"]["rules"][:2], (80, 8081), strict=True):
        mirror = {"backendRef": {"name": f"churn-{name}-predictor", "port": port}, "percent": 25}
        assert rule["filters"][1:] == [{"type": "RequestMirror", "requestMirror": mirror}]
    assert check_http_route(route, None, Surroundings()) == []


def test_a_route_of_before_without_its_filter_is_a_difference(make):
    wanted = plan_route(make.service(), {}, "example.com").route["spec"]
    before = [{key: value for key, value in rule.items() if key != "filters"} for rule in wanted["rules"]]
    assert not covers({**wanted, "rules": before}, wanted)


def test_a_service_keeps_its_place_and_the_stable_one_holds_those_that_are_free(make):
    first = make.service()
    (route,) = travel(first, {})
    both = make.service()
    name = make.canary(both)
    canary = f"churn-{name}-predictor"
    route = travel(both, {name: 20}, route)[-1]
    assert read_backends(route) == [("churn-predictor", 80), (canary, 20)]
    route = travel(both, {name: 100}, route)[-1]
    assert read_backends(route) == [("churn-predictor", 0), (canary, 100)]

    promoted = make.service()
    promoted["spec"]["predictor"]["name"] = name
    (route,) = travel(promoted, {}, route)
    assert read_backends(route) == [(canary, 0), (canary, 100)]
    assert check_http_route(route, None, Surroundings()) == []
    assert travel(promoted, {}, route) == [route]

    newer = make.canary(promoted, make.NEWER)
    route = travel(promoted, {newer: 30}, route)[-1]
    assert read_backends(route) == [(f"churn-{newer}-predictor", 30), (canary, 70)]
    assert [read_backends(route, rule)[0][0] for rule in (2, 4)] == [f"churn-{newer}-predictor", canary]


def test_a_backend_comes_and_goes_by_way_of_next_to_nothing(make):
    service = make.service()
    name = make.canary(service)
    stable, canary = "churn-predictor", f"churn-{name}-predictor"
    dark = travel(service, {name: 0})[-1]
    coming = travel(service, {name: 20}, dark)
    assert [read_backends(route) for route in coming] == [
        [(stable, 999_999), (canary, 1)],
        [(stable, 80), (canary, 20)],
    ]
    assert [is_leg(route) for route in coming] == [True, False]
    over = travel(service, {name: 100}, dark)
    assert [read_backends(route) for route in over] == [
        [(stable, 999_999), (canary, 1)],
        [(stable, 1), (canary, 999_999)],
        [(stable, 0), (canary, 100)],
    ]
    going = travel(service, {name: 0}, coming[-1])
    assert [read_backends(route) for route in going] == [
        [(stable, 999_999), (canary, 1)],
        [(stable, 100), (canary, 0)],
    ]


def test_clusters_are_called_by_their_place(make):
    service = make.service()
    name = make.canary(service)
    canary = f"churn-{name}-predictor"
    clusters = list_clusters(plan_route(service, {}, "example.com", {name: 25}).route)
    prefix = "httproute/default/churn-customers/rule"
    assert {cluster.removeprefix(prefix) for cluster, owner in clusters.items() if owner == canary} == {
        "/0/backend/1",
        "/1/backend/1",
        "/0-mirror-1",
        "/1-mirror-1",
        "/4/backend/0",
        "/5/backend/0",
    }


def test_canary_that_is_not_ready_gets_no_traffic(make):
    service = make.service()
    name = make.canary(service, percent=20, ready=False)
    assert ask_weights(service) == {name: 0}


@given(percents=st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_weights_read_back_are_the_weights_written_and_add_up_all_the_way(make, percents):
    service = make.service()
    name = make.canary(service)
    route = None
    for percent in percents:
        legs = travel(service, {name: percent}, route)
        route = legs[-1]
        assert read_weights(route, service) == {name: percent}
        for leg in legs:
            assert sum(read_shares(leg).values()) == 100
            assert check_http_route(leg, None, Surroundings()) == []


def test_defaults_filled_in_by_an_api_server_are_no_difference(make):
    wanted = plan_route(make.service(), {}, "example.com").route["spec"]
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
