"""How right the models were, phase by phase, from what the ledger remembers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from clients.ledger.reader import Ledger
from tenure.bootstrap import Interval
from tenure.errors import EvaluationError
from tenure.outcome import encode_outcomes
from tenure.performance import measure_performance
from tenure.project import Project


@dataclass(frozen=True)
class Phase:
    """A span of time with a name: from `since` up to, but not including, `until`."""

    name: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Measured:
    """One version in one phase.

    Attributes:
        rows: Its predictions whose outcome is known.
        left: Share of their customers that left.
        roc_auc: With its 95 % interval; None when too few left or stayed to say.
        log_loss: Likewise.
    """

    phase: str
    version: str
    rows: int
    left: float
    roc_auc: Interval | None
    log_loss: Interval | None


def measure_phases(ledger: Ledger, project: Project, phases: list[Phase], as_of: datetime) -> list[Measured]:
    """Join predictions with the outcomes that were known `as_of`, and measure each version in each phase.

    Versions come in the order of their first prediction.
    """
    horizon = timedelta(days=project.labels.horizon_days)
    found = []
    for phase in phases:
        rows = ledger.read_outcomes(
            project.rollout.service, as_of=as_of, horizon=horizon, since=phase.since, until=phase.until
        )
        for version in dict.fromkeys(rows["version"]):
            chosen = rows[rows["version"] == version]
            left = encode_outcomes(chosen["outcome"], project.contract)
            scores = chosen["score"].to_numpy(np.float64)
            found.append(_measure(phase.name, str(version), scores, left))
    return found


def _measure(phase: str, version: str, scores: Any, left: Any) -> Measured:
    try:
        metrics: dict[str, Interval] = measure_performance(scores, left, 0.5).metrics
    except EvaluationError:  # too few of a class: there is nothing to say, and the table says so
        metrics = {}
    return Measured(
        phase, version, len(left), float(left.mean()), metrics.get("roc_auc"), metrics.get("log_loss")
    )
