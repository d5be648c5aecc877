"""What the search optimises: one number per set of scores, and the curve that training watches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.project import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CURVES = {
    Metric.ROC_AUC: "auc",
    Metric.AVERAGE_PRECISION: "aucpr",
    Metric.RECALL_AT_PRECISION: "aucpr",
    Metric.LOG_LOSS: "logloss",
}


def measure(metric: Metric, y: NDArray[Any], p: NDArray[Any], precision: float = 0.6) -> float:
    """Compute one metric of the scores.

    Args:
        metric: Which one.
        y: Labels 0 and 1, both present, shape [rows].
        p: Probabilities of 1, shape [rows].
        precision: For `recall_at_precision`: the lowest precision that counts.

    Returns:
        The metric. `recall_at_precision` is the largest recall over all thresholds whose precision is high
        enough, and 0 if none is.

    Raises:
        ValueError: One class only, or shapes that disagree.
    """
    from sklearn import metrics

    y = np.asarray(y, dtype=np.float64)
    p = np.asarray(p, dtype=np.float64)
    if y.shape != p.shape or y.ndim != 1:
        raise ValueError(f"labels have shape {y.shape}, scores {p.shape}; both must be [rows]")
    if not (y.size and (y == 0).any() and (y == 1).any()):
        raise ValueError("both classes must be present among the labels")
    if metric is Metric.ROC_AUC:
        return float(metrics.roc_auc_score(y, p))
    if metric is Metric.AVERAGE_PRECISION:
        return float(metrics.average_precision_score(y, p))
    if metric is Metric.LOG_LOSS:
        return float(metrics.log_loss(y, p, labels=[0.0, 1.0]))
    precisions, recalls, _ = metrics.precision_recall_curve(y, p)
    # The curve ends in a made-up point (precision 1, recall 0): it is the 0 of "no threshold will do".
    return float(recalls[precisions >= precision].max())


def name_curve(metric: Metric) -> str:
    """Return XGBoost's name of the metric that early stopping watches.

    Recall at a precision jumps from round to round, so the area under the same curve is watched instead.
    """
    return _CURVES[metric]
