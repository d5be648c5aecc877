"""Bounds hold where approximations do not: in the far tail, and in sparse tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact, hypergeom, ks_2samp

from tenure.drift.backend import compute_table_p
from tenure.drift.bound import bound_distance, bound_table


@pytest.mark.parametrize(("n", "m"), [(500, 50), (500, 500), (2000, 300), (4225, 300), (4225, 1200)])
@pytest.mark.parametrize("level", [1e-3, 1e-6, 1e-9])
def test_distances_are_rarer_than_their_bound(n: int, m: int, level: float) -> None:
    distance = float(np.sqrt(np.log(2 / level) / 2 * (n + m) / (n * m)))
    # Two samples exactly so far apart: the window lies in the reference's upper part.
    reference = np.arange(n, dtype=float)
    window = np.linspace(distance * n, n, m, endpoint=False)
    exact = ks_2samp(reference, window, method="exact")
    assert exact.pvalue <= bound_distance(exact.statistic, n, m) * (1 + 1e-9)


def test_bounds_of_distances() -> None:
    assert bound_distance(0, 10, 10) == 1
    assert bound_distance(0.3, 1000, 1000) == pytest.approx(2 * np.exp(-90))


@pytest.mark.parametrize(("n", "m"), [(4225, 300), (4225, 4800), (500, 500)])
@pytest.mark.parametrize("share", [0.002, 0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("level", [1e-3, 1e-6, 1e-9])
def test_tables_are_rarer_than_their_bound(n: int, m: int, share: float, level: float) -> None:
    total = int((n + m) * share)
    counts = np.arange(max(0, total - n), min(total, m) + 1)
    # Within two and a half standard deviations no bound is near a level.
    middle, deviation = hypergeom.stats(n + m, total, m)
    counts = counts[np.abs(counts - middle) > 2.5 * np.sqrt(deviation)]
    counts = counts[hypergeom.pmf(counts, n + m, total, m) > 1e-25]
    chance = hypergeom.pmf(counts, n + m, total, m)
    bounds = np.array([bound_table(make_table(n, m, total, int(count))) for count in counts])
    assert chance[bounds <= level].sum() <= level * (1 + 1e-9)


def test_chi_squared_alone_is_not_enough() -> None:
    """Why there is a bound: 5 % of the rows in a category, a window of 300, a level of 1e-7."""
    n, m, total = 4225, 300, 226
    counts = np.arange(total + 1)
    chance = hypergeom.pmf(counts, n + m, total, m)
    p_values = np.array([compute_table_p(make_table(n, m, total, int(count))) for count in counts])
    assert chance[p_values <= 1e-7].sum() > 5e-7


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4))
def test_two_categories_are_fishers(cells: list[int]) -> None:
    table = np.array(cells, dtype=np.int64).reshape(2, 2)
    if (table.sum(axis=1) == 0).any():
        return
    sides = [fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
    assert bound_table(table) == pytest.approx(min(1, 2 * min(sides)), rel=1e-6, abs=1e-14)


def test_one_category_says_nothing() -> None:
    assert bound_table(np.array([[10], [3]])) == 1


def test_a_new_category_is_seen() -> None:
    assert bound_table(np.array([[4000, 0], [270, 30]])) < 1e-30


def make_table(n: int, m: int, total: int, count: int) -> Any:
    return np.array([[n - (total - count), total - count], [m - count, count]], dtype=np.int64)
