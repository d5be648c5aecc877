"""What the API refuses, and by which field."""

from __future__ import annotations

from typing import Any

import pytest

from embedded.kubernetes.admission import (
    Surroundings,
    check_http_route,
    check_inference_service,
    list_services,
)

from .conftest import RUNTIME, make_canary, make_route, make_service


def check(body: dict[str, Any], old: dict[str, Any] | None = None, *others: dict[str, Any]) -> dict[str, str]:
    body["metadata"]["namespace"] = "default"
    causes = check_inference_service(body, old, Surroundings([RUNTIME], others))
    return {cause.field: cause.message for cause in causes}


def change(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *keys, last = path.split(".")
    place: Any = body
    for key in keys:
        place = place[int(key)] if key.isdigit() else place.setdefault(key, {})
    place[last] = value
    return body


def test_a_good_one_passes():
    assert check(make_service("telco", make_canary(percent=100))) == {}
    full = make_service(
        maxReplicas=1,
        logger={"mode": "request", "url": "http://127.0.0.1:9/events"},
        serviceAccountName="models",
        resources={"limits": {"cpu": "1"}},
    )
    full["spec"]["predictor"]["model"] |= {"env": [{"name": "A", "value": "b"}], "resources": {}}
    assert check(full) == {}


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("spec.explainer", {}, "spec.explainer"),
        ("spec.predictor.autoScaling", {}, "spec.predictor.autoScaling"),
        ("spec.predictor.containers", [], "spec.predictor.containers"),
        ("spec.predictor.model.args", ["-v"], "spec.predictor.model.args"),
        ("spec.predictor.model.name", "kserve-container", "spec.predictor.model.name"),
        ("spec.predictor.model.storageUri", "gs://x/y", "spec.predictor.model.storageUri"),
        ("spec.predictor.model.storageUri", "s3://bucket", "spec.predictor.model.storageUri"),
        ("spec.predictor.model.modelFormat.name", "sklearn", "spec.predictor.model.modelFormat.name"),
        ("spec.predictor.model.protocolVersion", "v3", "spec.predictor.model.protocolVersion"),
        ("spec.predictor.model.runtime", "other", "spec.predictor.model.runtime"),
        ("spec.predictor.minReplicas", 0, "spec.predictor.minReplicas"),
        ("spec.predictor.maxReplicas", 5, "spec.predictor.maxReplicas"),
        ("spec.predictor.logger", {"url": "ftp://x"}, "spec.predictor.logger.url"),
        ("spec.predictor.logger", {"url": "http://x", "mode": "some"}, "spec.predictor.logger.mode"),
        ("spec.canary.0.predictor.maxReplicas", 1, "spec.canary[0].predictor.maxReplicas"),
        ("spec.canary.0.predictor.scaleTarget", 1, "spec.canary[0].predictor.scaleTarget"),
        ("spec.canary.0.predictor.autoScaling", {}, "spec.canary[0].predictor.autoScaling"),
        ("spec.canary.0.predictor.minReplicas", 2, "spec.canary[0].predictor.minReplicas"),
        ("spec.canary.0.predictor.name", "Green", "spec.canary[0].predictor.name"),
        ("spec.canary.0.predictor.model.name", "other", "spec.canary[0].predictor.model.name"),
        ("spec.canary.0.trafficPercent", 101, "spec.canary[0].trafficPercent"),
        ("metadata.annotations", {}, "metadata.annotations[serving.kserve.io/deploymentMode]"),
    ],
)
def test_refuses_by_name(path: str, value: Any, field: str):
    body = change(make_service("telco", make_canary()), path, value)
    assert field in check(body)


def test_unknown_fields_come_with_the_known_ones():
    body = change(make_service(), "spec.predictor.tolerations", [])
    message = check(body)["spec.predictor.tolerations"]
    assert "minReplicas" in message
    assert "storageUri" not in message


def test_canaries_are_unique_and_share_at_most_all():
    assert "spec.canary[1].predictor.name" in check(
        make_service("telco", make_canary("a"), make_canary("a", percent=0))
    )
    assert "spec.canary[0].predictor.name" in check(make_service("telco", make_canary("a"), name="a"))
    assert "spec.canary" in check(make_service("telco", make_canary("a", 60), make_canary("b", 41)))


def test_canary_needs_the_container_name_that_the_cluster_wants():
    body = make_service("telco", make_canary())
    del body["spec"]["canary"][0]["predictor"]["model"]["name"]
    assert "spec.canary[0].predictor.model.name" in check(body)


