"""Tables of categories: reference and window counted side by side, rare categories pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.drift.reference import count_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_EXPECTED = 5.0
"""The least expected count of a cell for the chi-squared approximation (Cochran 1954)."""


def count_both(
    reference: Mapping[str, int], values: NDArray[Any]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Count a window's categories beside the reference's.

    Args:
        reference: Category -> count.
        values: The window's categories, shape [rows].

    Returns:
        All categories that occur in either, and their counts, shape [2, categories]: reference, window.
    """
    window = count_values(values)
    names = tuple(sorted({*reference, *window}))
    table = np.array(
        [[reference.get(name, 0) for name in names], [window.get(name, 0) for name in names]], dtype=np.int64
    )
    return names, table


def group_rare(table: NDArray[np.int64]) -> NDArray[np.intp]:
    """Say which categories are taken together so that every expected count is at least `MIN_EXPECTED`.

    Only the totals of both rows decide. They are the same for every way in which the rows could have been
    dealt to reference and window, so the choice does not favour any outcome of the test.

    Args:
        table: Counts, shape [2, categories], each category with at least one row.

    Returns:
        Group of each category, shape [categories], numbered from 0; one single group if the table is too
        small for any other.
    """
    totals = table.sum(axis=0)
    sizes = table.sum(axis=1)
    needed = MIN_EXPECTED * sizes.sum() / max(int(sizes.min()), 1)
    order = np.argsort(totals, kind="stable")
    # The rare ones, and then further ones, smallest first, until what was pooled is large enough itself.
    reached = np.cumsum(totals[order])
    rare = int(np.searchsorted(totals[order], needed))
    pooled = 0 if rare == 0 else max(rare, int(np.searchsorted(reached, needed)) + 1)
    groups = np.zeros(len(totals), dtype=np.intp)
    start = 1 if pooled else 0
    kept = np.sort(order[min(pooled, len(order)) :])
    groups[kept] = np.arange(start, start + len(kept))
    return groups


def sum_groups(table: NDArray[np.int64], groups: NDArray[np.intp]) -> NDArray[np.int64]:
    """Add up the columns of each group, shape [2, groups]."""
    size = int(groups.max()) + 1
    summed = np.stack([np.bincount(groups, weights=row, minlength=size) for row in table])
    return summed.astype(np.int64)


def encode_groups(
    values: NDArray[Any], names: Sequence[str], groups: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the group of each row's category as a float, shape [rows]."""
    codes = dict(zip(names, groups.tolist(), strict=True))
    return np.fromiter((codes[value] for value in values), np.float64, len(values))
