"""Every metric against scikit-learn's, on scores with and without ties, and against resamples written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from tenure.errors import EvaluationError
from tenure.metrics import LOWER_IS_BETTER, METRICS, Ranking, compute_metrics, is_higher_better

LABELS = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=60).filter(lambda y: 0 < sum(y) < len(y))
COARSE = st.integers(0, 6).map(lambda step: step / 6)
FINE = st.floats(0, 1)


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    """Labels, scores (many ties, or hardly any) and a threshold that may be one of the scores."""
    y = np.array(draw(LABELS))
    kind = draw(st.sampled_from([COARSE, FINE]))
    p = np.array(draw(st.lists(kind, min_size=len(y), max_size=len(y))))
    return y, p, draw(st.one_of(st.sampled_from(p.tolist()), FINE))


@given(judged(), st.sampled_from([0.2, 0.5, 0.6, 1.0]))
def test_equal_scikit_learn(case: tuple[np.ndarray, np.ndarray, float], precision: float) -> None:
    y, p, threshold = case
    flagged = p >= threshold
    precisions, recalls, _ = reference.precision_recall_curve(y, p)
    expected = {
        "roc_auc": reference.roc_auc_score(y, p),
        "average_precision": reference.average_precision_score(y, p),
        "log_loss": reference.log_loss(y, p),
        "brier": reference.brier_score_loss(y, p),
        "f1": reference.f1_score(y, flagged, zero_division=0),
        "recall": reference.recall_score(y, flagged),
        "precision": reference.precision_score(y, flagged, zero_division=0),
        "recall_at_precision": recalls[precisions >= precision].max(),
    }
    actual = compute_metrics(y, p, threshold, precision)
    assert tuple(actual) == METRICS
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, abs=1e-9), name


@given(judged())
def test_calibration_error_equals_scikit_learns_quantile_bins(
    case: tuple[np.ndarray, np.ndarray, float],
) -> None:
    y, p, threshold = case
    share, score = calibration_curve(y, p, n_bins=10, strategy="quantile")
    # calibration_curve does not say how many rows a bin has: put them there as it does.
    edges = np.percentile(p, np.linspace(0, 100, 11)[1:-1])
    rows = np.unique(np.searchsorted(edges, p), return_counts=True)[1]
    expected = float(np.abs(share - score) @ rows / len(y))
    assert compute_metrics(y, p, threshold)["calibration_error"] == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_top_decile_of_distinct_scores_is_the_plain_count(tens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.random(10 * tens) < 0.5).astype(float)
    y[:2] = 0, 1
    p = rng.permutation(10 * tens) / (10 * tens)
    top = np.argsort(-p)[:tens]
    values = compute_metrics(y, p, 0.5)
    assert values["recall_top_decile"] == pytest.approx(y[top].sum() / y.sum())
    assert values["lift_top_decile"] == pytest.approx(y[top].mean() / y.mean())


def test_top_decile_shares_out_ties() -> None:
    y = np.array([1.0] * 5 + [0.0] * 15)
    # All twenty rows are tied: the best tenth of them holds a tenth of the leavers, whatever the order.
    for order in (slice(None), slice(None, None, -1)):
        values = compute_metrics(y[order], np.full(20, 0.3), 0.5)
        assert values["recall_top_decile"] == pytest.approx(0.1)
        assert values["lift_top_decile"] == pytest.approx(1.0)


@given(judged(), st.integers(0, 2**32 - 1))
def test_counts_equal_rows_written_out(case: tuple[np.ndarray, np.ndarray, float], seed: int) -> None:
    """Counts give the metrics of the very rows, repeated; but calibration keeps the bins of the sample."""
    y, p, threshold = case
    picked = np.random.default_rng(seed).integers(0, len(y), size=(4, len(y)))
    counts = np.stack([np.bincount(row, minlength=len(y)) for row in picked], axis=1).astype(float)
    names = [name for name in METRICS if name != "calibration_error"]
    actual = Ranking(y, p, threshold).measure(counts, names)
    for column, rows in enumerate(picked):
        if 0 < y[rows].sum() < len(y):
            expected = compute_metrics(y[rows], p[rows], threshold)
            np.testing.assert_allclose(actual[:, column], [expected[name] for name in names], atol=1e-12)


def test_order_of_rows_is_irrelevant() -> None:
    rng = np.random.default_rng(3)
    y, p = (rng.random(300) < 0.3).astype(float), rng.integers(0, 20, 300) / 20
    mixed = rng.permutation(300)
    assert compute_metrics(y, p, 0.4) == pytest.approx(compute_metrics(y[mixed], p[mixed], 0.4))


def test_resamples_of_one_class_are_undefined() -> None:
    ranking = Ranking([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9], 0.5)
    counts = np.array([[2, 2, 0, 0], [0, 0, 2, 2]], dtype=float).T
    values = dict(zip(METRICS, ranking.measure(counts), strict=True))
    stayers, leavers = 0, 1
    for name in ("roc_auc", "average_precision", "recall", "f1", "recall_top_decile", "recall_at_precision"):
        assert np.isnan(values[name][stayers]), name
    assert np.isnan(values["roc_auc"][leavers])
    assert values["recall"][leavers] == 0.5
    for name in ("log_loss", "brier", "calibration_error"):
        assert np.isfinite(values[name]).all(), name


def test_certain_and_wrong_scores_have_a_finite_log_loss() -> None:
    assert 30 < compute_metrics([0, 1], [1.0, 0.0], 0.5)["log_loss"] < 40


@pytest.mark.parametrize(
    ("y", "p", "threshold", "message"),
    [
        ([0, 1], [0.1, np.nan], 0.5, r"1 of 2 scores are not probabilities \(first: nan in row 1\)"),
        ([0, 1], [np.inf, 0.2], 0.5, r"first: inf in row 0"),
        ([0, 1], [0.1, 1.5], 0.5, r"first: 1.5 in row 1"),
        ([0, np.nan], [0.1, 0.2], 0.5, r"1 of 2 labels are not 0 or 1 \(first: nan in row 1\)"),
        ([0, 2], [0.1, 0.2], 0.5, r"labels are not 0 or 1"),
        ([0, 0], [0.1, 0.2], 0.5, r"0 of the 2 rows are leavers"),
        ([1, 1], [0.1, 0.2], 0.5, r"2 of the 2 rows are leavers"),
        ([], [], 0.5, r"0 of the 0 rows are leavers"),
        ([0, 1], [0.1], 0.5, r"labels have shape \(2,\) and scores \(1,\)"),
        ([[0, 1]], [[0.1, 0.2]], 0.5, r"both must be \[rows\]"),
        ([0, 1], [0.1, 0.2], 1.5, r"threshold is a probability"),
        ([0, 1], [0.1, 0.2], float("nan"), r"threshold is a probability"),
    ],
)
def test_impossible_input_is_refused(y: list[float], p: list[float], threshold: float, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        compute_metrics(y, p, threshold)


def test_directions() -> None:
    better = compute_metrics([0, 0, 1, 1] * 10, [0.1, 0.2, 0.8, 0.9] * 10, 0.5)
    worse = compute_metrics([0, 0, 1, 1] * 10, [0.6, 0.2, 0.3, 0.9] * 10, 0.5)
    for name in METRICS:
        gain = better[name] - worse[name]
        assert gain >= 0 if is_higher_better(name) else gain < 0, name
    assert {"log_loss", "brier", "calibration_error"} == LOWER_IS_BETTER
