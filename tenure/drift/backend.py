"""The tests behind one method: a p-value for each column of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from tenure.drift.contingency import count_both, group_rare, sum_groups
from tenure.errors import DriftError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tenure.drift.reference import Reference, Sample


class Backend(Protocol):
    """Compares windows with one reference."""

    def test(self, sample: Sample) -> dict[str, float]:
        """Return a two-sample p-value for each column of the reference, in its order.

        Numbers: Kolmogorov and Smirnov's test, two-sided, asymptotic; ties make it conservative. Categories:
        the chi-squared test of homogeneity, rare ones pooled (`contingency.group_rare`), corrected for
        continuity in 2 x 2 tables (Yates 1934). A window without rows has only ones.

        Raises:
            DriftError: The window has other columns than the reference.
        """
        ...


class ScipyBackend:
    """The tests of scipy; thread-safe, keeps nothing between windows.

    Args:
        reference: What windows are compared with.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def test(self, sample: Sample) -> dict[str, float]:
        """See `Backend.test`."""
        reference = self._reference
        check_columns(reference, sample)
        if not sample.rows:
            return dict.fromkeys(reference.columns, 1.0)
        values: dict[str, float] = {}
        for name in reference.columns:
            if name in reference.sorted:
                distance = measure_distance(reference.sorted[name], sample.columns[name])
                values[name] = compute_distance_p(distance, reference.rows, sample.rows)
            else:
                _, table = count_both(reference.counts[name], sample.columns[name])
                values[name] = compute_table_p(sum_groups(table, group_rare(table)))
        return values


def check_columns(reference: Reference, sample: Sample) -> None:
    """Check that a window has the reference's columns.

    Raises:
        DriftError: It has others.
    """
    if list(sample.columns) != list(reference.columns):
        raise DriftError(
            f"the window has the columns {', '.join(sample.columns)}, "
            f"the reference {', '.join(reference.columns)}: make both with the same contract and family"
        )


def measure_distance(reference: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the largest distance of two empirical distribution functions.

    Args:
        reference: Ascending numbers.
        values: Numbers in any order, at least one.
    """
    window = np.sort(values)
    rows = len(window)
    # Between two rows of the window its own function is flat and the reference's grows, so the extremes lie
    # at a row (above) and just before one (below). Among tied rows the last and the first give the largest.
    upto = np.searchsorted(reference, window, side="right") / len(reference)
    before = np.searchsorted(reference, window, side="left") / len(reference)
    steps = np.arange(rows + 1) / rows
    return max(float((steps[1:] - upto).max()), float((before - steps[:-1]).max()), 0.0)


def compute_distance_p(distance: float, n: int, m: int) -> float:
    """Return the p-value of a distance of two samples of n and m rows.

    The one-sample distribution (Simard and L'Ecuyer 2011) at the effective size nm/(n+m), rounded, as
    scipy's `ks_2samp` and alibi-detect take it.
    """
    from scipy.stats import kstwo

    larger, smaller = max(n, m), min(n, m)
    size = max(1.0, np.round(larger * smaller / (larger + smaller)))
    return float(kstwo.sf(distance, size))


def compute_table_p(table: NDArray[np.int64]) -> float:
    """Return the p-value of homogeneity of the two rows of a table; 1 if it has only one column."""
    from scipy.stats import chi2_contingency

    if table.shape[1] == 1:
        return 1.0
    return float(chi2_contingency(table).pvalue)
