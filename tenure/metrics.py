"""How good a model's scores are: eleven metrics, for the rows as they are or for many resamples at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tenure.errors import EvaluationError

METRICS = (
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "calibration_error",
    "f1",
    "recall",
    "precision",
    "recall_top_decile",
    "lift_top_decile",
    "recall_at_precision",
)
"""Every metric's name, in the order in which reports show them."""

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error"})
CALIBRATION_BINS = 10
CALIBRATION_NOISE = "calibration_noise"  # not a metric: what the interval of calibration_error is made from
TOP_SHARE = 0.1

Floats = NDArray[np.float64]


def is_higher_better(metric: str) -> bool:
    """Whether a larger value of `metric` is the better one."""
    return metric not in LOWER_IS_BETTER


def compute_metrics(y: ArrayLike, p: ArrayLike, threshold: float, precision: float = 0.6) -> dict[str, float]:
    """Compute every metric of `METRICS`.

    - `roc_auc`: share of (leaver, stayer) pairs that the scores put in the right order, ties counting half.
    - `average_precision`: sum over the distinct scores of (gain in recall) x precision.
    - `log_loss`, `brier`: mean over rows; for the log, scores of 0 or 1 are clipped by one float64 epsilon.
    - `calibration_error`: mean |mean score - share of leavers| over at most ten bins with equally many rows,
      weighted by rows (the expected calibration error with quantile bins).
    - `f1`, `recall`, `precision`: for `score >= threshold`; precision and f1 are 0 when nobody is predicted
      to leave.
    - `recall_top_decile`: share of the leavers among the tenth of the rows with the highest scores; rows tied
      across the border count by their share. `lift_top_decile` is that divided by 0.1.
    - `recall_at_precision`: highest recall of any threshold whose precision is at least `precision`, else 0.

    Args:
        y: Labels 0 or 1, shape [rows]; both must occur.
        p: Probabilities in [0, 1], shape [rows].
        threshold: The probability from which a row counts as leaving.
        precision: The precision that `recall_at_precision` asks for.

    Raises:
        EvaluationError: Lengths differ, a label or probability is impossible, or only one class occurs.
    """
    ranking = Ranking(y, p, threshold, precision)
    values = ranking.measure(np.ones((ranking.rows, 1)))
    return {name: float(value) for name, value in zip(METRICS, values[:, 0], strict=True)}


class Ranking:
    """One model's scores on one set of rows, sorted once so that many resamples can be measured quickly.

    A resample is a column of counts: how often it holds each row. Every metric is a sum over rows weighted by
    these counts, so that no resample is ever sorted. The calibration bins are those of the rows themselves.

    Args:
        y: Labels 0 or 1, shape [rows]; both must occur.
        p: Probabilities in [0, 1], shape [rows].
        threshold: The probability from which a row counts as leaving.
        precision: The precision that `recall_at_precision` asks for.

    Raises:
        EvaluationError: As `compute_metrics` does.
    """

    def __init__(self, y: ArrayLike, p: ArrayLike, threshold: float, precision: float = 0.6) -> None:
        labels, scores = check_scores(y, p)
        if not 0 <= threshold <= 1:
            raise EvaluationError(f"the threshold is a probability in [0, 1], not {threshold}")
        self.rows = len(labels)
        self._precision = precision
        self._order = np.argsort(-scores, kind="stable")
        self._y = labels[self._order]
        self._p = scores[self._order]
        self._leaver = np.flatnonzero(self._y == 1)
        changed = np.diff(self._p, prepend=np.inf) != 0
        self._starts = np.flatnonzero(changed)
        self._group = np.cumsum(changed) - 1
        self._flagged = int(np.searchsorted(-self._p, -threshold, side="right"))
        # Bins hold neighbours in the order of scores, so a bin is a run of rows: here each run's first row.
        self._bins = np.flatnonzero(np.diff(assign_bins(self._p), prepend=-1))

    def measure(self, counts: Floats, names: Sequence[str] = METRICS) -> Floats:
        """Measure every resample.

        Args:
            counts: How often each resample holds each row, shape [rows, resamples], in the rows' own order.
            names: Which metrics.

        Returns:
            Array of shape [metrics, resamples]. NaN where a metric is not defined: a resample without leavers
            has no recall of any kind, no f1 and no average precision; one with a single class no ROC-AUC.
        """
        view = _Resamples(self, counts)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([_MEASURES[name](view) for name in names])


