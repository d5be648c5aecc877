"""Estimates from scores alone: right for a calibrated model, and known to be blind for concept drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.errors import EvaluationError
from tenure.estimation import Estimate, estimate_performance
from tenure.metrics import compute_metrics
from tenure.performance import measure_performance

NAMES = ("roc_auc", "log_loss", "brier", "precision", "recall")


def play(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(1.3 - 1.5 * rng.normal(size=rows)))
    return p, (rng.random(rows) < p).astype(float)


def test_a_calibrated_models_estimate_is_the_truth_of_many_customers() -> None:
    p, y = play(40_000, 1)
    estimate, truth = estimate_performance(p, 0.4, 0, resamples=20), compute_metrics(y, p, 0.4)
    for name in NAMES:
        assert getattr(estimate, name).value == pytest.approx(truth[name], abs=0.01)
    assert estimate.churn_rate.value == pytest.approx(y.mean(), abs=0.01)


def test_the_intervals_hold_what_windows_turn_out_to_be() -> None:
    hits = []
    for seed in range(60):
        p, y = play(500, seed)
        estimate, truth = estimate_performance(p, 0.4, seed, resamples=100), compute_metrics(y, p, 0.4)
        hits += [getattr(estimate, n).low <= truth[n] <= getattr(estimate, n).high for n in NAMES]
    assert np.mean(hits) > 0.9


def test_expected_auc_is_that_of_all_pairs_of_different_customers() -> None:
    p = np.random.default_rng(3).random(60)
    pairs = p[:, None] * (1 - p)[None, :]
    np.fill_diagonal(pairs, 0)
    right = (p[:, None] > p[None, :]) + 0.5 * (p[:, None] == p[None, :])
    expected = float((pairs * right).sum() / pairs.sum())
    assert estimate_performance(p, 0.5, 0, resamples=5).roc_auc.value == pytest.approx(expected, abs=1e-12)


def test_other_outcomes_for_the_same_customers_are_not_seen() -> None:
    p, y = play(3000, 4)
    truth = measure_performance(p, 1 - y, 0.4, resamples=50).metrics["roc_auc"]
    assert truth.high < 0.3 < 0.7 < estimate_performance(p, 0.4, 0, resamples=50).roc_auc.low


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.01, 0.99), min_size=50, max_size=150), st.floats(0, 1), st.integers(0, 9))
def test_any_scores_give_finite_ordered_intervals_and_survive_json(
    scores: list[float], threshold: float, seed: int
) -> None:
    try:
        estimate = estimate_performance(scores, threshold, seed, resamples=20)
    except EvaluationError as error:
        assert "leave" in str(error) or "one class" in str(error)  # noqa: PT017
        return
    assert estimate == estimate_performance(scores, threshold, seed, resamples=20)
    for name in (*NAMES, "churn_rate"):
        interval = getattr(estimate, name)
        assert interval.low <= interval.value <= interval.high
    assert Estimate.model_validate_json(estimate.model_dump_json()) == estimate


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.5] * 49, "50 or more"),
        ([[0.5] * 60], "50 or more"),
        ([0.5] * 60 + [1.5], "not a probability"),
        ([0.5] * 60 + [float("nan")], "not a probability"),
        ([0.001] * 100, "one class"),
    ],
)
def test_scores_that_nothing_can_be_said_of_are_refused(scores: list[float], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        estimate_performance(scores, 0.5, 0)
