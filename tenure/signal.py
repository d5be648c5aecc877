"""The ways in which a canary may be worse than the stable version, with bounds that hold at all times."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tenure.canary import Rollout
from tenure.contract import Strict
from tenure.evidence import Evidence, Progress
from tenure.monitoring import Value
from tenure.sequence import bound_difference, bound_mean

Floats = NDArray[np.float64]
Name = Literal["errors", "latency", "score", "mismatch", "calibration", "profit"]

LATE: frozenset[Name] = frozenset({"calibration", "profit"})
"""Signals that come with the labels: they may take a canary back, but nothing waits for them."""

CHANCES = 5
"""Signals that chance can move, which share a rollout's `alpha`: all but `mismatch`."""


class Signal(Strict):
    """One way in which a canary may be worse, and what is known of it.

    Attributes:
        name: Which.
        estimate: How much worse the canary is, in the unit of its tolerance; 0 while nothing is known.
        low: Lower bound, for taking the canary back.
        high: Upper bound, for letting it go on.
        tolerance: How much is tolerated.
        harm: Whether this alone takes the canary back.
        safe: Whether it is surely not worse than the tolerance.
        n: How many of the canary's requests or rows it rests on.
        text: The same in words.
    """

    name: Name
    estimate: float
    low: float
    high: float
    tolerance: float
    harm: bool
    safe: bool
    n: int
    text: str


def measure(rollout: Rollout, evidence: Evidence, progress: Progress) -> list[Signal]:
    """Measure every signal that there is evidence for."""
    tolerance, level = rollout.tolerance, rollout.alpha / CHANCES
    stages = progress.cut_stages(evidence)
    signals = [
        _compare_shares(
            "errors",
            [(s.canary.errors, s.canary.requests, s.stable.errors, s.stable.requests) for s in stages],
            tolerance.errors,
            rollout.alpha,
        ),
        _compare_shares(
            "latency",
            [(s.canary.slow, s.canary.timed, s.stable.slow, s.stable.timed) for s in stages],
            tolerance.latency,
            rollout.alpha,
        ),
    ]
    if evidence.differences is not None:
        rows = len(evidence.differences) if evidence.logged is None else evidence.logged
        if evidence.expected_difference is not None:
            signals.append(
                _judge_scores(evidence, evidence.expected_difference, tolerance.score, rollout.alpha)
            )
        wrong = float(evidence.mismatches)
        text = (
            f"{evidence.mismatches} logged scores are not what the canary's bundle gives"
            if wrong
            else f"all {rows} logged scores are the bundle's own"
        )
        signals.append(
            Signal(
                name="mismatch",
                estimate=wrong,
                low=wrong,
                high=wrong,
                tolerance=0.0,
                harm=wrong > 0,
                safe=not wrong and rows > 0,
                n=rows,
                text=text,
            )
        )
    canary, stable = evidence.residuals
    if len(canary) and len(stable):
        signals.append(_compare_calibration(canary, stable, tolerance.calibration, level))
    canary, stable = evidence.profits
    if len(canary) and len(stable):
        signals.append(_compare_profits(canary, stable, evidence.value, tolerance.profit, level))
    return signals


def _compare_shares(
    name: Name, strata: list[tuple[int, int, int, int]], tolerance: float, alpha: float
) -> Signal:
    """Compare the shares of requests that fail, or are slow."""
    level = alpha / CHANCES
    hits, trials, stable_hits, stable_trials = (sum(column) for column in zip(*strata, strict=True))
    low, high = bound_difference(tuple(strata), level, alpha)
    ours, theirs = hits / max(trials, 1), stable_hits / max(stable_trials, 1)
    estimate = ours - theirs if trials and stable_trials else 0.0
    unit = "failed" if name == "errors" else "were slow"
    text = (
        f"{ours:.2%} of the canary's {trials} requests {unit}, {theirs:.2%} of the stable version's "
        f"{stable_trials}: surely between {low:+.2%} and {high:+.2%}, tolerated {tolerance:.2%}"
    )
    return Signal(
        name=name,
        estimate=estimate,
        low=low,
        high=high,
        tolerance=tolerance,
        harm=low > 0 and estimate > tolerance,
        safe=high < tolerance,
        n=trials,
        text=text,
    )


