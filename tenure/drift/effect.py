"""How large a difference is, whatever its significance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tenure.drift.contingency import count_both
from tenure.drift.reference import LABEL, PERFORMANCE, is_numeric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tenure.drift.reference import Reference, Sample
    from tenure.monitoring import Effect as Thresholds

Measure = Literal["psi", "l1", "share", "auc"]

BINS = 10
PRIOR = 0.5  # pseudo-count of each bin (Jeffreys), so that an empty one gives no infinite index


@dataclass(frozen=True, slots=True)
class Difference:
    """How much one column of a window differs from the reference.

    Attributes:
        measure: psi of numbers; l1 of categories; share: window minus reference, of those who left; auc:
            reference minus window, so that more is worse.
        value: Its size, in the measure's unit; 0 for a window where it is not defined.
        threshold: From which size on it is material.
    """

    measure: Measure
    value: float
    threshold: float

    @property
    def material(self) -> bool:
        """Whether it is large enough to matter; a better AUC never is."""
        size = self.value if self.measure == "auc" else abs(self.value)
        return size >= self.threshold


class Effects:
    """Measures windows against one reference.

    Args:
        reference: What windows are compared with.
        thresholds: The project's.
    """

    def __init__(self, reference: Reference, thresholds: Thresholds) -> None:
        self._reference = reference
        self._thresholds = thresholds
        self._edges = {name: choose_edges(values) for name, values in reference.sorted.items()}
        self._binned = {
            name: count_bins(reference.columns[name], edges) for name, edges in self._edges.items()
        }
        sample = reference.sample
        self._auc = None if sample.labels is None else compute_auc(sample.labels, sample.scores)

    def measure(self, column: str, sample: Sample) -> Difference:
        """Measure one column.

        Args:
            column: One of the reference's.
            sample: A window of the same columns.
        """
        thresholds = self._thresholds
        if column == LABEL and self._reference.family == "outcomes":
            return Difference("share", self._compare_shares(sample), thresholds.label)
        if column == PERFORMANCE and self._reference.family == "outcomes":
            return Difference("auc", self._compare_auc(sample), thresholds.auc)
        values = sample.columns[column]
        if is_numeric(values):
            psi = compute_psi(self._binned[column], count_bins(values, self._edges[column]))
            return Difference("psi", psi, thresholds.psi)
        _, table = count_both(self._reference.counts[column], values)
        return Difference("l1", compute_l1(table), thresholds.l1)

    def _compare_shares(self, sample: Sample) -> float:
        known, before = sample.labels, self._reference.sample.labels
        if known is None or before is None or not len(known):
            return 0.0
        return float(known.mean() - before.mean())

    def _compare_auc(self, sample: Sample) -> float:
        auc = None if sample.labels is None else compute_auc(sample.labels, sample.scores)
        return 0.0 if auc is None or self._auc is None else self._auc - auc


def choose_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Choose the borders of at most ten bins of equally many known numbers.

    A column of at most ten different numbers has a bin for each. Bins are closed above, the last is open.

    Args:
        values: The reference's numbers, ascending.

    Returns:
        Ascending borders, shape [bins - 1]; missing numbers have a bin of their own, see `count_bins`.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return np.empty(0)
    different = np.unique(known)
    if len(different) <= BINS:
        return different
    return np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf"))


def count_bins(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count numbers by bin, shape [1 + bins]; the first counts the missing."""
    known = values[np.isfinite(values)]
    counts = np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1)
    return np.concatenate([[len(values) - len(known)], counts]).astype(np.int64)


def compute_psi(reference: NDArray[np.int64], window: NDArray[np.int64]) -> float:
    """Return the population stability index of two rows of counts over the same bins.

    The sum of (q - p) log(q / p) over the bins: Kullback and Leibler's divergence, both ways (Jeffreys 1946);
    usual in credit scoring (Siddiqi 2006: from .1 on a population shifts, from .25 on much). Bins that are
    empty in both are left out. Chance alone gives about (bins - 1)(1/n + 1/m).

    Args:
        reference: Counts, shape [bins].
        window: Counts, shape [bins].
    """
    used = (reference > 0) | (window > 0)
    if not window.sum() or not reference.sum():
        return 0.0
    p = (reference[used] + PRIOR) / (reference.sum() + PRIOR * used.sum())
    q = (window[used] + PRIOR) / (window.sum() + PRIOR * used.sum())
    return float(((q - p) * np.log(q / p)).sum())


def compute_l1(table: NDArray[np.int64]) -> float:
    """Return the sum of the absolute differences of category shares, from 0 to 2.

    Args:
        table: Counts, shape [2, categories]: reference, window. A new category counts with all its share.
    """
    sizes = table.sum(axis=1, keepdims=True)
    if not sizes.all():
        return 0.0
    return float(np.abs(table[0] / sizes[0] - table[1] / sizes[1]).sum())


def compute_auc(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float | None:
    """Return the ROC-AUC by ranks (Mann and Whitney 1947), None if only one class occurs."""
    from scipy.stats import rankdata

    leavers = int(labels.sum())
    stayers = len(labels) - leavers
    if not leavers or not stayers:
        return None
    ranks = rankdata(scores)
    return float((ranks[labels == 1].sum() - leavers * (leavers + 1) / 2) / (leavers * stayers))
