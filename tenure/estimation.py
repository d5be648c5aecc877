"""How good a model must be if its probabilities are right: performance before any label has come.

Confidence-based performance estimation (CBPE; Bialek, Kuberski, Perrakis and Bifet 2024, "Estimating Model
Performance Under Covariate Shift Without Labels"): a customer scored p is a leaver with weight p and a stayer
with weight 1 - p, and every metric is computed on these weighted rows. It follows customers who change
(covariate drift) as far as the model stays calibrated on them. It cannot see that the same customers now
leave for other reasons (concept drift): the scores do not change then, and neither does the estimate. That is
what labels are for (`tenure.performance`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from tenure.bootstrap import Interval
from tenure.errors import EvaluationError
from tenure.metrics import Floats, Ranking

MIN_ROWS = 50
MIN_EXPECTED = 1.0
"""Leavers, and stayers, that the scores must expect among the rows."""

_METRICS = ("roc_auc", "log_loss", "brier", "precision", "recall")
_CELLS = 1 << 18


class Estimate(BaseModel):
    """What a model's metrics should be on customers whose outcome is not known yet.

    Attributes:
        rows: How many customers.
        roc_auc: Expected ROC-AUC.
        log_loss: Expected log-loss.
        brier: Expected Brier score.
        precision: Expected share of leavers among the flagged; 0 if nobody is flagged.
        recall: Expected share of flagged customers among the leavers.
        churn_rate: Expected share of leavers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    roc_auc: Interval
    log_loss: Interval
    brier: Interval
    precision: Interval
    recall: Interval
    churn_rate: Interval


def estimate_performance(scores: ArrayLike, threshold: float, seed: int, resamples: int = 400) -> Estimate:
    """Estimate a model's performance from its calibrated scores alone.

    The intervals (95 %) hold what the metrics of such a window will turn out to be once its labels are known:
    each resample draws customers with replacement and lets each leave with the probability of its score.

    Args:
        scores: Calibrated probabilities, shape [rows].
        threshold: The probability from which a row counts as leaving.
        seed: The same seed and scores give the same estimate.
        resamples: How many resamples the intervals rest on.

    Raises:
        EvaluationError: Fewer than `MIN_ROWS` rows, a score that is no probability, or scores by which
            practically all customers stay, or leave.
    """
    p = np.asarray(scores, dtype=np.float64)
    rows = len(p) if p.ndim == 1 else 0
    if rows < MIN_ROWS:
        raise EvaluationError(
            f"{p.shape} scores: an estimate of performance takes {MIN_ROWS} or more in one row: wait"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise EvaluationError("a score is not a probability in [0, 1]; the model or its calibrator is broken")
    if min(p.sum(), (1 - p).sum()) < MIN_EXPECTED:
        raise EvaluationError(
            f"by their scores {p.sum():.2f} of {rows} customers leave: nothing is defined on one class"
        )
    # Row i is there twice: as a leaver, and (rows + i) as a stayer.
    ranking = Ranking(np.repeat([1.0, 0.0], rows), np.tile(p, 2), threshold)
    weights = np.concatenate([p, 1 - p])[:, None]
    values = dict(zip(_METRICS, ranking.measure(weights, _METRICS)[:, 0], strict=True))
    values["roc_auc"] = _exclude_self(float(values["roc_auc"]), p)
    draws = np.concatenate(
        [
            np.vstack([ranking.measure(counts, _METRICS), counts[:rows].sum(axis=0) / rows])
            for counts in _draw_counts(p, resamples, seed)
        ],
        axis=1,
    )
    values["churn_rate"] = p.mean()
    return Estimate(
        rows=rows,
        **{
            name: _summarise(name, float(values[name]), draws[index])
            for index, name in enumerate((*_METRICS, "churn_rate"))
        },
    )


def _exclude_self(area: float, p: Floats) -> float:
    """Take out of a weighted ROC-AUC that each customer is also paired with himself (as a tie)."""
    own = float((p * (1 - p)).sum())
    pairs = float(p.sum() * (1 - p).sum())
    return (area * pairs - own / 2) / (pairs - own) if pairs - own > 1e-9 else area


def _draw_counts(p: Floats, resamples: int, seed: int) -> list[Floats]:
    """Draw customers and their outcomes; how often each (customer, outcome) came, [2 x rows, some]."""
    generator = np.random.default_rng(seed)
    rows, blocks = len(p), []
    size = max(1, _CELLS // (2 * rows))
    for start in range(0, resamples, size):
        counts = np.empty((min(size, resamples - start), 2 * rows))
        for row in counts:
            drawn = generator.integers(0, rows, size=rows)
            stays = generator.random(rows) >= p[drawn]
            row[:] = np.bincount(drawn + rows * stays, minlength=2 * rows)
        blocks.append(np.ascontiguousarray(counts.T))
    return blocks


def _summarise(name: str, value: float, draws: Floats) -> Interval:
    defined = draws[~np.isnan(draws)]
    if 2 * len(defined) < len(draws):
        raise EvaluationError(f"{name}: most resamples hold one class only; wait for more customers")
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(value=value, low=min(value, float(low)), high=max(value, float(high)))
