"""How good the serving model really was, once outcomes are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from tenure.bootstrap import MIN_CLASS_ROWS, Interval, bootstrap_metrics
from tenure.errors import EvaluationError


class Performance(BaseModel):
    """What a model achieved on customers whose outcome is known.

    Attributes:
        rows: How many customers.
        leavers: How many of them left.
        metrics: Each metric of `tenure.metrics.METRICS` with its 95 % interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    leavers: int
    metrics: dict[str, Interval]


def measure_performance(
    scores: ArrayLike, labels: ArrayLike, threshold: float, *, resamples: int = 400, seed: int = 0
) -> Performance:
    """Measure a model on matured rows.

    Args:
        scores: Probabilities, shape [rows].
        labels: Outcomes, shape [rows]: 1 left, 0 stayed, NaN not known yet; such rows are left out.
        threshold: The probability from which a row counts as leaving.
        resamples: How many resamples the intervals rest on.
        seed: The same seed and rows give the same intervals.

    Raises:
        EvaluationError: Shapes differ, an outcome or score is impossible, or fewer than `MIN_CLASS_ROWS`
            customers of a class have matured.
    """
    p, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise EvaluationError(f"scores have shape {p.shape} and labels {y.shape}; both must be [rows]")
    known = ~np.isnan(y)
    p, y = p[known], y[known]
    leavers = int((y == 1).sum())
    if min(leavers, len(y) - leavers) < MIN_CLASS_ROWS:
        raise EvaluationError(
            f"{len(y)} customers have matured and {leavers} of them left: performance takes at least "
            f"{MIN_CLASS_ROWS} of each class; wait for more labels"
        )
    metrics = bootstrap_metrics(y, p, threshold, resamples=resamples, seed=seed)
    return Performance(rows=len(y), leavers=leavers, metrics=metrics)
