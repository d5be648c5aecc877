"""What a project says of its model's life in production: labels, value, drift, retraining."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tenure.contract import Fraction, Strict

Kind = Literal["covariate", "score", "label", "performance"]
"""What drifts: the customers, the scores, how many leave, or how well the model tells who does."""


class Labels(Strict):
    """How an outcome belongs to a prediction."""

    horizon_days: float = Field(
        default=30,
        gt=0,
        le=3650,
        description="An outcome counts if it became true within so many days of a prediction.",
    )


class Value(Strict):
    """What a decision is worth, in money of any unit: a customer who is flagged gets contacted."""

    contact: float = Field(default=10.0, ge=0, description="Cost of contacting one customer.")
    saved: float = Field(default=200.0, ge=0, description="Gain from one leaving customer who was kept.")
    success: Fraction = Field(default=0.3, description="Share of the contacted leavers who are kept.")


class Window(Strict):
    """How predictions are grouped for a test: so many of them, or those of so many hours."""

    rows: int | None = Field(default=500, ge=50, le=1_000_000)
    hours: float | None = Field(default=None, gt=0, le=24 * 31)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.rows is None) == (self.hours is None):
            raise ValueError("say either rows or hours (and `rows: null` with hours)")
        return self


class Effect(Strict):
    """From which size on a difference is material, however significant it may be."""

    psi: float = Field(
        default=0.1,
        gt=0,
        description="Population stability index of a number or the score.",
    )
    l1: float = Field(
        default=0.1, gt=0, le=2, description="Sum of the absolute differences of category shares."
    )
    label: Fraction = Field(default=0.05, description="Difference of the share that leaves.")
    auc: Fraction = Field(default=0.03, description="Loss of ROC-AUC.")


class Drift(Strict):
    """When customers, scores, outcomes or performance count as changed."""

    backend: Literal["alibi-detect", "scipy"] = Field(
        default="scipy",
        description="Who computes the tests. alibi-detect's licence (BSL 1.1) "
        "excludes production without a contract.",
    )
    window: Window = Window()
    scales: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=(1, 4, 16),
        min_length=1,
        max_length=6,
        description="The last so many windows are tested together.",
    )
    alpha: float = Field(
        default=0.05, gt=0, lt=0.5, description="Chance of any false alarm as long as one champion serves."
    )
    half_life: int = Field(
        default=1000,
        ge=1,
        description="Windows after which half of that chance is spent (a month of hours: 720).",
    )
    effect: Effect = Effect()


class Retraining(Strict):
    """When the pipeline runs again by itself, and on what."""

    on: tuple[Kind, ...] = Field(
        default=("covariate", "score", "label", "performance"),
        description="Kinds of drift that start a run.",
    )
    min_rows: int = Field(
        default=1500, ge=100, description="Labelled customers that a run needs; it waits for them."
    )
    recent_days: float = Field(default=30, gt=0, le=3650, description="How far back a run looks at most.")
    cooldown_minutes: float = Field(
        default=60, ge=0, description="Rest between two runs that nobody asked for."
    )
    watch: str | None = Field(
        default=None,
        pattern=r"^s3://[^/]+/.+",
        description="A new object below this address starts a run on it.",
    )
