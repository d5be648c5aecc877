from __future__ import annotations

import httpx
from prometheus_client.registry import CollectorRegistry

from serving.pilot.flight import Flight
from serving.pilot.metrics import OUTCOMES, Metrics
from serving.pilot.server import ALIVE_SECONDS, READY_SECONDS, Health, serve
from tenure.judgement import Judgement, Progress, Signal


def test_health_and_metrics_are_served():
    seconds = [0.0]
    health, registry = Health(lambda: seconds[0]), CollectorRegistry()
    Metrics(registry).show_weights("churn", {"aaa": 80, "bbb": 20})
    with (
        serve("127.0.0.1", 0, health, registry) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", trust_env=False) as client,
    ):
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        health.note(True)
        assert client.get("/readyz").status_code == 200
        seconds[0] += READY_SECONDS
        health.note(False)
        assert client.get("/readyz").status_code == 503
        seconds[0] += ALIVE_SECONDS
        assert client.get("/healthz").status_code == 503
        assert 'pilot_weight{service="churn",version="bbb"} 20.0' in client.get("/metrics").text
        assert client.get("/other").status_code == 404


def test_metrics_of_a_canary_go_with_it():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    signal = Signal(
        name="errors", estimate=0.1, low=0.0, high=0.2, tolerance=0.02, harm=False, safe=False, n=9, text=""
    )
    progress = Progress(
        canary="b" * 12, digest="b" * 64, step=1, began="2026-01-01T00:00:00Z", since="2026-01-01T00:00:00Z"
    )
    flight = Flight(progress, Judgement(action="wait", signals=(signal,), text=""))
    metrics.show_flight("churn", flight, 9)
    labels = {"service": "churn", "canary": "b" * 12, "signal": "errors", "bound": "high"}
    assert registry.get_sample_value("pilot_evidence", labels) == 0.2
    metrics.drop_flight("churn")
    assert registry.get_sample_value("pilot_evidence", labels) is None
    metrics.show_weights("churn", {"a": 100})
    metrics.show_weights("churn", {"b": 100})
    assert registry.get_sample_value("pilot_weight", {"service": "churn", "version": "a"}) is None


def test_metrics_of_a_service_go_with_it():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for service in ("churn", "other"):
        metrics.show_weights(service, {"a": 100})
        metrics.unrecorded.labels(service).set(1)
        metrics.failures.labels(service).inc()
    metrics.keep({"other"})
    metrics.keep({"other"})

    def read(service):
        names = {"pilot_weight": {"version": "a"}, "pilot_unrecorded": {}, "pilot_failures_total": {}}
        return [registry.get_sample_value(name, {"service": service, **more}) for name, more in names.items()]

    assert read("churn") == [None, None, None]
    assert read("other") == [100, 1, 1]


def test_counters_begin_at_zero():
    registry = CollectorRegistry()
    Metrics(registry)
    for outcome in OUTCOMES:
        assert registry.get_sample_value("pilot_transitions_total", {"outcome": outcome}) == 0
    assert registry.get_sample_value("pilot_passes_total", {"outcome": "failed"}) == 0
