"""The monitors select what runs, and what they would scrape there is what dashboards and alerts ask for.

The pages are read through the Kubernetes API, so that neither Prometheus nor its operator is needed.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NAMESPACE = "tenure"
LAPTOP_ONLY = {"predictor_events_total", "predictor_events_waiting"}
"""On a cluster KServe's agent posts the events, and the model server has none of its own."""

_file = ROOT / "tests" / "manifests" / "queries.py"
_spec = importlib.util.spec_from_file_location("monitoring_queries_cluster", _file)
assert _spec is not None
assert _spec.loader is not None
queries = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(queries)

MONITORS = {
    one["metadata"]["name"]: one["spec"]
    for one in yaml.safe_load_all((ROOT / "manifests" / "monitoring" / "monitors.yaml").read_text())
}


def write_selector(selector: dict[str, Any]) -> str:
    """Return a label selector as kubectl takes it."""
    words = [f"{name}={value}" for name, value in selector.get("matchLabels", {}).items()]
    for rule in selector.get("matchExpressions", ()):
        if rule["operator"] == "In":
            words.append(f"{rule['key']} in ({','.join(rule['values'])})")
        else:
            assert rule["operator"] == "Exists"
            words.append(rule["key"])
    return ",".join(words)


def find_ports(pod: dict[str, Any]) -> dict[str, int]:
    """Return the ports of a pod's containers by name."""
    ports = [port for one in pod["spec"]["containers"] for port in one.get("ports", ())]
    return {port["name"]: port["containerPort"] for port in ports if "name" in port}


def read_names(cluster: Any, pod: dict[str, Any], port: int, path: str) -> set[str]:
    """Return the names of the series on a pod's page, with those that are announced only."""
    place = pod["metadata"]
    url = f"/api/v1/namespaces/{place['namespace']}/pods/{place['name']}:{port}/proxy{path}"
    page = cluster.run("get", "--raw", url).stdout
    return set(re.findall(r"^(?:# TYPE )?(\w+)", page, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def asked() -> set[str]:
    """Every series that a dashboard or an alert reads."""
    found: set[str] = set()
    for query in queries.list_queries():
        found |= queries.find_metrics(query.fill())
    return found - LAPTOP_ONLY


def read_pods(cluster: Any, monitor: str) -> dict[str, set[str]]:
    """Return the series of each running pod that a PodMonitor selects, by the pod's name."""
    spec = MONITORS[monitor]
    (endpoint,) = spec["podMetricsEndpoints"]
    found = {}
    for pod in cluster.list_pods(NAMESPACE, write_selector(spec["selector"])):
        if pod["status"]["phase"] == "Running":
            port = find_ports(pod)[endpoint["port"]]
            found[pod["metadata"]["name"]] = read_names(cluster, pod, port, endpoint["path"])
    return found


def test_our_services_tell_what_is_asked(cluster: Any, asked: set[str]) -> None:
    pages = read_pods(cluster, "tenure-services")
    for job, prefixes in {"tenure-detector": ("detector_", "drift_"), "tenure-pilot": ("pilot_",)}.items():
        (*_, names) = [page for pod, page in pages.items() if pod.startswith(job)]
        wanted = {name for name in asked if name.startswith((*prefixes, "process_"))}
        assert wanted
        # An age is told from the first event on.
        assert wanted - names <= {"detector_lag_seconds"}, f"{job} does not tell {wanted - names}"
    assert any(pod.startswith("tenure-console") for pod in pages)


def test_model_servers_tell_what_is_asked(cluster: Any, asked: set[str]) -> None:
    pages = read_pods(cluster, "tenure-predictor")
    if not pages:
        pytest.skip(f"no model serves in the namespace {NAMESPACE}: `tenure --context NAME run` makes one")
    wanted = {name for name in asked if name.startswith(("churn_", "process_"))}
    for pod, names in pages.items():
        assert wanted <= names, f"{pod} does not tell {wanted - names}"


def test_the_gateway_tells_what_is_asked(cluster: Any, asked: set[str]) -> None:
    spec = MONITORS["tenure-gateway"]
    (endpoint,) = spec["endpoints"]
    (namespace,) = spec["namespaceSelector"]["matchNames"]
    found = cluster.get("-n", namespace, "services", "-l", write_selector(spec["selector"]))["items"]
    services = [
        (service, port["targetPort"])
        for service in found
        for port in service["spec"]["ports"]
        if port["name"] == endpoint["port"]
    ]
    assert len(services) == 1
    ((service, port),) = services
    pods = cluster.list_pods(namespace, write_selector({"matchLabels": service["spec"]["selector"]}))
    assert pods
    wanted = {name for name in asked if name.startswith("envoy_")}
    for pod in pods:
        names = read_names(cluster, pod, port, endpoint["path"])
        # Answers and their times are told from the first one on.
        late = {"envoy_cluster_upstream_rq_xx", "envoy_cluster_upstream_rq_time_bucket"}
        assert wanted - names <= late, f"{pod['metadata']['name']} does not tell {wanted - names}"
