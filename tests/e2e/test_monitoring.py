"""What dashboards and alerts ask is what the real servers tell; a real Prometheus answers every panel."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from embedded.ports import find_free_port
from serving.detector.metrics import Metrics as DetectorMetrics
from serving.pilot.metrics import Metrics as PilotMetrics

QUIET = {
    "tenure-drift.json: Causes of retraining": "there is no drift here",
}
"""Panels that have nothing to show while all is well."""

_file = Path(__file__).parents[1] / "manifests" / "queries.py"
_spec = importlib.util.spec_from_file_location("monitoring_queries_e2e", _file)
assert _spec is not None
assert _spec.loader is not None
queries = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(queries)

Wait = Callable[..., Any]


def find_targets(platform: Any) -> list[dict[str, Any]]:
    """Return what runs, as Prometheus's file_sd writes it, with the labels that our monitors add."""
    found = []
    gateway = httpx.URL(platform.settings.gateway_stats_url)
    labels = {"job": "tenure-gateway", "__metrics_path__": gateway.path}
    found.append({"targets": [f"{gateway.host}:{gateway.port}"], "labels": labels})
    for process in json.loads(platform.tenure("status", "--json").stdout)["processes"]:
        name = process["name"]
        if name in ("detector", "pilot"):
            address = process["address"].removeprefix("http://")
            found.append({"targets": [address], "labels": {"job": f"tenure-{name}"}})
        elif process["kind"] == "model" and process["ready"]:
            words = psutil.Process(process["pid"]).cmdline()
            flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
            labels = {"job": "tenure-predictor", "service": flags["model_name"], "pod": name}
            found.append({"targets": [f"127.0.0.1:{flags['http_port']}"], "labels": labels})
    return found


def scrape(targets: list[dict[str, Any]]) -> dict[str, frozenset[str]]:
    """Return each series that the targets tell of, with its labels; what nothing was counted of has none."""
    known: dict[str, frozenset[str]] = {}
    for target in targets:
        (address,) = target["targets"]
        path = target["labels"].get("__metrics_path__", "/metrics")
        answer = httpx.get(f"http://{address}{path}", trust_env=False, timeout=20).raise_for_status()
        read_page(answer.text, known)
    return known


def read_page(text: str, known: dict[str, frozenset[str]]) -> None:
    """Add what a page of /metrics tells of; a client library's parser would rename Envoy's counters."""
    for line in text.splitlines():
        if announced := re.fullmatch(r"# TYPE (\w+) \w+", line):
            known.setdefault(announced[1], frozenset())
        elif sample := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            labels = re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', sample[2] or "")
            known[sample[1]] = known.get(sample[1], frozenset()) | frozenset(labels)


def count_trouble() -> dict[str, frozenset[str]]:
    """Return the series that begin with trouble, as the servers' own classes write them."""
    registry = CollectorRegistry()
    DetectorMetrics(registry).triggers.labels(service="s", kind="k", state="failed").inc()
    PilotMetrics(registry).failures.labels(service="s").inc()
    known: dict[str, frozenset[str]] = {}
    read_page(generate_latest(registry).decode(), known)
    return {name: known[name] for name in ("detector_triggers_total", "pilot_failures_total")}


@pytest.fixture(scope="module")
def busy(platform: Any, wait_for: Wait) -> Any:
    """The platform with a canary under way, drift judged, and customers that came just now."""
    platform.reset()
    platform.ensure_canary()
    platform.tenure("simulate", "--rate", "100", "--duration", "9")

    def is_busy() -> bool:
        known = scrape(find_targets(platform))
        return all(known.get(name) for name in ("drift_effect", "pilot_evidence", "performance_estimate"))

    wait_for(is_busy, 60, "a window judged and the canary's evidence")
    return platform


def test_every_name_and_label_is_told(busy: Any) -> None:
    known = scrape(find_targets(busy))
    for name, labels in count_trouble().items():
        assert name in known, f"{name} is not announced"
        known[name] = labels
    labels_of = queries.Labels(known)
    for query in queries.list_queries():
        try:
            found = labels_of.find(query.fill())
        except (KeyError, ValueError) as error:
            raise AssertionError(f"{query.place}: {error}") from error
        assert query.needs <= found, f"{query.place}: {query.needs - found} of {query.text}"


@pytest.fixture(scope="module")
def prometheus(busy: Any, tmp_path_factory: pytest.TempPathFactory, wait_for: Wait) -> Iterator[httpx.Client]:
    """A real Prometheus that scrapes the platform each second and evaluates the alerts."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no prometheus; on Debian and Ubuntu: apt install prometheus")
    home, port = tmp_path_factory.mktemp("prometheus"), find_free_port()
    (home / "targets.json").write_text(json.dumps(find_targets(busy)))
    (home / "rules.yaml").write_text(yaml.safe_dump(queries.read_rules()))
    scraping = {"job_name": "tenure", "file_sd_configs": [{"files": [str(home / "targets.json")]}]}
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(home / "rules.yaml")],
        "scrape_configs": [scraping],
    }
    (home / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = [program, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:

            def answers() -> bool:
                assert process.poll() is None, (home / "log").read_text()
                try:
                    return client.get("/-/ready").status_code == 200
                except httpx.TransportError:
                    return False

            wait_for(answers, 60, "Prometheus")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def ask(client: httpx.Client, text: str) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/query", params={"query": text})
    assert answer.status_code == 200, f"{text}: {answer.text}"
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def test_prometheus_answers_every_panel(busy: Any, prometheus: httpx.Client, wait_for: Wait) -> None:
    wait_for(lambda: len(ask(prometheus, "up == 1")) >= 5, 60, "every target scraped")
    busy.tenure("simulate", "--rate", "50", "--duration", "10")

    def find_empty() -> list[str]:
        places = {query.place: query for query in queries.list_queries() if query.always}
        # A panel has several queries; of these one may have nothing to show.
        empty = dict.fromkeys(places, True)
        for query in queries.list_queries():
            if query.always and ask(prometheus, query.fill("1m")):
                empty[query.place] = False
        return [place for place, none in empty.items() if none and place not in QUIET]

    wait_for(lambda: not find_empty() or None, 30, f"data in {find_empty()}")
    for query in queries.list_queries():
        for series in ask(prometheus, query.fill("1m")):
            assert query.needs <= set(series["metric"]), f"{query.place}: {series['metric']}"


def test_no_alert_fires_on_a_healthy_platform(busy: Any, prometheus: httpx.Client) -> None:
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(queries.read_alerts())
    # "unknown" is one that was not evaluated yet.
    assert not [rule["lastError"] for rule in rules if rule["health"] == "err"]
    # Other tests' services had failing runs and canaries, and what counts them outlives them.
    services = (None, busy.project.rollout.service)
    alerts = [alert for rule in rules for alert in rule["alerts"] if alert["state"] == "firing"]
    assert not [alert["labels"] for alert in alerts if alert["labels"].get("service") in services]
