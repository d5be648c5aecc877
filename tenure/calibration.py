"""The calibrator: from the trees' margin to a probability that means what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.errors import BundleError, TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
MIN_SLOPE = 0.01  # a model worse than chance gets almost flat probabilities, never a reversed order
_MAX_STEPS = 100


def squash(z: NDArray[Any]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-z)) without overflow, for any shape."""
    z = np.asarray(z, dtype=np.float64)
    e = np.exp(-np.abs(z))
    p: NDArray[np.float64] = np.where(z >= 0, 1.0, e) / (1.0 + e)
    return p


@dataclass(frozen=True, slots=True)
class Calibrator:
    """Platt scaling on the logit: p = 1 / (1 + exp(-(slope * margin + intercept))), strictly increasing.

    Attributes:
        slope: Above 0, so that the order of customers never changes.
        intercept: In log-odds; it also repairs the prior that weighting the classes moved.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope > 0):
            raise ValueError(
                f"slope {self.slope} must be finite and above 0, intercept {self.intercept} finite"
            )

    @classmethod
    def fit(cls, margins: NDArray[Any], y: NDArray[Any]) -> Calibrator:
        """Fit on margins of rows that the trees were not trained on.

        The targets are Platt's smoothed ones and the steps Newton's with halving (Platt 1999; Lin, Lin and
        Weng 2007), so that perfectly separated classes still give a finite slope. A slope under `MIN_SLOPE`
        is raised to it and the intercept fitted again. Both numbers are rounded to 12 digits.

        Args:
            margins: Out-of-fold margins (log-odds), shape [rows].
            y: Labels 0 and 1, shape [rows].

        Raises:
            TrainingError: No rows, one class only, or margins that are not finite.
        """
        margins = np.asarray(margins, dtype=np.float64)
        y = np.asarray(y, dtype=np.float64)
        if margins.shape != y.shape or margins.ndim != 1:
            raise TrainingError(f"calibration: {margins.shape} margins for {y.shape} labels")
        positives, negatives = int((y == 1).sum()), int((y == 0).sum())
        if not positives or not negatives:
            raise TrainingError(
                f"calibration: {positives} customers left and {negatives} stayed, both are needed"
            )
        if not np.isfinite(margins).all():
            raise TrainingError("calibration: a margin is not finite")
        targets = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
        # Newton is run on standardised margins, where both parameters have the same scale.
        center = float(margins.mean())
        scale = float(margins.std()) or 1.0
        x = (margins - center) / scale
        a, b = _descend(x, targets, None)
        if a / scale < MIN_SLOPE:
            a, b = _descend(x, targets, MIN_SLOPE * scale)
        slope, intercept = a / scale, b - a * center / scale
        return cls(_round(max(slope, MIN_SLOPE)), _round(intercept))

    def apply(self, margins: NDArray[Any]) -> NDArray[np.float64]:
        """Return probabilities for margins of any shape."""
        return squash(np.asarray(margins, dtype=np.float64) * self.slope + self.intercept)

    def to_document(self) -> dict[str, Any]:
        """Return the calibrator as plain JSON values."""
        return {"format": FORMAT, "method": "platt", "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Calibrator:
        """Rebuild a calibrator from `to_document`.

        Raises:
            BundleError: The document has another format or holds impossible numbers.
        """
        if document.get("format") != FORMAT or document.get("method") != "platt":
            raise BundleError(
                f"calibrator: format {document.get('format')!r}, method {document.get('method')!r}, but this "
                f"version reads {FORMAT} and 'platt': train again"
            )
        try:
            return cls(float(document["slope"]), float(document["intercept"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"calibrator: the document is malformed ({error!r})") from error


def _descend(
    x: NDArray[np.float64], targets: NDArray[np.float64], fixed_slope: float | None
) -> tuple[float, float]:
    """Minimise the log-loss of a * x + b by Newton's method; `fixed_slope` leaves only b free."""
    share = float(targets.mean())
    a = 0.0 if fixed_slope is None else fixed_slope
    b = math.log(share / (1 - share))
    loss = _sum_loss(a * x + b, targets)
    for _ in range(_MAX_STEPS):
        p = squash(a * x + b)
        residual, weight = p - targets, p * (1 - p)
        gradient_b, curve_bb = float(residual.sum()), float(weight.sum()) + 1e-12
        if fixed_slope is None:
            gradient_a = float((residual * x).sum())
            curve_aa, curve_ab = float((weight * x * x).sum()) + 1e-12, float((weight * x).sum())
            determinant = curve_aa * curve_bb - curve_ab * curve_ab
            step_a = (curve_bb * gradient_a - curve_ab * gradient_b) / determinant
            step_b = (curve_aa * gradient_b - curve_ab * gradient_a) / determinant
        else:
            gradient_a, step_a, step_b = 0.0, 0.0, gradient_b / curve_bb
        if max(abs(gradient_a), abs(gradient_b)) < 1e-10 * len(x):
            break
        length = 1.0
        while length > 1e-10:
            trial = _sum_loss((a - length * step_a) * x + b - length * step_b, targets)
            if trial < loss:
                break
            length /= 2
        else:
            break  # no step goes further down: this is the minimum, to the last digit
        a, b, loss = a - length * step_a, b - length * step_b, trial
    return a, b


def _sum_loss(z: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """Return the summed log-loss of log-odds `z`."""
    return float((np.logaddexp(0.0, z) - targets * z).sum())


def _round(value: float) -> float:
    """Keep 12 significant digits: the rest is the noise of summation."""
    return float(f"{value:.12g}")
