"""The search's objective says the same as the evaluation's metrics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.metrics import compute_metrics
from tenure.objective import measure, name_curve
from tenure.project import Metric

LABELS = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=50).filter(lambda y: 0 < sum(y) < len(y))


@given(LABELS, st.data(), st.sampled_from([0.3, 0.6, 0.9]))
def test_equals_the_evaluation(labels: list[float], data: st.DataObject, precision: float) -> None:
    y = np.array(labels)
    score = st.one_of(st.integers(0, 5).map(lambda step: step / 5), st.floats(0, 1))
    p = np.array(data.draw(st.lists(score, min_size=len(y), max_size=len(y))))
    expected = compute_metrics(y, p, 0.5, precision)
    for metric in Metric:
        assert measure(metric, y, p, precision) == pytest.approx(expected[metric.value], abs=1e-9), metric


def test_recall_at_an_impossible_precision_is_zero() -> None:
    y, p = np.array([0.0, 1.0]), np.array([0.9, 0.1])
    assert measure(Metric.RECALL_AT_PRECISION, y, p, precision=0.9) == 0.0


@pytest.mark.parametrize("y", [[], [0.0, 0.0], [1.0, 1.0]])
def test_refuses_one_class(y: list[float]) -> None:
    with pytest.raises(ValueError, match="both classes"):
        measure(Metric.ROC_AUC, np.array(y), np.full(len(y), 0.5))


def test_refuses_shapes_that_disagree() -> None:
    with pytest.raises(ValueError, match="must be \\[rows\\]"):
        measure(Metric.ROC_AUC, np.array([0.0, 1.0]), np.array([0.5]))


def test_every_metric_has_a_curve() -> None:
    assert {name_curve(metric) for metric in Metric} == {"auc", "aucpr", "logloss"}
