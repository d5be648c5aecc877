"""Monitors, alerts and dashboards: they fit the workloads, they parse, and alerts fire when they should."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monitoring_queries as queries
import promql_parser as promql
import pytest

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "manifests" / "monitoring"
ALERTS = Path(__file__).with_name("alerts.yaml")


DASHBOARDS = queries.read_dashboards()
QUERIES = list(queries.list_queries())

Render = Callable[[Path], tuple[dict[str, Any], ...]]


@pytest.fixture
def documents(render_directory: Render) -> tuple[dict[str, Any], ...]:
    return render_directory(MONITORING)


@pytest.fixture
def monitors(documents: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    kinds = ("PodMonitor", "ServiceMonitor")
    return {one["metadata"]["name"]: one["spec"] for one in documents if one["kind"] in kinds}


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector selects these labels."""
    for name, value in selector.get("matchLabels", {}).items():
        if labels.get(name) != value:
            return False
    for rule in selector.get("matchExpressions", ()):
        present = rule["key"] in labels
        if rule["operator"] == "Exists" and not present:
            return False
        if rule["operator"] == "In" and labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


# Monitors


def test_monitors_live_beside_what_they_watch(documents: tuple[dict[str, Any], ...]) -> None:
    kinds = sorted(one["kind"] for one in documents)
    assert kinds == ["ConfigMap", "PodMonitor", "PodMonitor", "PrometheusRule", "ServiceMonitor"]
    assert {one["metadata"]["namespace"] for one in documents} == {"tenure"}


def test_services_of_ours_are_scraped_by_the_name_that_queries_use(monitors: Any, rendered: Any) -> None:
    spec = monitors["tenure-services"]
    (endpoint,) = spec["podMetricsEndpoints"]
    jobs = set()
    for name, template in rendered.pods():
        labels = template["metadata"]["labels"]
        if matches(spec["selector"], labels):
            ports = {port["name"]: port for one in template["spec"]["containers"] for port in one["ports"]}
            assert endpoint["port"] in ports, name
            jobs.add(labels[spec["jobLabel"]])
    assert jobs == {"tenure-detector", "tenure-pilot", "tenure-console"}


def test_model_servers_are_scraped_past_the_agent(monitors: Any, rendered: Any) -> None:
    spec = monitors["tenure-predictor"]
    (endpoint,) = spec["podMetricsEndpoints"]
    (runtime,) = rendered.list("ServingRuntime")
    ports = {port["name"]: port for one in runtime["spec"]["containers"] for port in one["ports"]}
    assert ports[endpoint["port"]]["containerPort"] == 8080
    # What KServe 0.20 puts on a pod of an InferenceService of ours, and on its transformer's.
    labels = {"serving.kserve.io/inferenceservice": "s", "tenure.dev/project": "telco"}
    assert matches(spec["selector"], {**labels, "component": "predictor"})
    assert not matches(spec["selector"], {**labels, "component": "transformer"})
    targets = {one["targetLabel"]: one for one in endpoint["relabelings"]}
    assert targets["job"]["replacement"] == "tenure-predictor"
    assert targets["service"]["sourceLabels"] == [
        "__meta_kubernetes_pod_label_serving_kserve_io_inferenceservice"
    ]


def test_the_gateway_is_scraped_once_per_proxy(monitors: Any, kind: Any) -> None:
    spec = monitors["tenure-gateway"]
    (endpoint,) = spec["endpoints"]
    (namespace,) = spec["namespaceSelector"]["matchNames"]
    found = [
        port
        for service in kind.list("Service", namespace)
        if matches(spec["selector"], service["metadata"]["labels"])
        for port in service["spec"]["ports"]
        if port["name"] == endpoint["port"]
    ]
    assert [port["targetPort"] for port in found] == [19001]


def test_what_is_asked_of_the_gateway_is_kept(monitors: Any) -> None:
    (endpoint,) = monitors["tenure-gateway"]["endpoints"]
    (rule,) = endpoint["metricRelabelings"]
    assert (rule["action"], rule["sourceLabels"]) == ("keep", ["__name__"])
    names = {name for query in QUERIES for name in re.findall(r"envoy_[a-z_]+(?=\{)", query.text)}
    assert names
    assert not [name for name in names if not re.fullmatch(rule["regex"], name)]


def test_prometheus_may_reach_every_target(rendered: Any) -> None:
    """Default-deny holds for Prometheus too; in the docs it runs in the namespace `monitoring`."""
    names = {"tenure-detector", "tenure-pilot", "tenure-console", "tenure-predictor"}
    reached = set()
    for policy in rendered.list("NetworkPolicy", "tenure"):
        for rule in policy["spec"].get("ingress", ()):
            spaces = [one.get("namespaceSelector", {}).get("matchLabels", {}) for one in rule.get("from", ())]
            if {"kubernetes.io/metadata.name": "monitoring"} in spaces:
                assert [port["port"] for port in rule["ports"]] == [8080]
                reached.add(policy["metadata"]["name"])
    assert reached == names


