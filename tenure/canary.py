"""How an approved challenger meets customers, and what the pilot demands before it takes over."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tenure.contract import DnsLabel, Fraction, Strict

Percent = Annotated[int, Field(ge=1, le=99)]


class Tolerance(Strict):
    """How much worse than the stable version a canary may be before that is harm, each in its own unit."""

    errors: Fraction = Field(default=0.02, description="Share of requests answered with a 4xx or 5xx.")
    latency: Fraction = Field(
        default=0.25,
        description="Share of requests slower than the stable version's slowest fifth.",
    )
    score: Fraction = Field(
        default=0.05,
        description="Mean score, beyond the difference that evaluation found on held-out customers.",
    )
    calibration: Fraction = Field(
        default=0.1, description="Mean of outcome minus probability, once labels come."
    )
    profit: float = Field(
        default=10.0,
        ge=0,
        description="Profit for each customer, in the unit of `value`.",
    )


class Rollout(Strict):
    """How an approved challenger meets customers."""

    service: DnsLabel
    namespace: DnsLabel | None = Field(
        default=None, description="By default that of the platform, TENURE_NAMESPACE."
    )
    steps: tuple[Percent, ...] = Field(
        default=(5, 20, 50),
        max_length=20,
        description="The canary's share at each step; after the last it is promoted.",
    )
    promotion: Literal["automatic", "manual"] = Field(
        default="automatic", description="Whether the pilot promotes by itself after the last step."
    )
    mirror_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Dark launch: share of the requests copied to the canary before step one.",
    )
    mirror_requests: int = Field(
        default=200,
        ge=1,
        description="Copied requests that the dark launch needs.",
    )
    min_requests: int = Field(default=500, ge=1, description="Answers of the canary that each step needs.")
    min_minutes: float = Field(default=0, ge=0, description="How long each step lasts at least.")
    deadline_minutes: float = Field(default=24 * 60, gt=0, description="How long a step may lack evidence.")
    on_deadline: Literal["hold", "promote", "rollback"] = "hold"
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="Chance that a harmless canary is taken back, over its whole life.",
    )
    tolerance: Tolerance = Tolerance()
    replicas: int = Field(default=1, ge=1, le=100)
    canary_replicas: int = Field(default=1, ge=1, le=100)
    ready_timeout_seconds: int = Field(default=120, ge=1, le=3600)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.canary_replicas > self.replicas:
            raise ValueError("canary_replicas may not exceed replicas (KServe refuses it)")
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError("steps must grow from each to the next")
        return self

    @property
    def first_percent(self) -> int:
        """The share that a canary starts with; 0 while it is launched in the dark or has no steps."""
        return 0 if self.mirror_percent or not self.steps else self.steps[0]
