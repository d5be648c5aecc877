"""What `/metrics` says about predictions, beside kserve's own and the process's metrics."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

from serving.predictor.counters import Counters
from serving.predictor.errors import BusyError, PredictorError

if TYPE_CHECKING:
    from serving.predictor.events import Events

Protocol = Literal["v1", "v2", "grpc"]

_PROTOCOLS: tuple[Protocol, ...] = ("v1", "v2", "grpc")
_STATUSES = ("ok", "refused", "failed", "busy")
_REFUSED, _FAILED, _BUSY = 1, 2, 3
_SCORES = tuple(step / 20 for step in range(1, 21))
_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

# Places in a worker's row.
_CHURN, _STAY, _SCORE_SUM, _SCORE_BUCKETS = 0, 1, 2, 3
_QUEUED, _SENT, _DROPPED, _WAITING = range(24, 28)
_FIRST_PROTOCOL, _PROTOCOL_SIZE = 28, len(_STATUSES) + 1 + len(_SECONDS) + 1


class Metrics(Collector):
    """The counters of one model version. Used from the event loop only, so nothing is locked.

    Exposed: `churn_predictions_total{version,outcome}` counts rows, outcome "churn" or "stay";
    `churn_score{version}` is their histogram; `churn_request_seconds{version,protocol}` is the time to
    answer, without reading from and writing to the network; `churn_requests_total{version,protocol,status}`
    counts requests, status "ok", "refused" (the caller's mistake), "failed" (ours) or "busy" (too much at a
    time). All are sums over the predictor's workers. They are counted in plain
    numbers: prometheus-client's own cost more, a histogram for every row.

    Args:
        version: The bundle's version.
        registry: Where they are registered.
        counters: Where they are counted.
    """

    def __init__(
        self, version: str, registry: CollectorRegistry = REGISTRY, counters: Counters | None = None
    ) -> None:
        self._version = version
        self.counters = Counters() if counters is None else counters
        self._own = self.counters.own
        self._places = {
            protocol: _FIRST_PROTOCOL + _PROTOCOL_SIZE * number for number, protocol in enumerate(_PROTOCOLS)
        }
        self.registry = registry
        registry.register(self)

    def count_answer(self, scores: NDArray[np.float64], churn: NDArray[np.bool_]) -> None:
        """Count the rows of one answer, both of shape [n]; each score in the first bucket not below it."""
        own, rows = self._own, len(scores)
        leaving = int(np.count_nonzero(churn))
        own[_CHURN] += leaving
        own[_STAY] += rows - leaving
        if rows == 1:
            score = float(scores[0])
            own[_SCORE_BUCKETS + bisect_left(_SCORES, score)] += 1
            own[_SCORE_SUM] += score
            return
        counts = np.bincount(np.searchsorted(_SCORES, scores, side="left")).tolist()
        for place, count in enumerate(counts, _SCORE_BUCKETS):
            own[place] += count
        own[_SCORE_SUM] += float(scores.sum())

    def count_busy(self, protocol: Protocol) -> None:
        """Count a request that was not admitted."""
        self._own[self._places[protocol] + _BUSY] += 1

    def watch(self, protocol: Protocol) -> Watch:
        """Return a context manager that times one request and counts how it ended."""
        return Watch(self._own, self._places[protocol])

    def collect(self) -> Iterable[Metric]:
        """Yield the four families."""
        counters, version = self.counters, self._version
        predictions = CounterMetricFamily(
            "churn_predictions", "Customers scored", labels=["version", "outcome"]
        )
        predictions.add_metric([version, "churn"], counters.sum(_CHURN))
        predictions.add_metric([version, "stay"], counters.sum(_STAY))
        yield predictions
        scores = HistogramMetricFamily("churn_score", "Churn probabilities answered", labels=["version"])
        scores.add_metric([version], self._gather(_SCORE_BUCKETS, _SCORES), counters.sum(_SCORE_SUM))
        yield scores
        requests = CounterMetricFamily(
            "churn_requests", "Requests answered", labels=["version", "protocol", "status"]
        )
        seconds = HistogramMetricFamily(
            "churn_request_seconds", "Time to answer a request", labels=["version", "protocol"]
        )
        for protocol, place in self._places.items():
            for number, status in enumerate(_STATUSES):
                requests.add_metric([version, protocol, status], counters.sum(place + number))
            total = place + len(_STATUSES)
            seconds.add_metric([version, protocol], self._gather(total + 1, _SECONDS), counters.sum(total))
        yield requests
        yield seconds

    def watch_parent(self) -> None:
        """Expose, as the process's metrics, those of the process that keeps the workers."""
        ProcessCollector(pid=os.getppid, registry=self.registry)

    def _gather(self, start: int, bounds: tuple[float, ...]) -> list[tuple[str, float]]:
        """Return the buckets of a histogram, each with all below it."""
        sums = accumulate(self.counters.sums(start, start + len(bounds) + 1))
        return list(zip([*map(str, bounds), "+Inf"], sums, strict=True))


class Watch:
    """Times one request; how it ended follows from the exception that leaves the block."""

    __slots__ = ("_own", "_place", "_start")

    def __init__(self, own: memoryview[float], place: int) -> None:
        self._own = own
        self._place = place
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        own, place = self._own, self._place
        if error is None:
            own[place] += 1
        elif isinstance(error, BusyError):
            own[place + _BUSY] += 1
        elif isinstance(error, PredictorError) and error.status < 500:
            own[place + _REFUSED] += 1
        else:
            own[place + _FAILED] += 1
        seconds = perf_counter() - self._start
        total = place + len(_STATUSES)
        own[total] += seconds
        own[total + 1 + bisect_left(_SECONDS, seconds)] += 1


class EventCounts(Collector):
    """What has become of the events of inferences, at the moment of looking.

    Another worker's are as old as its last `publish`.
    """

    def __init__(self, events: Events, counters: Counters) -> None:
        self._events = events
        self._counters = counters
        self._before = counters.own[_QUEUED:_WAITING].tolist()

    def publish(self) -> None:
        """Write the own numbers to where all are read."""
        own, events = self._counters.own, self._events
        numbers = (events.queued, events.sent, events.dropped)
        for place, before, number in zip(range(_QUEUED, _WAITING), self._before, numbers, strict=True):
            own[place] = before + number
        own[_WAITING] = events.waiting

    def collect(self) -> Iterable[Metric]:
        """Yield the two families."""
        self.publish()
        family = CounterMetricFamily("predictor_events", "Events of inferences", labels=["outcome"])
        for outcome, place in (("queued", _QUEUED), ("sent", _SENT), ("dropped", _DROPPED)):
            family.add_metric([outcome], self._counters.sum(place))
        yield family
        yield GaugeMetricFamily(
            "predictor_events_waiting",
            "Inferences that wait for the sink",
            value=self._counters.sum(_WAITING),
        )
