"""Tests that may be looked at all the time: e-values for two shares and for bounded means, and their bounds.

An e-value is a number that is at most 1 on average as long as a hypothesis holds; a sequence of them built as
a betting game exceeds 1/level at *any* time with probability at most `level` (Ville 1939). So whoever rejects
once it does may look after every request, stop when he likes and go on later. A bound is where the rejected
hypotheses end: a confidence sequence (Darling and Robbins 1967; Howard, Ramdas, McAuliffe and Sekhon 2021).

*Two shares.* Requests go to one of two arms by chance. For an alternative (canary fails with p, stable with
q) each request multiplies the e-value by P(outcome | arm; p, q) / P(outcome | arm; r + d, r), where (r + d,
r) is the hypothesis "canary - stable = d" nearest to the alternative in Kullback-Leibler divergence: the
reverse information projection, which makes it an e-value for every hypothesis on the other side of d, as
these are convex (Turner, Ly and Gruenwald 2024; Turner and Gruenwald 2023). For d = 0 the factor is one
over the chance of an arm given the outcome, so all that it takes is that the arm is drawn by chance: how
often requests fail may change from moment to moment (an outage, a busy hour), as long as it does so for
both arms. The share of the canary is taken as it came out within each stratum; strata are the spans in
which it was constant. A mixture over a grid of alternatives (fixed beforehand) is an e-value again.

*Means of bounded values.* For the hypothesis "mean <= m" each value x multiplies the e-value by 1 + f (x -
m) / (m - lowest) with a fraction f in (0, 1): Waudby-Smith and Ramdas (2023), here mixed over a grid of
fractions, as Cover's universal portfolio does (Orabona and Jun 2021). A product does not depend on the
order of its factors, so nor do these numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Stratum = tuple[int, int, int, int]
"""Hits and trials of the canary, hits and trials of the stable version."""

_GAPS = np.array([0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 0.8])
_LEVELS = 1 / (1 + np.exp(-np.linspace(-9.2, 2.3, 24)))  # shares from 0.0001 to 0.91
_FRACTIONS = 0.98 * 1.6 ** -np.arange(16.0)
_INSIDE = (1e-9, 1 - 1e-9)
_POINTS, _ROUNDS = 11, 4  # bounds are found on a grid, four times refined: to 1/20,736 of the range
_BINS = 1024
_NEARLY_ZERO = 1e-9


def weigh_excess(strata: ArrayLike, difference: ArrayLike) -> Floats:
    """Weigh the evidence against "the canary's share exceeds the stable's by at most `difference`".

    Args:
        strata: Hits and trials of the canary, hits and trials of the stable version, shape [..., strata, 4].
        difference: In (-1, 1), shape [...]. The leading axes of both are broadcast.

    Returns:
        Logarithm of the e-value, shape [...].
    """
    return _weigh_shares(strata, difference, 1)


def weigh_shortfall(strata: ArrayLike, difference: ArrayLike) -> Floats:
    """Weigh the evidence against "the canary's share exceeds the stable's by at least `difference`".

    Args and returned value are those of `weigh_excess`.
    """
    return _weigh_shares(strata, difference, -1)


@lru_cache(maxsize=256)
def bound_difference(strata: tuple[Stratum, ...], low_level: float, high_level: float) -> tuple[float, float]:
    """Bound the difference of two shares, canary minus stable, at all times.

    Args:
        strata: As in `weigh_excess`.
        low_level: Chance that the lower bound is ever above the truth.
        high_level: Chance that the upper bound is ever below the truth.

    Returns:
        Lower and upper bound in [-1, 1].
    """
    counts = np.array(strata, dtype=np.float64).reshape(-1, 4)
    totals = counts.sum(axis=0)
    if not totals[1] or not totals[3]:
        return -1.0, 1.0
    estimate = float(totals[0] / totals[1] - totals[2] / totals[3])
    # Decisions hang on whether the lower bound is above 0, so that is asked first.
    start = (
        _NEARLY_ZERO if estimate > 0 and weigh_excess(counts, _NEARLY_ZERO) >= -np.log(low_level) else -1.0
    )
    low = _search(lambda d: weigh_excess(counts, d), start, estimate, low_level)
    high = _search(lambda d: weigh_shortfall(counts, d), 1.0, estimate, high_level)
    return low, high


def weigh_mean(values: ArrayLike, mean: float, lowest: float) -> float:
    """Weigh the evidence against "the mean is at most `mean`".

    Args:
        values: Shape [values], each at least `lowest`, as the hypothesis' mean is.
        mean: Above `lowest`.
        lowest: The least possible value.

    Returns:
        Logarithm of the e-value; the order of the values does not matter.
    """
    array = np.asarray(values, dtype=np.float64)
    return float(_weigh_mean(array, np.ones(len(array)), np.array([mean]), lowest)[0])


def follow_mean(values: ArrayLike, mean: float, lowest: float) -> Floats:
    """Weigh the evidence against "the mean is at most `mean`" after each value.

    Args:
        values: In the order in which they came, shape [values], each at least `lowest`.
        mean: Above `lowest`.
        lowest: The least possible value.

    Returns:
        Logarithm of the e-value after each value, shape [values].
    """
    returns = (np.asarray(values, dtype=np.float64) - mean) / (mean - lowest)
    return _mix(np.cumsum(np.log1p(_FRACTIONS * returns[:, None]), axis=0), len(_FRACTIONS))


def bound_mean(
    values: ArrayLike, lowest: float, highest: float, low_level: float, high_level: float
) -> tuple[float, float]:
    """Bound the mean of values in [lowest, highest] at all times.

    More than a two thousand values are rounded outwards to 1,024 steps of their range, so that the time that
    it takes does not grow with their number.

    Args:
        values: Shape [values].
        lowest: The least possible value.
        highest: The greatest possible value.
        low_level: Chance that the lower bound is ever above the truth.
        high_level: Chance that the upper bound is ever below the truth.

    Returns:
        Lower and upper bound in [lowest, highest].

    Raises:
        ValueError: A value is not in [lowest, highest].
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return lowest, highest
    if not (array.min() >= lowest and array.max() <= highest):
        raise ValueError(
            f"values from {array.min()} to {array.max()} are not all in [{lowest}, {highest}]: "
            "the bounds would mean nothing"
        )
    low = _bound_below(array, lowest, highest, low_level)
    high = -_bound_below(-array, -highest, -lowest, high_level)
    return low, high


