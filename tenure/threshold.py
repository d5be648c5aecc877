"""The score from which a customer counts as leaving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.project import Threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray


def choose_threshold(rule: Threshold, y: NDArray[Any], p: NDArray[Any]) -> float:
    """Choose the threshold on out-of-fold scores; a customer counts as leaving when p >= threshold.

    It lies half-way between two neighbouring scores, so that the last digit of a score decides nothing.

    Args:
        rule: `max_f1`: the threshold with the largest F1 (the highest of equals); `top_fraction`: the one
            that flags that share of the customers, or as many as equal scores allow below it; `fixed`.
        y: Labels 0 and 1, shape [rows].
        p: Calibrated probabilities, shape [rows].

    Returns:
        The threshold, from 0 to 1, rounded to 9 decimals unless fixed.
    """
    if rule.rule == "fixed":
        return float(rule.value or 0.0)
    order = np.argsort(-p, kind="stable")
    scores, labels = p[order], y[order]
    # A cut after place k (k customers flagged) is possible only where the score changes.
    cuts = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) + 1
    if rule.rule == "max_f1":
        hits = np.cumsum(labels)[cuts - 1]
        f1 = 2 * hits / (cuts + labels.sum())
        flagged = int(cuts[np.argmax(f1)])
    else:
        wanted = (rule.value or 0.0) * len(scores)
        fitting = cuts[cuts <= wanted + 1e-9]
        flagged = int(fitting[-1]) if fitting.size else 0
    upper = scores[flagged - 1] if flagged else 1.0
    lower = scores[flagged] if flagged < len(scores) else 0.0
    return round(float(upper + lower) / 2, 9)
