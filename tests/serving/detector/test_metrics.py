from __future__ import annotations

from itertools import product

from prometheus_client import CollectorRegistry

from serving.detector.metrics import Metrics


def test_counters_begin_at_zero() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    for kind, outcome in product(("request", "response"), ("recorded", "dead_letter", "refused")):
        labels = {"kind": kind, "outcome": outcome}
        assert registry.get_sample_value("detector_events_total", labels) == 0
    assert registry.get_sample_value("detector_leading") == 0


def test_findings_go_as_a_whole() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    column = {"service": "s", "family": "inputs", "column": "x"}
    shown = {
        "drift_effect": (metrics.drift_effect, column),
        "drift_threshold": (metrics.drift_threshold, column),
        "drift_p_value": (metrics.drift_p_value, column),
        "drift_alarm": (metrics.drift_alarm, {"service": "s", "kind": "covariate"}),
        "drift_window_timestamp_seconds": (metrics.drift_window, {"service": "s", "family": "inputs"}),
        "performance_estimate": (metrics.performance, {"service": "s", "measure": "roc_auc"}),
    }
    for name, (gauge, labels) in shown.items():
        gauge.labels(**labels).set(0.5)
        assert registry.get_sample_value(name, labels) == 0.5
    metrics.clear_drift()
    for name, (_, labels) in shown.items():
        assert registry.get_sample_value(name, labels) is None
