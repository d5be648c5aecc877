from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serving.predictor.counters import Counters
from serving.predictor.errors import RequestError
from serving.predictor.metrics import Metrics


def test_counts_rows_by_outcome() -> None:
    registry = CollectorRegistry()
    metrics = Metrics("v7", registry)
    metrics.count_answer(np.array([0.1, 0.9, 0.95]), np.array([False, True, True]))
    metrics.count_answer(np.array([0.2]), np.array([False]))

    def read(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"version": "v7", **labels})

    assert read("churn_predictions_total", outcome="churn") == 2
    assert read("churn_predictions_total", outcome="stay") == 2
    assert read("churn_score_count") == 4
    assert read("churn_score_sum") == pytest.approx(2.15)
    assert read("churn_score_bucket", le="0.1") == 1
    assert read("churn_score_bucket", le="0.2") == 2
    assert read("churn_score_bucket", le="0.9") == 3


def test_watches_how_requests_end() -> None:
    registry = CollectorRegistry()
    metrics = Metrics("v7", registry)
    with metrics.watch("v2"):
        pass
    with pytest.raises(RequestError), metrics.watch("v2"):
        raise RequestError("wrong")
    with pytest.raises(ZeroDivisionError), metrics.watch("grpc"):
        _ = 1 / 0

    def read(protocol: str, status: str) -> float | None:
        labels = {"version": "v7", "protocol": protocol, "status": status}
        return registry.get_sample_value("churn_requests_total", labels)

    assert (read("v2", "ok"), read("v2", "refused"), read("grpc", "failed")) == (1, 1, 1)
    labels = {"version": "v7", "protocol": "v2"}
    assert registry.get_sample_value("churn_request_seconds_count", labels) == 2


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_a_batch_counts_like_its_rows(scores: list[float]) -> None:
    together, apart = CollectorRegistry(), CollectorRegistry()
    churn = np.array(scores) >= 0.5
    Metrics("v", together).count_answer(np.array(scores), churn)
    single = Metrics("v", apart)
    for score, leaves in zip(scores, churn, strict=True):
        single.count_answer(np.array([score]), np.array([leaves]))
    for one, other in zip(together.collect(), apart.collect(), strict=True):
        for sample, expected in zip(one.samples, other.samples, strict=True):
            assert (sample.name, sample.labels) == (expected.name, expected.labels)
            assert sample.value == pytest.approx(expected.value)


def test_workers_count_together() -> None:
    counters = Counters(3)
    first, second, third = CollectorRegistry(), CollectorRegistry(), CollectorRegistry()
    for row, registry in enumerate((first, second)):
        counters.take(row)
        metrics = Metrics("v", registry, counters)
        metrics.count_answer(np.array([0.9]), np.array([True]))
        metrics.count_busy("v1")
    counters.take(1)  # who takes a dead worker's place goes on from its numbers
    Metrics("v", third, counters).count_answer(np.array([0.1, 0.9]), np.array([False, True]))
    for registry in (first, second, third):
        assert registry.get_sample_value("churn_score_count", {"version": "v"}) == 4
        labels = {"version": "v", "protocol": "v1", "status": "busy"}
        assert registry.get_sample_value("churn_requests_total", labels) == 2
