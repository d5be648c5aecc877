"""HTTPRoutes and Services as Envoy documents, without Envoy."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from embedded.gateway import Endpoint, Routing, Service
from embedded.gateway.clusters import build_clusters, list_names
from embedded.gateway.hosts import build_route_configuration


def make_services(*names: str) -> dict[tuple[str, str], Service]:
    return {
        ("default", name): Service(
            "default", name, "telco", name == "stable", (Endpoint(1000 + n, 2000 + n),)
        )
        for n, name in enumerate(names)
    }


def make_route(*rules: dict[str, Any], name: str = "telco", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": [f"{name}.example.com"],
            "rules": list(rules),
            **spec,
        },
    }


def make_rule(**weights: int) -> dict[str, Any]:
    return {"backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in weights.items()]}


def find_host(configuration: dict[str, Any], domain: str) -> dict[str, Any]:
    (host,) = [host for host in configuration["virtual_hosts"] if domain in host["domains"]]
    found: dict[str, Any] = host
    return found


def test_only_weighted_canaries_have_a_fallback():
    routing = Routing(make_services("stable", "a", "b"), [make_route(make_rule(a=5, b=5, stable=90))])
    names = list_names(build_clusters(routing))
    assert {"default/a+stable/http", "default/b+stable/http", "default/a+stable/grpc"} <= names
    assert not any(name.startswith("default/stable+") for name in names)
    single = Routing(make_services("stable", "a"), [make_route(make_rule(a=1))])
    assert list_names(build_clusters(single)) == {
        f"default/{name}/{protocol}" for name in ("stable", "a") for protocol in ("http", "grpc")
    }


def test_without_a_known_stable_variant_the_last_backend_takes_over():
    routing = Routing(make_services("a", "b"), [make_route(make_rule(a=5, b=95))])
    assert "default/a+b/http" in list_names(build_clusters(routing))


def test_only_processes_with_a_stand_in_are_ejected():
    routing = Routing(make_services("stable", "a"), [make_route(make_rule(a=5, stable=95))])
    clusters = {cluster["name"]: cluster for cluster in build_clusters(routing)}
    assert "outlier_detection" in clusters["default/a/http"]
    assert "outlier_detection" not in clusters["default/stable/http"]


def test_grpc_clusters_are_checked_over_http():
    routing = Routing(make_services("stable"), [])
    clusters = {cluster["name"]: cluster for cluster in build_clusters(routing)}
    endpoint = clusters["default/stable/grpc"]["load_assignment"]["endpoints"][0]["lb_endpoints"][0][
        "endpoint"
    ]
    assert endpoint["address"]["socket_address"]["port_value"] == 2000
    assert endpoint["health_check_config"]["port_value"] == 1000


def test_routes_of_another_gateway_are_left_alone():
    other = make_route(make_rule(stable=1), parentRefs=[{"name": "another", "namespace": "kserve"}])
    configuration = build_route_configuration(Routing(make_services("stable"), [other]))
    assert [host["domains"] for host in configuration["virtual_hosts"]] == [["*"]]


def test_two_routes_share_a_hostname_and_the_more_specific_match_is_first():
    general = make_route(make_rule(stable=1), name="a", hostnames=["x.example.com"])
    path = {"matches": [{"path": {"type": "PathPrefix", "value": "/green"}}], **make_rule(a=1)}
    header = {"matches": [{"headers": [{"name": "X-Variant", "value": "a"}]}], **make_rule(a=1)}
    special = make_route(header, path, name="b", hostnames=["x.example.com"])
    configuration = build_route_configuration(Routing(make_services("stable", "a"), [general, special]))
    http = [
        route["match"]
        for route in find_host(configuration, "x.example.com")["routes"]
        if "grpc" not in route["match"]
    ]
    assert http[0] == {"path_separated_prefix": "/green"}
    assert http[1]["headers"] == [{"name": "x-variant", "string_match": {"exact": "a"}}]
    assert http[2] == {"prefix": "/"}


def test_weights_of_zero_alone_answer_503():
    configuration = build_route_configuration(
        Routing(make_services("stable", "a"), [make_route(make_rule(a=0, stable=0))])
    )
    routes = find_host(configuration, "telco.example.com")["routes"]
    assert routes[0]["direct_response"]["status"] == 503


def test_a_long_explanation_is_shortened():
    routes = [make_route(make_rule(stable=1), name=f"route-number-{number}") for number in range(100)]
    configuration = build_route_configuration(Routing(make_services("stable"), routes))
    rest = find_host(configuration, "*")["routes"][-1]["direct_response"]
    assert rest["status"] == 404
    assert len(rest["body"]["inline_string"]) < 4096


NAMES = st.sampled_from(["stable", "a", "b", "c", "unknown"])
RULES = st.dictionaries(NAMES, st.integers(0, 100), min_size=1, max_size=4)


@given(st.lists(st.lists(RULES, min_size=1, max_size=3), max_size=3), st.sets(NAMES))
def test_no_route_names_a_cluster_that_is_not_there(rules: list[list[dict[str, int]]], known: set[str]):
    routes = [
        make_route(*(make_rule(**weights) for weights in of_route), name=f"r{number}")
        for number, of_route in enumerate(rules)
    ]
    routing = Routing(make_services(*sorted(known)), routes)
    names = list_names(build_clusters(routing))
    for cluster in build_clusters(routing):
        if "cluster_type" in cluster:
            assert set(cluster["cluster_type"]["typed_config"]["clusters"]) <= names
    domains = []
    for host in build_route_configuration(routing)["virtual_hosts"]:
        domains += host["domains"]
        for route in host["routes"]:
            action = route.get("route", {})
            used = [entry["name"] for entry in action.get("weighted_clusters", {}).get("clusters", [])]
            assert {*used, *([action["cluster"]] if "cluster" in action else [])} <= names
    assert len(domains) == len(set(domains)), "Envoy refuses a domain that is listed twice"


def test_a_rule_to_the_port_of_grpc_is_for_grpc_alone():
    grpc = {
        "matches": [{"headers": [{"name": "content-type", "value": "application/grpc"}]}],
        "backendRefs": [
            {"name": "stable", "port": 8081, "weight": 60},
            {"name": "a", "port": 8081, "weight": 40},
        ],
    }
    routing = Routing(make_services("stable", "a"), [make_route(make_rule(stable=100, a=0), grpc)])
    host = find_host(build_route_configuration(routing), "telco.example.com")
    shares = {
        ("grpc" in route["match"], "headers" in route["match"]): [
            (cluster["name"], cluster["weight"])
            for cluster in route["route"]["weighted_clusters"]["clusters"]
        ]
        for route in host["routes"]
        if "route" in route
    }
    assert shares == {
        (True, True): [("default/stable/grpc", 60), ("default/a+stable/grpc", 40)],
        (True, False): [("default/stable/grpc", 100), ("default/a+stable/grpc", 0)],
        (False, False): [("default/stable/http", 100), ("default/a+stable/http", 0)],
    }


def test_a_service_that_holds_a_place_is_one_backend_with_its_weight():
    strip = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Ce-Id"]}}]
    rule = {
        "backendRefs": [
            {"name": "stable", "port": 80, "weight": 0},
            {"name": "stable", "port": 80, "weight": 100, "filters": strip},
        ]
    }
    routing = Routing(make_services("stable"), [make_route(rule)])
    (read,) = routing.read_routes()[0].rules
    assert [(one.service, one.weight, one.fallback, one.removed) for one in read.backends] == [
        ("stable", 100, None, ("ce-id",))
    ]
    host = find_host(build_route_configuration(routing), "telco.example.com")
    assert host["routes"][0]["request_headers_to_remove"] == ["ce-id"]


def test_headers_are_taken_from_the_requests_of_one_backend_only():
    rule = make_rule(a=50, stable=50)
    rule["backendRefs"][0]["filters"] = [
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-secret"]}}
    ]
    routing = Routing(make_services("a", "stable"), [make_route(rule)])
    host = find_host(build_route_configuration(routing), "telco.example.com")
    clusters = host["routes"][0]["route"]["weighted_clusters"]["clusters"]
    assert [cluster.get("request_headers_to_remove") for cluster in clusters] == [["x-secret"], None]
    assert "request_headers_to_remove" not in host["routes"][0]
