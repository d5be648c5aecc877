"""How much of the chance of a false alarm each window may use, so that all of them together keep to it.

Alpha spending (Lan and DeMets 1983) with the union bound (Bonferroni) over windows, scales and columns. Every
single p-value is valid over the joint draw of reference and window, and the union bound asks nothing of how
they depend on each other; so it holds although all windows share one reference, overlap at the longer scales,
and have columns that move together. Tests that condition on the reference as if it were the truth do not.
"""

from __future__ import annotations


def spend(alpha: float, half_life: int, number: int) -> float:
    """Return what window `number` may use of `alpha`.

    It is alpha * K / ((number + K - 1) * (number + K)) with K = `half_life`: these sum to alpha over all
    windows, and to half of it over the first K. For the first K windows the level falls only fourfold.

    Args:
        alpha: Chance of any false alarm, ever.
        half_life: Windows after which half of it is spent, at least 1.
        number: Window, counted from 1.

    Raises:
        ValueError: `number` or `half_life` is below 1.
    """
    if number < 1 or half_life < 1:
        raise ValueError(f"windows and the half-life count from 1, not {number} and {half_life}")
    return alpha * half_life / ((number + half_life - 1) * (number + half_life))


def sum_spent(alpha: float, half_life: int, number: int) -> float:
    """Return what windows 1 to `number` use together: alpha * number / (number + half_life)."""
    return alpha * number / (number + half_life)
