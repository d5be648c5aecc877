"""The levels sum to alpha, and half of it is spent at the half-life."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.drift.spending import spend, sum_spent


@given(st.floats(1e-6, 0.5), st.integers(1, 5000), st.integers(1, 3000))
def test_never_spends_more_than_alpha(alpha: float, half_life: int, windows: int) -> None:
    levels = [spend(alpha, half_life, number) for number in range(1, windows + 1)]
    assert sum(levels) == pytest.approx(sum_spent(alpha, half_life, windows))
    assert sum(levels) < alpha
    assert all(later < earlier for earlier, later in pairwise(levels))


def test_half_is_spent_at_the_half_life() -> None:
    assert sum_spent(0.05, 720, 720) == pytest.approx(0.025)
    assert spend(0.05, 720, 1) / spend(0.05, 720, 720) < 4


@pytest.mark.parametrize(("half_life", "number"), [(0, 1), (1, 0), (5, -3)])
def test_counts_from_one(half_life: int, number: int) -> None:
    with pytest.raises(ValueError, match="count from 1"):
        spend(0.05, half_life, number)
