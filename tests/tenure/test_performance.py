"""Performance on matured rows."""

from __future__ import annotations

import numpy as np
import pytest

from tenure.errors import EvaluationError
from tenure.metrics import METRICS, compute_metrics
from tenure.performance import Performance, measure_performance


def test_only_matured_rows_count() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(400)
    y = (rng.random(400) < p).astype(float)
    unknown = np.concatenate([y, np.full(50, np.nan)])
    performance = measure_performance(np.concatenate([p, rng.random(50)]), unknown, 0.5, resamples=50)
    assert (performance.rows, performance.leavers) == (400, int(y.sum()))
    assert list(performance.metrics) == list(METRICS)
    for name, value in compute_metrics(y, p, 0.5).items():
        interval = performance.metrics[name]
        assert interval.value == pytest.approx(value)
        assert interval.low <= value <= interval.high
    assert Performance.model_validate_json(performance.model_dump_json()) == performance


def test_too_few_of_a_class_and_unequal_shapes_are_refused() -> None:
    with pytest.raises(EvaluationError, match="wait for more labels"):
        measure_performance([0.2] * 100, [1.0] * 9 + [0.0] * 91, 0.5)
    with pytest.raises(EvaluationError, match="both must be"):
        measure_performance([0.2] * 100, [1.0] * 9, 0.5)
