"""Decisions that the ledger remembers, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clients.ledger.instant import from_us
from tenure.drift.verdict import Verdict


@dataclass(frozen=True)
class TransitionRecord:
    """What the pilot did at a time.

    Attributes:
        shares: Percent of the customers by version from `at` on.
        evidence: What it was decided by.
    """

    id: str
    service: str
    at: datetime
    outcome: str
    shares: dict[str, int]
    reason: str
    evidence: dict[str, Any]


@dataclass(frozen=True)
class VerdictRecord:
    """A window's verdict, and which rows it judged.

    Attributes:
        version: The champion whose reference the window was compared with.
        number: Of the window, within its version and family, from 1.
        report_uri: Where its report lies; None while it is not published.
    """

    id: int
    service: str
    version: str
    family: str
    number: int
    first_seq: int
    last_seq: int
    since: datetime
    until: datetime
    rows: int
    alarm: bool
    verdict: Verdict
    report_uri: str | None
    created_at: datetime


@dataclass(frozen=True)
class Share:
    """What one version answered in a span of time.

    Attributes:
        predictions: How many customers it scored.
        flagged: How many of them it expects to leave.
        score: Mean P(churn).
    """

    version: str
    predictions: int
    flagged: int
    score: float


@dataclass(frozen=True)
class Tally:
    """How much came in a span of time.

    Attributes:
        shares: Predictions by version, the most first.
        labels: Outcomes that became known.
    """

    shares: tuple[Share, ...]
    labels: int


def restore_transition(row: Any) -> TransitionRecord:
    """Read a row of the table."""
    return TransitionRecord(
        id=row.id,
        service=row.service,
        at=from_us(row.at),
        outcome=row.outcome,
        shares=json.loads(row.shares),
        reason=row.reason,
        evidence=json.loads(row.evidence),
    )


def restore_verdict(row: Any) -> VerdictRecord:
    """Read a row of the table."""
    times = {name: from_us(getattr(row, name)) for name in ("since", "until", "created_at")}
    return VerdictRecord(**{**row._mapping, **times, "verdict": Verdict.model_validate_json(row.verdict)})


def restore_cause(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Read a row of the table, its JSON and its times."""
    return {
        **row,
        "detail": json.loads(row["detail"]),
        "arguments": None if row["arguments"] is None else json.loads(row["arguments"]),
        "created_at": from_us(row["created_at"]),
        "updated_at": from_us(row["updated_at"]),
    }
