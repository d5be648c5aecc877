"""What `/metrics` says about predictions, beside kserve's own and the process's metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

from serving.predictor.errors import PredictorError

if TYPE_CHECKING:
    from serving.predictor.events import Events

Protocol = Literal["v1", "v2", "grpc"]

_SCORE_BOUNDS = tuple(step / 20 for step in range(1, 21))
_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ScoreHistogram(Collector):
    """A histogram of churn probabilities that takes a whole batch at once.

    prometheus-client's own takes one value at a time, about a microsecond each.
    """

    def __init__(self, version: str) -> None:
        self._version = version
        self._counts = np.zeros(len(_SCORE_BOUNDS) + 1, dtype=np.int64)
        self._sum = 0.0

    def add(self, scores: NDArray[np.float64]) -> None:
        """Count scores, shape [n], each in the first bucket whose bound is not below it."""
        if len(scores) == 1:
            score = float(scores[0])
            self._counts[bisect_left(_SCORE_BOUNDS, score)] += 1
            self._sum += score
            return
        places = np.searchsorted(_SCORE_BOUNDS, scores, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(scores.sum())

    def collect(self) -> Iterable[Metric]:
        """Yield the one metric family."""
        bounds = [*map(str, _SCORE_BOUNDS), "+Inf"]
        buckets = list(zip(bounds, self._counts.cumsum().astype(float).tolist(), strict=True))
        family = HistogramMetricFamily("churn_score", "Churn probabilities answered", labels=["version"])
        family.add_metric([self._version], buckets, self._sum)
        yield family


class Metrics:
    """The counters of one model version. Used from the event loop only, so nothing is locked.

    Exposed: `churn_predictions_total{version,outcome}` counts rows, outcome "churn" or "stay";
    `churn_score{version}` is their histogram; `churn_request_seconds{version,protocol}` is the time to
    answer, without reading from and writing to the network; `churn_requests_total{version,protocol,status}`
    counts requests, status "ok", "refused" (the caller's mistake) or "failed" (ours).
    """

    def __init__(self, version: str, registry: CollectorRegistry = REGISTRY) -> None:
        predictions = Counter(
            "churn_predictions", "Customers scored", ["version", "outcome"], registry=registry
        )
        self._churn = predictions.labels(version, "churn")
        self._stay = predictions.labels(version, "stay")
        self._scores = ScoreHistogram(version)
        registry.register(self._scores)
        self._requests = Counter(
            "churn_requests", "Requests answered", ["version", "protocol", "status"], registry=registry
        )
        self._seconds = Histogram(
            "churn_request_seconds",
            "Time to answer a request",
            ["version", "protocol"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._watches = {name: self._make_watch(version, name) for name in ("v1", "v2", "grpc")}

    def _make_watch(self, version: str, protocol: str) -> _Parts:
        counts = {
            status: self._requests.labels(version, protocol, status) for status in ("ok", "refused", "failed")
        }
        return counts, self._seconds.labels(version, protocol)

    def count_answer(self, scores: NDArray[np.float64], churn: NDArray[np.bool_]) -> None:
        """Count the rows of one answer, both of shape [n]."""
        leaving = int(np.count_nonzero(churn))
        if leaving:
            self._churn.inc(leaving)
        if leaving < len(churn):
            self._stay.inc(len(churn) - leaving)
        self._scores.add(scores)

    def watch(self, protocol: Protocol) -> Watch:
        """Return a context manager that times one request and counts how it ended."""
        return Watch(*self._watches[protocol])


_Parts = tuple[dict[str, Counter], Histogram]


class Watch:
    """Times one request; how it ended follows from the exception that leaves the block."""

    __slots__ = ("_counts", "_seconds", "_start")

    def __init__(self, counts: dict[str, Counter], seconds: Histogram) -> None:
        self._counts = counts
        self._seconds = seconds
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds.observe(perf_counter() - self._start)
        if error is None:
            self._counts["ok"].inc()
        elif isinstance(error, PredictorError) and error.status < 500:
            self._counts["refused"].inc()
        else:
            self._counts["failed"].inc()


class EventCounts(Collector):
    """What has become of the events of inferences, at the moment of looking."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def collect(self) -> Iterable[Metric]:
        """Yield the two families."""
        family = CounterMetricFamily("predictor_events", "Events of inferences", labels=["outcome"])
        family.add_metric(["queued"], self._events.queued)
        family.add_metric(["sent"], self._events.sent)
        family.add_metric(["dropped"], self._events.dropped)
        yield family
        yield GaugeMetricFamily(
            "predictor_events_waiting", "Inferences that wait for the sink", value=self._events.waiting
        )