class _Resamples:
    """A block of resamples seen through one ranking; what several metrics need is computed once."""

    def __init__(self, ranking: Ranking, counts: Floats) -> None:
        self.ranking = ranking
        self.counts = counts[ranking._order]
        self.leaving = self.counts[ranking._leaver]
        self.total = self.counts.sum(axis=0)
        self.leavers = self.leaving.sum(axis=0)
        self._curve: tuple[Floats, Floats] | None = None

    @property
    def curve(self) -> tuple[Floats, Floats]:
        """Leavers and rows down to each distinct score, highest first, each [scores, resamples]."""
        if self._curve is None:
            ranking = self.ranking
            hits = self.counts * ranking._y[:, None]
            self._curve = self._accumulate(hits), self._accumulate(self.counts)
        return self._curve

    def _accumulate(self, weights: Floats) -> Floats:
        starts = self.ranking._starts
        groups = weights if len(starts) == len(weights) else np.add.reduceat(weights, starts, axis=0)
        summed: Floats = np.cumsum(groups, axis=0)
        return summed

    def mean(self, values: Floats) -> Floats:
        """Mean of a value per (sorted) row over each resample."""
        result: Floats = (values @ self.counts) / self.total
        return result

    @property
    def excess(self) -> Floats:
        """Per calibration bin the sum of (score - label) over all rows, shape [bins, resamples]."""
        ranking = self.ranking
        weighted = (ranking._p - ranking._y)[:, None] * self.counts
        result: Floats = np.add.reduceat(weighted, ranking._bins, axis=0) / self.total
        return result

    @property
    def at_threshold(self) -> tuple[Floats, Floats]:
        """Leavers caught and rows flagged at the model's threshold, each [resamples]."""
        ranking = self.ranking
        caught = int(np.searchsorted(ranking._leaver, ranking._flagged))
        return self.leaving[:caught].sum(axis=0), self.counts[: ranking._flagged].sum(axis=0)


def _measure_roc_auc(view: _Resamples) -> Floats:
    """Count, for each leaver, the stayers ranked below it (Mann-Whitney U over the number of pairs)."""
    ranking = view.ranking
    staying = view.counts.copy()
    staying[ranking._leaver] = 0
    above = view._accumulate(staying)
    stayers = above[-1]
    # Stayers strictly above plus half of the tied ones: the mean of the totals before and after the group.
    half = above.copy()
    half[1:] += above[:-1]
    group = ranking._group[ranking._leaver]
    lost = np.einsum("ij,ij->j", view.leaving, half[group]) / 2
    result: Floats = 1 - lost / (view.leavers * stayers)
    return result


def _measure_average_precision(view: _Resamples) -> Floats:
    caught, flagged = view.curve
    share = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
    gain = np.diff(caught, axis=0, prepend=0)
    result: Floats = np.einsum("ij,ij->j", gain, share) / view.leavers
    return result


def _measure_log_loss(view: _Resamples) -> Floats:
    ranking = view.ranking
    epsilon = np.finfo(np.float64).eps
    p = np.clip(ranking._p, epsilon, 1 - epsilon)
    return view.mean(-np.log(np.where(ranking._y == 1, p, 1 - p)))


def _measure_brier(view: _Resamples) -> Floats:
    return view.mean((view.ranking._p - view.ranking._y) ** 2)


def _measure_calibration_error(view: _Resamples) -> Floats:
    result: Floats = np.abs(view.excess).sum(axis=0)
    return result


def _measure_calibration_noise(view: _Resamples) -> Floats:
    """How far resampling moves the bins: at least as far as the calibration error (triangle inequality)."""
    ranking = view.ranking
    own = np.add.reduceat(ranking._p - ranking._y, ranking._bins)[:, None] / ranking.rows
    result: Floats = np.abs(view.excess - own).sum(axis=0)
    return result


