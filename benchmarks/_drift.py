"""What the drift benchmark draws from, and every test of a whole stream at once, computed from counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, kstwo

from tenure.drift.contingency import MIN_EXPECTED
from tenure.drift.reference import FAMILIES, Family, Reference, Sample, make_sample, name_kinds
from tenure.featuriser import encode_labels
from tenure.project import load_project
from tenure.snapshot import read_source
from tenure.training import train
from tenure.validation import validate_frame

ROOT = Path(__file__).resolve().parents[1]
IRRELEVANT = 0.01
BLOCK = 16  # windows that are compared at once, so that they stay in the cache


@dataclass(frozen=True)
class Population:
    """All customers: what references and windows are drawn from."""

    samples: dict[Family, Sample]
    kinds: dict[Family, Any]

    def draw(self, family: Family, rows: NDArray[np.intp]) -> Sample:
        whole = self.samples[family]
        columns = {name: values[rows] for name, values in whole.columns.items()}
        labels = None if whole.labels is None else whole.labels[rows]
        return Sample(columns, whole.scores[rows], labels)

    def refer(self, family: Family, rows: NDArray[np.intp]) -> Reference:
        return Reference(family, self.kinds[family], self.draw(family, rows))


@cache
def load_population() -> Population:
    """Read the customers and score each by a model that did not see it."""
    project = load_project(ROOT / "projects" / "telco.yaml")
    contract = project.contract
    training = project.training.model_copy(update={"trials": 1})
    good = validate_frame(read_source(Path(project.source.uri), None, contract), contract).good
    model = train(good, project.model_copy(update={"training": training}), threads=2)
    scores = model.calibrator.apply(model.search.margins)
    features = {column.name: good[column.name].to_numpy(dtype=object) for column in contract.features}
    labels = encode_labels(good, contract)
    return Population(
        {family: make_sample(features, scores, labels, contract, family) for family in FAMILIES},
        {family: name_kinds(contract, family) for family in FAMILIES},
    )


def test_stream(
    family: Family, column: str, known: NDArray[np.intp], rows: NDArray[np.intp], scales: Sequence[int]
) -> dict[int, NDArray[np.float64]]:
    """Return, for each scale, the p-value of every window together with the `scale - 1` before it.

    Numbers whose p-value is above `IRRELEVANT` have 1.
    """
    numeric, codes, sizes = encode_column(family, column)
    before = np.bincount(codes[known], minlength=sizes)
    places = codes[rows] + np.arange(len(rows))[:, None] * sizes
    counts = np.bincount(places.ravel(), minlength=len(rows) * sizes).reshape(-1, sizes).astype(np.int32)
    if numeric:
        np.cumsum(counts, axis=1, out=counts)
    total = np.zeros((len(rows) + 1, sizes), dtype=np.int32)
    np.cumsum(counts, axis=0, out=total[1:])
    test = compute_distance_p_values if numeric else compute_table_p_values
    return {scale: test(before, total, len(known), rows.shape[1], scale) for scale in scales}


def compute_distance_p_values(
    before: NDArray[np.intp], total: NDArray[np.int32], n: int, rows: int, scale: int
) -> NDArray[np.float64]:
    """Return KS p-values of many windows from running totals over values and windows."""
    m = scale * rows
    share = (np.cumsum(before) / n).astype(np.float32)
    distance = np.empty(len(total) - scale)
    for start in range(0, len(distance), BLOCK):
        stop = min(start + BLOCK, len(distance))
        gap = (total[start + scale : stop + scale] - total[start:stop]) * np.float32(1 / m)
        gap -= share
        distance[start:stop] = np.abs(gap, out=gap).max(axis=1)
    size = float(np.round(n * m / (n + m)))
    p_values = np.ones(len(distance))
    far = distance > find_distance(IRRELEVANT, size)  # the p-value takes long to compute
    p_values[far] = kstwo.sf(distance[far], size)
    return p_values


def compute_table_p_values(
    before: NDArray[np.intp], total: NDArray[np.int32], n: int, rows: int, scale: int
) -> NDArray[np.float64]:
    """Return chi-squared p-values of many windows; no category is rare enough here to be pooled."""
    m = scale * rows
    counts = total[scale:] - total[:-scale]
    totals = before + counts
    expected = totals * (m / (n + m))
    assert expected.min() >= MIN_EXPECTED
    gap = np.abs(counts - expected)
    if counts.shape[1] == 2:
        gap = np.maximum(gap - 0.5, 0)
    statistic = (gap**2 / expected + gap**2 / (totals - expected)).sum(axis=1)
    p_values: NDArray[np.float64] = chi2.sf(statistic, counts.shape[1] - 1)
    return p_values


@cache
def encode_column(family: Family, column: str) -> tuple[bool, NDArray[np.intp], int]:
    """Return whether a column is numeric, each customer's value as a rank, and how many values there are."""
    values = load_population().samples[family].columns[column]
    numeric = values.dtype == np.float64
    names, codes = np.unique(values if numeric else values.astype(str), return_inverse=True)
    return numeric, codes, len(names)


@cache
def find_distance(level: float, size: float) -> float:
    return float(kstwo.isf(level, size))
