"""The sequential tests: exact where they can be checked exactly, and rarely wrong however often one looks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure import sequence
from tenure.sequence import (
    bound_difference,
    bound_mean,
    follow_mean,
    weigh_excess,
    weigh_mean,
    weigh_shortfall,
)

LEVEL = 0.05
STREAMS = 400
ALLOWED = LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / 200)


@st.composite
def draw_tables(draw: st.DrawFn) -> tuple[int, int, int, int]:
    canary, stable = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))
    return draw(st.integers(0, canary)), canary, draw(st.integers(0, stable)), stable


def draw_looks(
    rng: np.random.Generator, canary: float, stable: float, share: float, requests: int
) -> np.ndarray:
    """Tables [streams, looks, one stratum, 4] at 60 looks, most of them early."""
    arm = rng.random((STREAMS, requests)) < share
    hit = rng.random((STREAMS, requests)) < np.where(arm, canary, stable)
    counts = np.cumsum(np.stack([arm & hit, arm, ~arm & hit, ~arm], axis=-1), axis=1)
    looks = np.unique(np.geomspace(1, requests, 60).astype(int)) - 1
    return counts[:, looks, None]


# -- two shares -------------------------------------------------------------------------------------------


@given(
    st.floats(0.001, 0.999),
    st.floats(0.001, 0.999),
    st.floats(0.01, 0.99),
    st.floats(-0.9, 0.9),
)
def test_a_factor_is_at_most_one_on_average_under_every_hypothesis(
    p: float, q: float, share: float, difference: float
) -> None:
    d = np.array(difference)
    r = float(sequence._project(np.array(p), np.array(q), np.array(share), d))
    canary, stable = np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 41))
    mean = share * (canary * p / (r + difference) + (1 - canary) * (1 - p) / (1 - r - difference))
    mean += (1 - share) * (stable * q / r + (1 - stable) * (1 - q) / (1 - r))
    hypotheses = (canary - stable - difference) * np.sign(p - q - difference) <= 0
    assert mean[hypotheses].max() <= 1 + 1e-6


def test_without_a_difference_the_factor_weighs_the_arm_given_the_hit() -> None:
    h, n, k, m = 3, 40, 5, 160
    alternatives = [
        (q + gap, q) for q, gap in itertools.product(sequence._LEVELS, sequence._GAPS) if q + gap < 1
    ]
    share, total = n / (n + m), 0.0
    for p, q in alternatives:
        mixed = share * p + (1 - share) * q
        total += (
            (p / mixed) ** h
            * ((1 - p) / (1 - mixed)) ** (n - h)
            * (q / mixed) ** k
            * ((1 - q) / (1 - mixed)) ** (m - k)
        )
    assert weigh_excess([[h, n, k, m]], 0.0) == pytest.approx(math.log(total / len(alternatives)))


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_equal_arms_are_rarely_told_apart_at_any_look(rate: float, share: float) -> None:
    tables = draw_looks(np.random.default_rng(1), rate, rate, share, 3000)
    for weigh in (weigh_excess, weigh_shortfall):
        crossed = [(weigh(stream, 0.0) >= -math.log(LEVEL)).any() for stream in tables[:200]]
        assert np.mean(crossed) <= ALLOWED


@pytest.mark.parametrize("tolerance", [0.03, 0.2])
def test_a_canary_at_the_tolerance_is_rarely_called_better_or_worse(tolerance: float) -> None:
    tables = draw_looks(np.random.default_rng(2), 0.01 + tolerance, 0.01, 0.2, 3000)
    for weigh in (weigh_excess, weigh_shortfall):
        crossed = [(weigh(stream, tolerance) >= -math.log(LEVEL)).any() for stream in tables[:200]]
        assert np.mean(crossed) <= ALLOWED


def test_an_outage_and_a_changed_share_fool_nobody_who_parts_by_step() -> None:
    rng = np.random.default_rng(3)
    tables, pooled = [], []
    for share, rate in ((0.2, 0.0), (0.5, 0.2)):  # the outage comes when the canary has half
        canary = rng.binomial(1000, share, STREAMS)
        hits, others = rng.binomial(canary, rate), rng.binomial(1000 - canary, rate)
        tables.append(np.stack([hits, canary, others, 1000 - canary], axis=-1))
    strata = np.stack(tables, axis=1)
    pooled = strata.sum(axis=1, keepdims=True)
    assert (weigh_excess(strata, 0.0) >= -math.log(LEVEL)).mean() <= ALLOWED
    assert (weigh_excess(pooled, 0.0) >= -math.log(LEVEL)).mean() > 0.5  # why there are strata at all


@settings(deadline=None, max_examples=40)
@given(draw_tables())
def test_bounds_hold_the_estimate_and_agree_with_the_tests(table: tuple[int, int, int, int]) -> None:
    low, high = bound_difference((table,), 0.01, 0.05)
    h, n, k, m = table
    assert -1 <= low <= h / n - k / m <= high <= 1
    if low > -1:
        assert weigh_excess([table], low) >= -math.log(0.01)
    if high < 1:
        assert weigh_shortfall([table], high) >= -math.log(0.05)
    assert (low > 0) == (weigh_excess([table], 1e-9) >= -math.log(0.01) and h / n > k / m)


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 2000), st.integers(20, 2000), st.floats(0, 0.4))
def test_more_failures_of_the_canary_move_the_bounds_up(canary: int, stable: int, rate: float) -> None:
    hits = int(rate * canary)
    few = bound_difference(((hits, canary, 1, stable),), 0.05, 0.05)
    many = bound_difference(((2 * hits + 1, canary, 1, stable),), 0.05, 0.05)
    assert many[0] >= few[0] - 1e-3
    assert many[1] >= few[1] - 1e-3


def test_more_requests_narrow_the_bounds() -> None:
    widths = [
        np.diff(bound_difference(((n // 50, n, n // 50, n),), 0.05, 0.05))[0] for n in (200, 2000, 20000)
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.01


@pytest.mark.parametrize("table", [(0, 0, 0, 0), (3, 9, 0, 0), (0, 0, 2, 40)])
def test_an_arm_without_requests_bounds_nothing(table: tuple[int, int, int, int]) -> None:
    assert bound_difference((table,), 0.05, 0.05) == (-1.0, 1.0)
    assert weigh_excess([table], 0.0) == pytest.approx(0)


def test_a_stratum_without_requests_changes_nothing() -> None:
    table = (3, 100, 4, 400)
    assert weigh_shortfall([table, (0, 0, 0, 0)], 0.1) == pytest.approx(weigh_shortfall([table], 0.1))


def test_hypotheses_and_tables_are_weighed_together_as_one_by_one() -> None:
    tables = np.array([[[1, 50, 3, 200]], [[9, 60, 1, 90]]])
    differences = np.array([-0.1, 0.0, 0.3])
    together = weigh_excess(tables[:, None], differences)
    assert together.shape == (2, 3)
    for i, j in itertools.product(range(2), range(3)):
        assert together[i, j] == pytest.approx(float(weigh_excess(tables[i], differences[j])))


# -- means ------------------------------------------------------------------------------------------------


def test_a_mean_is_weighed_as_a_portfolio_of_bets() -> None:
    values, mean = [0.2, 0.9, 0.4], 0.3
    bets = [
        math.prod(1 + fraction * (value - mean) / mean for value in values)
        for fraction in sequence._FRACTIONS
    ]
    assert weigh_mean(values, mean, 0.0) == pytest.approx(math.log(sum(bets) / len(bets)))
    assert follow_mean(values, mean, 0.0)[-1] == pytest.approx(weigh_mean(values, mean, 0.0))


@pytest.mark.parametrize("shape", [(0.5, 0.5), (2.0, 8.0), (30.0, 30.0)])
def test_bounds_of_a_mean_are_rarely_wrong_at_any_look(shape: tuple[float, float]) -> None:
    rng = np.random.default_rng(4)
    mean = shape[0] / sum(shape)
    values = rng.beta(*shape, size=(STREAMS, 800))
    for sign, lowest in ((1, 0.0), (-1, -1.0)):
        crossed = [
            (follow_mean(sign * stream, sign * mean, lowest) >= -math.log(LEVEL)).any() for stream in values
        ]
        assert np.mean(crossed) <= ALLOWED


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_bounds_of_a_mean_hold_it_and_know_no_order(values: list[float], random: object) -> None:
    low, high = bound_mean(values, -1.0, 1.0, 0.05, 0.05)
    assert -1 <= low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= high <= 1
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert bound_mean(shuffled, -1.0, 1.0, 0.05, 0.05) == pytest.approx((low, high), abs=1e-9)
    mirrored = bound_mean([-value for value in values], -1.0, 1.0, 0.05, 0.05)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


def test_many_values_are_rounded_outwards() -> None:
    values = np.random.default_rng(5).normal(0.1, 0.2, 5000).clip(-1, 1)
    low, high = bound_mean(values, -1.0, 1.0, 0.05, 0.05)
    assert weigh_mean(values, low, -1.0) >= -math.log(0.05)
    assert weigh_mean(-values, -high, -1.0) >= -math.log(0.05)
    assert low < 0.1 < high
    assert high - low < 0.03


def test_nothing_bounds_nothing_and_impossible_values_are_refused() -> None:
    assert bound_mean([], -1.0, 2.0, 0.05, 0.05) == (-1.0, 2.0)
    for value in (1.5, math.nan):
        with pytest.raises(ValueError, match="not all in"):
            bound_mean([0.0, value], -1.0, 1.0, 0.05, 0.05)