def test_a_new_predictor_name_needs_another_model():
    old = make_service()
    assert "spec.predictor.name" in check(make_service(name="green"), old)
    promoted = change(make_service(name="green"), "spec.predictor.model.storageUri", "s3://tenure/bundles/v2")
    assert check(promoted, old) == {}


def test_services_have_one_owner_and_a_length():
    body = make_service("a", make_canary("b"))
    assert list_services(body) == ["a-predictor", "a-b-predictor"]
    assert "metadata.name" in check(make_service("a-b"), None, body)
    assert "metadata.name" in check(make_service("a" * 60))


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("spec.rules.0.timeouts", {}, "spec.rules[0].timeouts"),
        ("spec.rules.0.backendRefs.0.port", 8080, "spec.rules[0].backendRefs[0].port"),
        ("spec.rules.0.backendRefs.0.kind", "Backend", "spec.rules[0].backendRefs[0].kind"),
        ("spec.rules.0.backendRefs.0.namespace", "other", "spec.rules[0].backendRefs[0].namespace"),
        ("spec.rules.0.backendRefs", [], "spec.rules[0].backendRefs"),
        ("spec.rules.0.filters", [{"type": "URLRewrite"}], "spec.rules[0].filters[0].type"),
        (
            "spec.rules.0.filters",
            [{"type": "RequestMirror"}],
            "spec.rules[0].filters[0].requestMirror",
        ),
        (
            "spec.rules.0.filters",
            [
                {
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"remove": ["a"]},
                    "requestMirror": {"backendRef": {"name": "a", "port": 80}},
                }
            ],
            "spec.rules[0].filters[0].requestMirror",
        ),
        (
            "spec.rules.0.filters",
            [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["a b"]}}],
            "spec.rules[0].filters[0].requestHeaderModifier.remove[0]",
        ),
        (
            "spec.rules.0.filters",
            [
                {
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]},
                }
            ],
            "spec.rules[0].filters[0].requestHeaderModifier.set",
        ),
        (
            "spec.rules.0.filters",
            [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["a"]}}] * 2,
            "spec.rules[0].filters",
        ),
        ("spec.rules.0.matches", [{"method": "GET"}], "spec.rules[0].matches[0].method"),
        (
            "spec.rules.0.matches",
            [{"headers": [{"name": "x", "value": "y", "type": "RegularExpression"}]}],
            "spec.rules[0].matches[0].headers[0].type",
        ),
        ("spec.hostnames", ["a b"], "spec.hostnames[0]"),
        ("spec.parentRefs", [], "spec.parentRefs"),
    ],
)
def test_routes_refuse_by_name(path: str, value: Any, field: str):
    body = change(make_route(), path, value)
    body["metadata"]["namespace"] = "default"
    assert field in {cause.field for cause in check_http_route(body, None, Surroundings())}


def test_a_good_route_passes():
    body = make_route(telco_predictor=80, telco_green_predictor=20)
    body["spec"]["rules"][0]["filters"] = [
        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "a", "port": 80}, "percent": 10}},
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Ce-Id", "x-other"]}},
    ]
    body["spec"]["rules"][0]["matches"] = [
        {
            "path": {"type": "PathPrefix", "value": "/"},
            "headers": [{"name": "x-tenure-variant", "value": "a"}],
        }
    ]
    body["metadata"]["namespace"] = "default"
    assert check_http_route(body, None, Surroundings()) == []


@pytest.mark.parametrize(
    ("backends", "field"),
    [
        (
            [{"name": "a", "port": 80, "weight": 0}, {"name": "a", "port": 80, "weight": 5}],
            None,
        ),
        (
            [{"name": "a", "port": 80, "weight": 1}, {"name": "a", "port": 80, "weight": 5}],
            "spec.rules[0].backendRefs",
        ),
        ([{"name": "a", "port": 8081}, {"name": "b", "port": 8081}], None),
        ([{"name": "a", "port": 80}, {"name": "b", "port": 8081}], "spec.rules[0].backendRefs"),
        (
            [
                {
                    "name": "a",
                    "port": 80,
                    "filters": [
                        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "b", "port": 80}}}
                    ],
                }
            ],
            "spec.rules[0].backendRefs[0].filters",
        ),
    ],
)
def test_a_backend_may_hold_a_place_and_have_filters_of_its_own(backends: Any, field: str | None):
    body = make_route()
    body["metadata"]["namespace"] = "default"
    body["spec"]["rules"][0]["backendRefs"] = backends
    fields = {cause.field for cause in check_http_route(body, None, Surroundings())}
    assert fields == ({field} if field else set())