def _weigh_shares(strata: ArrayLike, difference: ArrayLike, sign: int) -> Floats:
    """Mix over alternatives on the side `sign` of the hypothesis "canary - stable = difference".

    Axes inside: [..., strata, alternatives].
    """
    d = np.asarray(difference, dtype=np.float64)[..., None, None]
    canary_hits, canary, stable_hits, stable = np.moveaxis(
        np.asarray(strata, dtype=np.float64)[..., None], -2, 0
    )
    q = np.repeat(_LEVELS, len(_GAPS) + 1)
    # Besides the gaps there is the alternative that both are equal, if it is on the right side.
    gaps = np.concatenate([np.broadcast_to(sign * _GAPS, (*d.shape[:-1], len(_GAPS))), -d], axis=-1)
    p = q + d + np.tile(gaps, len(_LEVELS))
    inside = usable = (p > 0) & (p < 1) & (sign * (p - q - d) > 0)
    p = np.where(usable, p, np.clip(q + d, *_INSIDE))
    both = (canary > 0) & (stable > 0)  # an arm without a request tells nothing of the other
    share = np.where(both, canary, 1) / np.where(both, canary + stable, 2)
    null = _project(p, q, share, d)
    logs = (
        canary_hits * np.log(p / (null + d))
        + (canary - canary_hits) * np.log((1 - p) / (1 - null - d))
        + stable_hits * np.log(q / null)
        + (stable - stable_hits) * np.log((1 - q) / (1 - null))
    )
    # Where no alternative is left (a hypothesis at the edge) there is no bet: an e-value of 1.
    usable = usable | ~usable.any(axis=-1, keepdims=True)
    logs = np.where(usable, np.where(both & inside, logs, 0.0), -np.inf)
    number = usable.sum(axis=-1)
    # One alternative for all strata, or one for each of them: both are e-values, and so is their average.
    alike, apart = _mix(logs.sum(axis=-2), number[..., 0]), _mix(logs, number).sum(axis=-1)
    mixed: Floats = np.logaddexp(alike, apart) - np.log(2)
    return mixed