# Queries


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_query_parses(query: Any) -> None:
    text = query.fill()
    # What is left of `$` are the groups of label_replace.
    assert not re.findall(r"\$(?![0-9])", text), text
    promql.parse(text)


KNOWN = {"hits_total": frozenset({"code"}), "time_bucket": frozenset({"le"})}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("sum by (code) (rate(hits_total[5m]))", {"code"}),
        ("sum(rate(hits_total[5m]))", set()),
        ("histogram_quantile(0.9, sum by (pod, le) (rate(time_bucket[5m])))", {"pod", "le"}),
        ('sum by (kind) (label_replace(hits_total, "kind", "$1", "code", "(.)xx"))', {"kind"}),
        (
            "sum by (code, pod) (hits_total) / on (pod) group_left () sum by (pod) (hits_total)",
            {"code", "pod"},
        ),
        ('absent(up{job="j"} == 1)', set()),
    ],
)
def test_labels_of_an_answer_are_found(text: str, labels: set[str]) -> None:
    assert queries.Labels(KNOWN).find(text) == labels


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("misses_total", KeyError),
        ('hits_total{kind="2"}', ValueError),
        ("sum by (kind) (hits_total)", ValueError),
        ("sum by (le) (rate(time_bucket[5m])) > on (code) hits_total", ValueError),
        ('label_replace(hits_total, "kind", "$1", "colour", "(.)xx")', ValueError),
        ("sum(rate(hits_total[5m]) / rate(misses_total[5m]))", KeyError),
    ],
)
def test_mistakes_in_a_query_are_found(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        queries.Labels(KNOWN).find(text)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_is_what_grafana_takes(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == name.removesuffix(".json")
    assert "id" not in dashboard
    assert dashboard["title"].startswith("Tenure / ")
    assert dashboard["tags"] == ["tenure"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels:
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == source
        targets = panel["targets"]
        assert len({target["refId"] for target in targets}) == len(targets) >= 1
        assert all(target["datasource"] == source for target in targets)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_are_defined_and_used(name: str) -> None:
    dashboard = DASHBOARDS[name]
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    texts += [panel["title"] for panel in dashboard["panels"]]
    used = set(re.findall(r"\$([a-z]+)", " ".join(texts)))
    assert used | {"datasource"} == defined
    repeated = {panel["repeat"] for panel in dashboard["panels"] if "repeat" in panel}
    assert repeated <= defined


SERVING, ROLLOUT, DRIFT = "tenure-serving.json", "tenure-rollout.json", "tenure-drift.json"
QUANTILES = ("quantile(0.5,", "quantile(0.95,", "quantile(0.99,")
SUBJECTS = [
    ("throughput", SERVING, "Throughput by version", ("sum by (version) (rate(churn_requests_total",)),
    ("percentiles", SERVING, "Latency in the model server", (*QUANTILES, "churn_request_seconds_bucket")),
    ("percentiles", SERVING, "Latency at the gateway", (*QUANTILES, "envoy_cluster_upstream_rq_time_bucket")),
    ("error rate", SERVING, "Errors in the model server", ('status=~"failed|refused|busy"', "by (version")),
    ("error rate", SERVING, "Errors at the gateway", ('envoy_response_code_class="5"',)),
    (
        "prediction rate",
        SERVING,
        "Customers scored by version",
        ("sum by (version) (rate(churn_predictions_",),
    ),
    (
        "distribution",
        SERVING,
        "Churn probability by version",
        ("sum by (version, le) (rate(churn_score_bucket",),
    ),
    (
        "distribution",
        SERVING,
        "Churn probabilities of $version",
        ("sum by (le) (increase(churn_score_bucket",),
    ),
    ("evidence", ROLLOUT, "Evidence of $signal", ("max by (bound) (pilot_evidence",)),
    ("drift", DRIFT, "Effect by column", ("max by (column)", "drift_effect", "drift_threshold")),
    ("drift", DRIFT, "P-values by column", ("min by (column) (drift_p_value",)),
    ("CPU", SERVING, "CPU", ("rate(process_cpu_seconds_total",)),
    ("memory", SERVING, "Memory", ("process_resident_memory_bytes",)),
]
"""What dashboards must show, each with its panel and what that asks for."""


@pytest.mark.parametrize(("subject", "dashboard", "title", "parts"), SUBJECTS)
def test_subject_has_its_panel(subject: str, dashboard: str, title: str, parts: tuple[str, ...]) -> None:
    panels = [panel for panel in DASHBOARDS[dashboard]["panels"] if panel["title"] == title]
    assert len(panels) == 1, f"{subject}: {title} is not on {dashboard}"
    text = "\n".join(target["expr"] for target in panels[0]["targets"])
    for part in parts:
        assert part in text, f"{subject}: {title} does not ask for {part}"


def test_dashboards_are_found_by_grafana(documents: tuple[dict[str, Any], ...]) -> None:
    (config,) = [one for one in documents if one["kind"] == "ConfigMap"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(config["data"]) == set(DASHBOARDS)
    # kubectl apply keeps a copy of the whole in an annotation, which may have 262144 bytes.
    assert sum(len(text.encode()) for text in config["data"].values()) < 200_000


# Alerts