def _measure_f1(view: _Resamples) -> Floats:
    caught, flagged = view.at_threshold
    # Without leavers f1 is as undefined as recall is.
    return np.where(view.leavers > 0, 2 * caught / (flagged + view.leavers), np.nan)


def _measure_recall(view: _Resamples) -> Floats:
    caught, _ = view.at_threshold
    result: Floats = caught / view.leavers
    return result


def _measure_precision(view: _Resamples) -> Floats:
    caught, flagged = view.at_threshold
    return np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)


def _measure_recall_top_decile(view: _Resamples) -> Floats:
    """Read the cumulative gains curve at a tenth of the rows, linear between distinct scores."""
    caught, flagged = view.curve
    wanted = TOP_SHARE * view.total
    last = np.argmax(flagged >= wanted, axis=0)
    column = np.arange(flagged.shape[1])
    before = np.maximum(last - 1, 0)
    flagged_before = np.where(last > 0, flagged[before, column], 0)
    caught_before = np.where(last > 0, caught[before, column], 0)
    share = (wanted - flagged_before) / (flagged[last, column] - flagged_before)
    result: Floats = (caught_before + share * (caught[last, column] - caught_before)) / view.leavers
    return result


def _measure_lift_top_decile(view: _Resamples) -> Floats:
    return _measure_recall_top_decile(view) / TOP_SHARE


def _measure_recall_at_precision(view: _Resamples) -> Floats:
    caught, flagged = view.curve
    share = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
    best = np.where(share >= view.ranking._precision, caught, 0).max(axis=0)
    result: Floats = best / view.leavers
    return result


_MEASURES: dict[str, Callable[[_Resamples], Floats]] = {
    "roc_auc": _measure_roc_auc,
    "average_precision": _measure_average_precision,
    "log_loss": _measure_log_loss,
    "brier": _measure_brier,
    "calibration_error": _measure_calibration_error,
    CALIBRATION_NOISE: _measure_calibration_noise,
    "f1": _measure_f1,
    "recall": _measure_recall,
    "precision": _measure_precision,
    "recall_top_decile": _measure_recall_top_decile,
    "lift_top_decile": _measure_lift_top_decile,
    "recall_at_precision": _measure_recall_at_precision,
}


def assign_bins(p: Floats) -> NDArray[np.intp]:
    """Put each probability into one of at most ten bins of equally many rows; tied rows share a bin.

    Returns:
        Bin number per row, shape [rows]; bins that ties leave empty are skipped.
    """
    edges = np.quantile(p, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1])
    return np.searchsorted(edges, p)


def check_scores(y: ArrayLike, p: ArrayLike, *, name: str = "model") -> tuple[Floats, Floats]:
    """Return labels and probabilities as float64 arrays that every metric is defined for.

    Args:
        y: Labels 0 or 1, shape [rows].
        p: Probabilities, shape [rows].
        name: Whose probabilities they are, for the message.

    Raises:
        EvaluationError: Lengths differ, a label is not 0 or 1, a probability is NaN or outside [0, 1], or
            only one class occurs.
    """
    labels, scores = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or scores.shape != labels.shape:
        raise EvaluationError(
            f"{name}: labels have shape {labels.shape} and scores {scores.shape}; both must be [rows]"
        )
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong):
        raise EvaluationError(
            f"{len(wrong)} of {len(labels)} labels are not 0 or 1 (first: {labels[wrong[0]]} in row "
            f"{wrong[0]}); judge on labelled rows only"
        )
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if len(wrong):
        raise EvaluationError(
            f"{name}: {len(wrong)} of {len(scores)} scores are not probabilities "
            f"(first: {scores[wrong[0]]} in row {wrong[0]}); the model or its calibrator is broken"
        )
    leavers = int(labels.sum())
    if leavers in (0, len(labels)):
        raise EvaluationError(
            f"{leavers} of the {len(labels)} rows are leavers; judging a model takes rows of both classes"
        )
    return labels, scores
