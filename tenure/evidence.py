"""What the pilot knows of a canary: how far it has come, and what both versions did meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AwareDatetime, Field

from tenure.contract import Strict
from tenure.monitoring import Value

Floats = NDArray[np.float64]


class Traffic(Strict):
    """What one arm answered, as the gateway counts it.

    Attributes:
        requests: All requests.
        errors: Those of them that were answered with a 4xx or 5xx, or not at all.
        timed: Requests whose duration is known.
        slow: Those of them that took longer than `Progress.slow_ms`.
    """

    requests: int = Field(default=0, ge=0)
    errors: int = Field(default=0, ge=0)
    timed: int = Field(default=0, ge=0)
    slow: int = Field(default=0, ge=0)

    def subtract(self, other: Traffic) -> Traffic:
        """Return this traffic without `other`, which is a part of it.

        A failure may have been counted before its request was; there are never more failures than requests.
        """
        errors, slow = max(self.errors - other.errors, 0), max(self.slow - other.slow, 0)
        return Traffic(
            requests=max(self.requests - other.requests, errors),
            errors=errors,
            timed=max(self.timed - other.timed, slow),
            slow=slow,
        )


class Stage(Strict):
    """What both arms answered during one step that is over."""

    canary: Traffic
    stable: Traffic


class Progress(Strict):
    """How far a canary has come; the InferenceService carries it as an annotation.

    Attributes:
        canary: Version of the canary.
        digest: The whole digest of its bundle.
        step: Which of the project's steps it is on, -1 during the dark launch.
        began: When it got its first traffic.
        since: When this step began.
        slow_ms: What counts as slow: the duration that the slowest fifth of the stable version's requests
            exceeded before; unknown at first, and fixed once known.
        counters: Backend -> counter -> its value when the canary began, so that differences survive
            a restart.
        finished: Both arms' traffic during each step that is over, oldest first.
    """

    canary: str
    digest: str
    step: int = Field(ge=-1)
    began: AwareDatetime
    since: AwareDatetime
    slow_ms: float | None = Field(default=None, gt=0)
    counters: dict[str, dict[str, int]] = Field(default_factory=dict)
    finished: tuple[Stage, ...] = Field(default=(), max_length=64)

    def cut_stages(self, evidence: Evidence) -> list[Stage]:
        """Part the traffic by step; the newest step's is what the finished ones do not hold."""
        canary, stable = evidence.canary, evidence.stable
        for stage in self.finished:
            canary, stable = canary.subtract(stage.canary), stable.subtract(stage.stable)
        return [*self.finished, Stage(canary=canary, stable=stable)]

    def advance(self, evidence: Evidence, now: datetime) -> Self:
        """Return the progress on the next step, which begins `now`; this step's traffic is set apart."""
        stage = self.cut_stages(evidence)[-1]
        return self.model_copy(
            update={"step": self.step + 1, "since": now, "finished": (*self.finished, stage)}
        )


def _no_values() -> Floats:
    return np.empty(0)


def _no_pair() -> tuple[Floats, Floats]:
    return _no_values(), _no_values()


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a canary and of the stable version since the canary's first traffic.

    Attributes:
        canary: The canary's traffic since `Progress.began`.
        stable: The stable version's traffic in the same time.
        differences: The canary's score minus the champion's for the same customers, shape [rows].
            None: predictions are not logged, so neither scores nor mismatches are judged.
        expected_difference: What evaluation found for that on held-out customers. None: not known, so scores
            are not judged.
        mismatches: Logged scores of the canary that its bundle does not give for the logged features.
        residuals: Outcome minus probability of the matured rows, one for each customer: canary, stable.
        profits: What each decision brought (`compute_profits`), one for each customer: canary, stable.
        step_requests: Answers of the canary during this step.
        logged: Answers of the canary that were found in the log of predictions. None: they are not logged, or
            nobody looked.
        value: What decisions are worth; bounds what a profit may be.
    """

    canary: Traffic
    stable: Traffic
    differences: Floats | None = field(default_factory=_no_values)
    expected_difference: float | None = 0.0
    mismatches: int = 0
    residuals: tuple[Floats, Floats] = field(default_factory=_no_pair)
    profits: tuple[Floats, Floats] = field(default_factory=_no_pair)
    step_requests: int = 0
    logged: int | None = None
    value: Value = field(default_factory=Value)


def compute_profits(scores: ArrayLike, churn: ArrayLike, outcomes: ArrayLike, value: Value) -> Floats:
    """Compute what each decision brought: a customer who is flagged gets contacted, the others cost nothing.

    Args:
        scores: Probabilities, shape [rows].
        churn: Whether each customer was flagged, shape [rows].
        outcomes: 1 for those who left, 0 for those who stayed, NaN where it is not known; shape [rows].
        value: What contacts and kept customers are worth.

    Returns:
        Expected profit per row, shape [rows]; NaN where the outcome is.

    Raises:
        ValueError: The shapes differ.
    """
    flags, left = np.asarray(churn, dtype=bool), np.asarray(outcomes, dtype=np.float64)
    if flags.ndim != 1 or not flags.shape == left.shape == np.shape(scores):
        raise ValueError(f"{np.shape(scores)} scores, {flags.shape} flags and {left.shape} outcomes differ")
    profits: Floats = np.where(flags, value.success * value.saved * left - value.contact, 0.0 * left)
    return profits
