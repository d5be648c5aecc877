"""What plots of one model are drawn from: ROC, precision-recall, confusion, calibration, histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tenure.metrics import Floats, assign_bins

MAX_CURVE_POINTS = 200
HISTOGRAM_BINS = 20


class Record(BaseModel):
    """Base of a report's parts: immutable, finite numbers only, the same after a trip through JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RocCurve(Record):
    """True against false positive rate, from the highest threshold down; lists of one length, at most 200."""

    fpr: list[float]
    tpr: list[float]
    thresholds: list[float]


class PrecisionRecallCurve(Record):
    """Precision against recall, from the highest threshold down; lists of one length, at most 200."""

    recall: list[float]
    precision: list[float]
    thresholds: list[float]


class Confusion(Record):
    """How many rows were predicted to leave or stay, and did, at `threshold`."""

    threshold: float
    true_negatives: int
    false_positives: int
    false_negatives: int
    true_positives: int

    def to_matrix(self) -> list[list[int]]:
        """Return [[TN, FP], [FN, TP]]: a row per truth, a column per prediction, staying first."""
        return [[self.true_negatives, self.false_positives], [self.false_negatives, self.true_positives]]


class CalibrationBin(Record):
    """Rows with neighbouring scores: their mean score and the share that left."""

    rows: int
    score: float
    share: float


class Histogram(Record):
    """Rows per score, leavers and stayers apart; one more edge than counts."""

    edges: list[float]
    leavers: list[int]
    stayers: list[int]


def trace_roc(y: Floats, p: Floats) -> RocCurve:
    """Trace the ROC curve: a point per distinct score, thinned to at most 200 that keep its shape.

    The first point (nobody predicted to leave) has threshold 1, as an infinite one is not JSON.
    """
    thresholds, caught, flagged = _accumulate(y, p)
    tpr, fpr = caught / caught[-1], (flagged - caught) / (len(y) - caught[-1])
    kept = _thin(fpr, tpr)
    return RocCurve(fpr=fpr[kept].tolist(), tpr=tpr[kept].tolist(), thresholds=thresholds[kept].tolist())


def trace_precision_recall(y: Floats, p: Floats) -> PrecisionRecallCurve:
    """Trace the precision-recall curve: a point per distinct score, thinned to at most 200.

    The first point (nobody predicted to leave) takes the precision of the second, and threshold 1.
    """
    thresholds, caught, flagged = _accumulate(y, p)
    recall = caught / caught[-1]
    precision = np.append(caught[1] / flagged[1], caught[1:] / flagged[1:])
    kept = _thin(recall, precision)
    return PrecisionRecallCurve(
        recall=recall[kept].tolist(), precision=precision[kept].tolist(), thresholds=thresholds[kept].tolist()
    )


def _accumulate(y: Floats, p: Floats) -> tuple[Floats, Floats, Floats]:
    """Return thresholds (highest first), leavers caught and rows flagged at each; first nobody."""
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    last_of_ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    caught = np.cumsum(y[order])[last_of_ties]
    flagged = last_of_ties + 1.0
    return np.append(1.0, ranked[last_of_ties]), np.append(0.0, caught), np.append(0.0, flagged)


def _thin(x: Floats, y: Floats) -> NDArray[np.intp]:
    """Choose at most 200 points, both ends among them, at about equal steps along the curve."""
    if len(x) <= MAX_CURVE_POINTS:
        return np.arange(len(x))
    travelled = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    stops = np.linspace(0, travelled[-1], MAX_CURVE_POINTS)
    chosen = np.searchsorted(travelled, stops)
    chosen[0], chosen[-1] = 0, len(x) - 1
    return np.unique(chosen)


def count_confusion(y: Floats, p: Floats, threshold: float) -> Confusion:
    """Count predictions (`p >= threshold` leaves) against the truth."""
    flagged, left = p >= threshold, y == 1
    return Confusion(
        threshold=float(threshold),
        true_negatives=int((~flagged & ~left).sum()),
        false_positives=int((flagged & ~left).sum()),
        false_negatives=int((~flagged & left).sum()),
        true_positives=int((flagged & left).sum()),
    )


def bin_calibration(y: Floats, p: Floats) -> list[CalibrationBin]:
    """Compare mean score and share of leavers in the bins of `calibration_error`, lowest scores first."""
    bins = assign_bins(p)
    return [
        CalibrationBin(
            rows=int((bins == index).sum()),
            score=float(p[bins == index].mean()),
            share=float(y[bins == index].mean()),
        )
        for index in np.unique(bins)
    ]


def count_scores(y: Floats, p: Floats) -> Histogram:
    """Count leavers and stayers per score, in twenty equal steps from 0 to 1."""
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    return Histogram(
        edges=edges.tolist(),
        leavers=np.histogram(p[y == 1], edges)[0].tolist(),
        stayers=np.histogram(p[y == 0], edges)[0].tolist(),
    )
