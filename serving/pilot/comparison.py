"""A canary and what it is compared with; what became of the customers whom each of the two judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tenure.judgement import compute_profits
from tenure.outcome import encode_outcomes

if TYPE_CHECKING:
    import pandas as pd

    from tenure.project import Project

Floats = NDArray[np.float64]

Pair = tuple[Floats, Floats]
"""A figure for each customer of the canary, and for each of the stable version."""


class Ledger(Protocol):
    """The part of `clients.ledger.reader.Ledger` that the pilot needs."""

    def read_predictions(
        self,
        service: str,
        version: str | None = None,
        *,
        after_seq: int = 0,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Return predictions, oldest first."""

    def read_outcomes(
        self,
        service: str,
        *,
        as_of: datetime,
        horizon: timedelta,
        version: str | None = None,
        since: datetime | None = None,
    ) -> pd.DataFrame:
        """Return the predictions whose outcome is known."""


@dataclass(frozen=True)
class Match:
    """A canary and what it is compared with.

    Attributes:
        service: The InferenceService's name.
        canary: Version of the canary.
        canary_uri: Where its bundle is.
        stable: Version of the stable model.
        stable_uri: Where that bundle is.
        expected: What evaluation found for the difference of mean scores; None if it is not known.
        logged: Whether both log what they answer.
    """

    service: str
    canary: str
    canary_uri: str
    stable: str
    stable_uri: str
    expected: float | None
    logged: bool


def read_outcomes(
    ledger: Ledger, match: Match, project: Project, began: datetime, now: datetime
) -> tuple[Pair, Pair]:
    """Return residuals (outcome - probability) and profits of the predictions whose outcome is known.

    Args:
        ledger: Where they are.
        match: Which versions.
        project: The contract, the labels' horizon and what decisions are worth.
        began: When the canary met its first customer; predictions since then count.
        now: As of when outcomes count.
    """
    residuals, profits = [], []
    for version in (match.canary, match.stable):
        frame = ledger.read_outcomes(
            match.service,
            as_of=now,
            horizon=timedelta(days=project.labels.horizon_days),
            version=version,
            since=began,
        )
        # One row for each customer, the first: those of one customer share their outcome.
        frame = frame.sort_values(["matured_at", "seq"], kind="stable").drop_duplicates("customer_id")
        left = encode_outcomes(frame["outcome"], project.contract)
        scores = frame["score"].to_numpy(dtype=np.float64)
        residuals.append(left - scores)
        profits.append(compute_profits(scores, frame["churn"].to_numpy(dtype=bool), left, project.value))
    return (residuals[0], residuals[1]), (profits[0], profits[1])
