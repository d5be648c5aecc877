"""What the detector's `/metrics` says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The detector's counters and gauges; prometheus-client locks each, so any thread may use them.

    Attributes:
        registry: Where they are registered.
        events: `detector_events_total{kind,outcome}`: CloudEvents by kind (request, response, unknown) and
            outcome: `recorded` (the ledger has them, or had them already), `dead_letter`, `refused` (503).
        predictions: `detector_predictions_total{service,version}`: rows that are new in the ledger.
        labels: `detector_labels_total{outcome}`: labels `recorded` or `refused`.
        dead_letters: `detector_dead_letters_total`.
        transitions: `detector_transitions_total`.
        duplicates: `detector_duplicates_total`: halves that the ledger had already.
        pairs: `detector_pairs_total`: requests that met their response.
        lost: `detector_lost_total`: halves given up because the other never came.
        commit_seconds: `detector_commit_seconds`: time of one transaction.
        commit_failures: `detector_commit_failures_total`: transactions that the ledger refused.
        leading: `detector_leading`: 1 at the one detector that watches for drift, of several.
        windows: `detector_windows_total{service,family}`: windows that were judged.
        drift_effect: `drift_effect{service,family,column}`: effect size in the newest window.
        drift_threshold: `drift_threshold{service,family,column}`: from which effect on it is material.
        drift_p_value: `drift_p_value{service,family,column}`: p-value in the newest window.
        drift_alarm: `drift_alarm{service,kind}`: 1 while the newest window raises an alarm of that kind.
        drift_window: `drift_window_timestamp_seconds{service,family}`: until when the newest window reaches.
        performance: `performance_estimate{service,measure}`: estimated without labels, newest window.
        triggers: `detector_triggers_total{service,kind,state}`: causes of retraining, by state reached.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry

        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self.events = count("detector_events", "CloudEvents", "kind", "outcome")
        # A series that begins with its first event has no increase that an alert could see.
        for kind, outcome in product(("request", "response"), ("recorded", "dead_letter", "refused")):
            self.events.labels(kind, outcome)
        self.predictions = count("detector_predictions", "Rows of predictions recorded", "service", "version")
        self.labels = count("detector_labels", "Labels", "outcome")
        self.dead_letters = count("detector_dead_letters", "Events that could not be understood")
        self.transitions = count("detector_transitions", "Transitions of roll-outs")
        self.duplicates = count("detector_duplicates", "Halves that came again")
        self.pairs = count("detector_pairs", "Requests that met their response")
        self.lost = count("detector_lost", "Halves whose other half never came")
        self.commit_failures = count("detector_commit_failures", "Transactions that failed")
        self.commit_seconds = Histogram(
            "detector_commit_seconds", "Time of one transaction", buckets=_SECONDS, registry=registry
        )
        self.leading = gauge("detector_leading", "Whether this detector watches for drift")
        self.windows = count("detector_windows", "Windows judged", "service", "family")
        column = ("service", "family", "column")
        self.drift_effect = gauge("drift_effect", "Effect size in the newest window", *column)
        self.drift_threshold = gauge("drift_threshold", "From which effect on it is material", *column)
        self.drift_p_value = gauge("drift_p_value", "P-value in the newest window", *column)
        self.drift_alarm = gauge("drift_alarm", "Whether the newest window alarms", "service", "kind")
        self.drift_window = gauge(
            "drift_window_timestamp_seconds", "Until when the newest window reaches", "service", "family"
        )
        self.performance = gauge("performance_estimate", "Estimated without labels", "service", "measure")
        self.triggers = count("detector_triggers", "Causes of retraining", "service", "kind", "state")

    def clear_drift(self) -> None:
        """Show no findings: another detector has newer ones, or there will be some."""
        shown = (self.drift_effect, self.drift_threshold, self.drift_p_value, self.drift_alarm)
        for gauge in (*shown, self.drift_window, self.performance):
            gauge.clear()

    def watch_queue(self, depth: Callable[[], int], lag: Callable[[], float | None]) -> None:
        """Add what changes by itself: `detector_queue_depth`, `detector_lag_seconds`.

        Args:
            depth: Returns how many items wait for the ledger.
            lag: Returns the age in seconds of the newest prediction that was recorded; None before the first.
        """
        self.registry.register(_Queue(depth, lag))


class _Queue(Collector):
    """The sink's queue at the moment of looking."""

    def __init__(self, depth: Callable[[], int], lag: Callable[[], float | None]) -> None:
        self._depth = depth
        self._lag = lag

    def collect(self) -> Iterable[Metric]:
        """Yield the two families."""
        yield GaugeMetricFamily("detector_queue_depth", "Items that wait for the ledger", value=self._depth())
        lag = self._lag()
        if lag is not None:
            yield GaugeMetricFamily(
                "detector_lag_seconds", "Age of the newest prediction that was recorded", value=lag
            )
