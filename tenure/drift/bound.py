"""p-values that hold in the far tail, where the usual approximations do not.

A test that is repeated for months works at levels of 1e-7 and less. There the chi-squared distribution says
1e-7 where chance gives 5e-6 (5 % of the rows in a category, a window of 300), and Kolmogorov's with a rounded
size may say a quarter too little. These bounds hold at every level; a finding needs both them and the test.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def bound_distance(distance: float, n: int, m: int) -> float:
    """Bound the chance of so large a distance of two samples of n and m rows of the same distribution.

    Dvoretzky, Kiefer and Wolfowitz' inequality for two samples with Massart's constant (Wei and Dudley 2012).
    """
    return min(1.0, 2 * math.exp(-2 * distance**2 * n * m / (n + m)))


def bound_table(table: NDArray[np.int64]) -> float:
    """Bound the chance of so uneven a table: Fisher's exact test of each category, times the categories.

    Given the totals, a category's count in the window is hypergeometric whatever its share is (Fisher 1935);
    two sides and all categories are allowed for by Bonferroni's inequality. Sparse tables need no pooling.

    Args:
        table: Counts, shape [2, categories]: reference, window.
    """
    from scipy.stats import hypergeom

    categories = table.shape[1]
    if categories < 2:
        return 1.0
    total, window = int(table.sum()), int(table[1].sum())
    totals, counts = table.sum(axis=0), table[1]
    above = hypergeom.sf(counts - 1, total, totals, window)
    below = hypergeom.cdf(counts, total, totals, window)
    # In a table of two columns both say the same.
    tests = 1 if categories == 2 else categories
    return min(1.0, 2 * tests * float(np.minimum(above, below).min()))