def _judge_scores(evidence: Evidence, expected: float, tolerance: float, alpha: float) -> Signal:
    """Ask whether the canary's scores differ from the champion's as evaluation found that they do."""
    differences = np.asarray(evidence.differences, dtype=np.float64)
    rows = len(differences)
    level = alpha / CHANCES / 2
    lows, highs = zip(
        *(bound_mean(differences, -1.0, 1.0, chance, chance) for chance in (level, alpha)), strict=True
    )
    deviation = float(differences.mean()) - expected if rows else 0.0
    low = max(0.0, lows[0] - expected, expected - highs[0])
    high = max(highs[1] - expected, expected - lows[1])
    text = (
        f"scores differ by {deviation + expected:+.4f} on average in {rows} rows where evaluation found "
        f"{expected:+.4f}: surely {low:.4f} to {high:.4f} apart, tolerated {tolerance:.4f}"
    )
    return Signal(
        name="score",
        estimate=abs(deviation),
        low=low,
        high=high,
        tolerance=tolerance,
        harm=low > tolerance,
        safe=high < tolerance,
        n=rows,
        text=text,
    )


def _compare_calibration(canary: Floats, stable: Floats, tolerance: float, level: float) -> Signal:
    """Ask whether the canary's probabilities are further from the outcomes than the stable version's."""
    # Four one-sided bounds share the level.
    lows, highs = zip(
        *(bound_mean(values, -1.0, 1.0, level / 4, level / 4) for values in (canary, stable)), strict=True
    )
    nearest = [max(0.0, low, -high) for low, high in zip(lows, highs, strict=True)]
    furthest = [max(high, -low) for low, high in zip(lows, highs, strict=True)]
    ours, theirs = float(np.mean(canary)), float(np.mean(stable))
    estimate, low, high = abs(ours) - abs(theirs), nearest[0] - furthest[1], furthest[0] - nearest[1]
    text = (
        f"outcomes are {ours:+.4f} off the canary's probabilities ({len(canary)} customers) and "
        f"{theirs:+.4f} off the stable version's: worse by {low:+.4f} to {high:+.4f}, "
        f"tolerated {tolerance:.4f}"
    )
    return Signal(
        name="calibration",
        estimate=estimate,
        low=low,
        high=high,
        tolerance=tolerance,
        harm=low > 0 and estimate > tolerance,
        safe=high < tolerance,
        n=len(canary),
        text=text,
    )


def _compare_profits(canary: Floats, stable: Floats, value: Value, tolerance: float, level: float) -> Signal:
    """Ask whether the canary's decisions bring less than the stable version's."""
    least, most = min(0.0, -value.contact), max(0.0, value.success * value.saved - value.contact)
    ours, theirs = float(np.mean(canary)), float(np.mean(stable))
    if least < most:
        (low, high), (stable_low, stable_high) = (
            bound_mean(values, least, most, level / 2, level / 2) for values in (canary, stable)
        )
    else:
        low = high = stable_low = stable_high = 0.0
    estimate = theirs - ours
    worst, best = stable_high - low, stable_low - high
    text = (
        f"the canary brings {ours:.2f} for each customer ({len(canary)}), the stable version {theirs:.2f}: "
        f"less by {best:+.2f} to {worst:+.2f}, tolerated {tolerance:.2f}"
    )
    return Signal(
        name="profit",
        estimate=estimate,
        low=best,
        high=worst,
        tolerance=tolerance,
        harm=best > 0 and estimate > tolerance,
        safe=worst < tolerance,
        n=len(canary),
        text=text,
    )