def _project(p: Floats, q: Floats, share: Floats, d: Floats) -> Floats:
    """Find the stable share r whose hypothesis (r + d, r) is nearest to (p, q).

    Minimises share * KL(p, r + d) + (1 - share) * KL(q, r), which is convex in r: a root of its derivative
    (times the positive denominators, a cubic), by bisection and then by Newton's method.
    """
    if not d.any():
        mixed: Floats = share * p + (1 - share) * q
        return mixed
    lowest, highest = np.maximum(0.0, -d), np.minimum(1.0, 1 - d)
    ends = np.clip(q, lowest, highest), np.clip(p - d, lowest, highest)
    shape = np.broadcast_shapes(share.shape, p.shape)
    left, right = np.broadcast_to(np.minimum(*ends), shape), np.broadcast_to(np.maximum(*ends), shape)
    for _ in range(14):
        r = (left + right) / 2
        c = r + d
        rising = share * (c - p) * r * (1 - r) + (1 - share) * (r - q) * c * (1 - c) > 0
        left, right = np.where(rising, left, r), np.where(rising, r, right)
    r = (left + right) / 2
    for _ in range(3):
        c = r + d
        value = share * (c - p) * r * (1 - r) + (1 - share) * (r - q) * c * (1 - c)
        slope = share * (r * (1 - r) + (c - p) * (1 - 2 * r)) + (1 - share) * (
            c * (1 - c) + (r - q) * (1 - 2 * c)
        )
        step = np.divide(value, slope, out=np.zeros(shape), where=slope > 0)
        r = np.clip(r - step, left, right)
    nearest: Floats = np.clip(r, lowest + _INSIDE[0], highest - _INSIDE[0])
    return nearest


def _weigh_mean(values: Floats, counts: Floats, means: Floats, lowest: float) -> Floats:
    """Weigh several hypotheses; values and counts [values], means [hypotheses]."""
    margins = means[:, None] - lowest
    returns = (values - lowest - margins) / margins
    bets = np.log1p(_FRACTIONS[:, None, None] * returns) @ counts
    return _mix(bets.T, len(_FRACTIONS))


def _bound_below(values: Floats, lowest: float, highest: float, level: float) -> float:
    mean = float(values.mean())
    if len(values) > 2 * _BINS:
        bins = np.floor((values - lowest) * (_BINS / (highest - lowest))).astype(np.intp)
        counts = np.bincount(bins, minlength=_BINS + 1).astype(np.float64)
        held = counts > 0
        values, counts = np.linspace(lowest, highest, _BINS + 1)[held], counts[held]
    else:
        values, numbers = np.unique(values, return_counts=True)
        counts = numbers.astype(np.float64)
    if mean <= lowest:
        return lowest
    return _search(lambda means: _weigh_mean(values, counts, means, lowest), lowest, mean, level)


def _search(weigh: Callable[[Floats], Floats], outer: float, inner: float, level: float) -> float:
    """Return the innermost hypothesis that is known to be rejected, `outer` if none is.

    Args:
        weigh: Logarithms of the e-values of hypotheses, falling from `outer` towards `inner`.
        outer: Where the search ends; never weighed itself.
        inner: The estimate, which no test rejects.
        level: The test's.
    """
    if abs(inner - outer) < _NEARLY_ZERO:
        return outer
    for _ in range(_ROUNDS):
        grid = outer + (inner - outer) * np.arange(1, _POINTS + 1) / (_POINTS + 1)
        rejected = weigh(grid) >= -np.log(level)
        last = int(np.argmin(rejected)) if not rejected.all() else _POINTS
        points = np.concatenate([[outer], grid, [inner]])
        outer, inner = float(points[last]), float(points[last + 1])
    return outer


def _mix(logs: Floats, number: NDArray[np.intp] | int) -> Floats:
    """Average so many e-values, given as logarithms, over the last axis."""
    peak = logs.max(axis=-1, keepdims=True)
    mixed: Floats = peak[..., 0] + np.log(np.exp(logs - peak).sum(axis=-1) / number)
    return mixed
