"""The p-values are those of the textbook tests, with ties, rare categories and missing values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, ks_2samp

from tenure.contract import Contract
from tenure.drift.backend import ScipyBackend, compute_distance_p, compute_table_p, measure_distance
from tenure.drift.bound import bound_distance
from tenure.drift.contingency import MIN_EXPECTED, count_both, encode_groups, group_rare, sum_groups
from tenure.drift.reference import Reference, Sample
from tenure.errors import DriftError

few = st.integers(-3, 3).map(float) | st.just(-np.inf)
tables = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60)), min_size=1, max_size=12).map(
    lambda pairs: np.array([pair for pair in pairs if sum(pair)] or [(1, 1)], dtype=np.int64).T
)


@settings(max_examples=50)
@given(st.lists(few, min_size=2, max_size=60), st.lists(few, min_size=1, max_size=60))
def test_distance_is_scipys(reference: list[float], window: list[float]) -> None:
    expected = ks_2samp(reference, window, method="asymp")
    distance = measure_distance(np.sort(reference), np.array(window))
    assert distance == pytest.approx(expected.statistic, abs=1e-12)
    assert compute_distance_p(distance, len(reference), len(window)) == pytest.approx(
        expected.pvalue, rel=1e-9
    )


def test_p_values_are_scipys(
    make_reference: Callable[..., Reference],
    make_frame: Callable[..., pd.DataFrame],
    make_window: Callable[..., Sample],
) -> None:
    reference = make_reference()
    window = make_window(make_frame(300, seed=1))
    found = ScipyBackend(reference).test(window)
    assert list(found) == list(reference.columns)
    for name in ("price", "months", "score"):
        expected = ks_2samp(reference.columns[name], window.columns[name], method="asymp").pvalue
        assert found[name] == pytest.approx(expected, rel=1e-9)
    for name in ("plan", "senior"):
        table = pd.crosstab(
            np.repeat([0, 1], [2000, 300]), np.concatenate([reference.columns[name], window.columns[name]])
        )
        assert found[name] == pytest.approx(chi2_contingency(table).pvalue, rel=1e-9)


def test_a_window_without_rows_says_nothing(
    make_reference: Callable[..., Reference],
    make_frame: Callable[..., pd.DataFrame],
    make_window: Callable[..., Sample],
) -> None:
    assert set(ScipyBackend(make_reference()).test(make_window(make_frame(0))).values()) == {1.0}


def test_refuses_other_columns(
    make_reference: Callable[..., Reference],
    make_frame: Callable[..., pd.DataFrame],
    make_window: Callable[..., Sample],
) -> None:
    with pytest.raises(DriftError, match="same contract and family"):
        ScipyBackend(make_reference()).test(make_window(make_frame(5), "outcomes"))


def test_many_missing_numbers_are_seen(
    contract: Contract,
    make_reference: Callable[..., Reference],
    make_frame: Callable[..., pd.DataFrame],
    make_window: Callable[..., Sample],
) -> None:
    frame = make_frame(300, seed=1)
    frame.loc[:150, "price"] = np.nan
    found = ScipyBackend(make_reference()).test(make_window(frame))
    assert found["price"] < 1e-30
    assert min(value for name, value in found.items() if name != "price") > 1e-4


@given(tables)
def test_pooling_reaches_the_least_expected_count(table: Any) -> None:
    groups = group_rare(table)
    summed = sum_groups(table, groups)
    assert summed.sum() == table.sum()
    assert (summed.sum(axis=1) == table.sum(axis=1)).all()
    assert set(groups.tolist()) == set(range(summed.shape[1]))
    expected = summed.sum(axis=0) * min(table.sum(axis=1)) / table.sum()
    if summed.shape[1] > 1:
        assert expected.min() >= MIN_EXPECTED - 1e-9
    # No category is pooled with others while it and every smaller one is frequent enough.
    alone = table.sum(axis=0) * min(table.sum(axis=1)) / table.sum()
    if alone.min() >= MIN_EXPECTED and min(table.sum(axis=1)):
        assert summed.shape[1] == table.shape[1]
    assert 0 <= compute_table_p(summed) <= 1


@settings(max_examples=30)
@given(tables, st.randoms(use_true_random=False))
def test_pooling_does_not_depend_on_who_is_the_window(table: Any, random: Any) -> None:
    """Rows dealt anew to reference and window in the same numbers are pooled alike."""
    cells = np.repeat(np.arange(table.shape[1]), table.sum(axis=0)).tolist()
    random.shuffle(cells)
    size = int(table[0].sum())
    dealt = np.stack(
        [np.bincount(cells[part], minlength=table.shape[1]) for part in (slice(size), slice(size, None))]
    )
    np.testing.assert_array_equal(group_rare(dealt), group_rare(table))


def test_groups_of_rows() -> None:
    values = np.array(["a", "a", "b", "c", "d"] * 3, dtype=object)
    names, table = count_both({"a": 500, "b": 300, "c": 4}, values)
    assert names == ("a", "b", "c", "d")
    assert table.tolist() == [[500, 300, 4, 0], [6, 3, 3, 3]]
    groups = group_rare(table)
    assert groups.tolist() == [1, 0, 0, 0]
    assert encode_groups(values[:4], names, groups).tolist() == [1, 1, 0, 0]


def test_tiny_samples_are_left_to_the_bound() -> None:
    """Two single rows always differ; asymptotics know nothing of that, the bound does."""
    assert compute_distance_p(1.0, 1, 1) == 0
    assert bound_distance(1.0, 1, 1) > 0.7
    assert compute_table_p(np.array([[3], [1]])) == 1
