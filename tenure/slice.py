"""Slices: the held-out rows in which a column has one value."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tenure.contract import Type
from tenure.metrics import Floats
from tenure.project import Project

if TYPE_CHECKING:
    import pandas as pd

MISSING = "(missing)"


def find_slices(frame: pd.DataFrame, project: Project) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Find the slices with at least `evaluation.min_slice_rows` rows.

    Slices are the values of each string and boolean feature (or of the columns that `evaluation.slices`
    names; a number among them is cut at its quartiles), rows without a value being a slice of their own.

    Returns:
        Column, value, and which rows have it (shape [rows]); in the contract's order, values sorted.
    """
    found: list[tuple[str, str, NDArray[np.bool_]]] = []
    wanted = project.evaluation.slices
    for column in project.contract.features:
        chosen = column.type in (Type.STRING, Type.BOOLEAN) if wanted is None else column.name in wanted
        if not chosen:
            continue
        series = frame[column.name]
        missing = series.isna().to_numpy(dtype=bool)
        groups: list[tuple[str, NDArray[np.bool_]]]
        if column.type is Type.STRING:
            cells = series.to_numpy(dtype=object)
            groups = [(str(value), cells == value) for value in sorted(set(cells[~missing]))]
        elif column.type is Type.BOOLEAN:
            truth = series.astype("boolean").to_numpy(dtype=bool, na_value=False)
            groups = [("false", ~missing & ~truth), ("true", ~missing & truth)]
        else:
            groups = _cut_quartiles(series.to_numpy(dtype=np.float64, na_value=np.nan))
        for value, mask in [*groups, (MISSING, missing)]:
            if mask.sum() >= project.evaluation.min_slice_rows:
                found.append((column.name, value, mask))
    return found


def _cut_quartiles(numbers: Floats) -> list[tuple[str, NDArray[np.bool_]]]:
    """Cut numbers at their quartiles; equal numbers stay together."""
    known = numbers[~np.isnan(numbers)]
    if len(known) == 0:
        return []
    edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75]))
    place = np.searchsorted(edges, numbers)  # NaN sorts last, and is taken out below
    words = [f"up to {edges[0]:g}"]
    words += [f"above {low:g}, up to {high:g}" for low, high in pairwise(edges)]
    words += [f"above {edges[-1]:g}"]
    return [(word, (place == index) & ~np.isnan(numbers)) for index, word in enumerate(words)]
