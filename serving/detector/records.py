"""What the ledger takes in. Whoever makes a record knows at once whether the ledger can hold it.

Times are microseconds since 1970 (UTC).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clients.ledger.instant import LAST
from serving.detector.errors import DetectorError, EventError, LabelError

EVENT_ID, NAME, CUSTOMER, OUTCOME = 200, 80, 400, 200
"""The longest texts of the ledger's columns, in characters."""

BODY_BYTES = 64 * 1024
"""What is kept of a dead letter's body."""

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"}
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a model was asked: one customer and one set of features for each row.

    Raises:
        EventError: The ledger cannot hold it.
    """

    event_id: str
    service: str
    version: str
    time: int
    customers: list[str | None]
    features: list[dict[str, Any]]

    def __post_init__(self) -> None:
        _check_event(self.event_id, self.service, self.version, self.time)
        if not self.features or len(self.features) != len(self.customers):
            raise EventError(
                f"the request {self.event_id} has {len(self.features)} rows and {len(self.customers)} "
                "customers: send one row or more, and one customer (or null) for each"
            )
        for row, customer in enumerate(self.customers):
            if customer is not None:
                _check_text(EventError, f"customer of row {row}", customer, CUSTOMER)


@dataclass(frozen=True, slots=True)
class Response:
    """What the model answered: P(churn) and the decision for each row.

    `version` is what the body says (`model_version`), or else what the sink's address says.

    Raises:
        EventError: The ledger cannot hold it.
    """

    event_id: str
    service: str
    version: str
    time: int
    scores: list[float]
    churn: list[bool]

    def __post_init__(self) -> None:
        _check_event(self.event_id, self.service, self.version, self.time)
        if not self.scores or len(self.scores) != len(self.churn):
            raise EventError(
                f"the response {self.event_id} has {len(self.scores)} scores and {len(self.churn)} decisions"
            )
        for row, score in enumerate(self.scores):
            if not math.isfinite(score):
                raise EventError(f"the response {self.event_id} has the score {score} in row {row}")


@dataclass(frozen=True, slots=True)
class Label:
    """What became of a customer: `outcome` is a value of the contract's label column.

    Raises:
        LabelError: The ledger cannot hold it.
    """

    service: str
    customer_id: str
    outcome: str
    true_at: int
    known_at: int

    def __post_init__(self) -> None:
        _check_text(LabelError, "service", self.service, NAME)
        _check_text(LabelError, "customer_id", self.customer_id, CUSTOMER)
        _check_text(LabelError, "outcome", self.outcome, OUTCOME)
        _check_time(LabelError, "true_at", self.true_at)
        _check_time(LabelError, "known_at", self.known_at)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What could not be understood, and why. Credentials among the headers are not kept."""

    path: str
    reason: str
    headers: dict[str, str]
    body: bytes

    def clip(self) -> DeadLetter:
        """Return it as the ledger can hold it: text that every database takes, the body's first 64 KiB."""
        headers = {
            _clean(name): "(not kept)" if name.lower() in _SECRET_HEADERS else _clean(value)
            for name, value in self.headers.items()
        }
        return DeadLetter(
            _clean(self.path)[:400], _clean(self.reason), headers, bytes(self.body[:BODY_BYTES])
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """What the pilot did: from `at` on the versions have these shares (percent).

    Raises:
        EventError: The ledger cannot hold it.
    """

    id: str
    service: str
    at: int
    outcome: str
    shares: dict[str, int]
    reason: str
    evidence: dict[str, Any]

    def __post_init__(self) -> None:
        _check_text(EventError, "id", self.id, 64)
        _check_text(EventError, "service", self.service, NAME)
        _check_text(EventError, "outcome", self.outcome, 32)
        if _clean(self.reason) != self.reason:
            raise EventError("reason: has a NUL character or half a surrogate pair")
        _check_time(EventError, "at", self.at)


Record = Request | Response | Label | DeadLetter | Transition
"""Everything that `Writer.write` takes."""


def count_rows(records: Sequence[Record]) -> int:
    """Return how many rows these records speak of; a label or a letter is one."""
    return sum(
        len(record.features)
        if isinstance(record, Request)
        else len(record.scores)
        if isinstance(record, Response)
        else 1
        for record in records
    )


def _check_event(event_id: str, service: str, version: str, time: int) -> None:
    _check_text(EventError, "id of the event", event_id, EVENT_ID)
    _check_text(EventError, "service", service, NAME)
    _check_text(EventError, "version", version, NAME)
    _check_time(EventError, "time of the event", time)


def _check_text(kind: type[DetectorError], name: str, value: str, longest: int) -> None:
    """Refuse what PostgreSQL would refuse, as one bad text would spoil the whole transaction."""
    if not isinstance(value, str) or not value:
        raise kind(f"{name}: must be a text that is not empty, not {value!r:.80}")
    if len(value) > longest:
        raise kind(f"{name}: {value[:40]!r}... has {len(value)} characters, at most {longest} are kept")
    if value.isascii():
        if "\0" in value:
            raise kind(f"{name}: {value[:40]!r} has a NUL character")
    elif _clean(value) != value:
        raise kind(f"{name}: {value[:40]!r} has a NUL character or half a surrogate pair")


def _check_time(kind: type[DetectorError], name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LAST:
        raise kind(f"{name}: {value!r:.40} is no time between 1970 and 9999 in microseconds")


def _clean(text: str) -> str:
    """Return a text without what UTF-8 or PostgreSQL cannot hold."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
