"""What others than the model servers report: labels, transitions of roll-outs, and new objects in the store.

Sources: Amazon S3's event notifications (also as CloudEvents, by the CloudEvents adapter for AWS S3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn
from urllib.parse import unquote_plus

import msgspec

from clients.ledger.instant import parse_time, to_us
from serving.detector.errors import DetectorError, EventError, LabelError
from serving.detector.records import Label, Transition

FindProblem = Callable[[str, str], str | None]
"""Given a service and an outcome, says what its contract has against that outcome (None: nothing)."""


class IntakeError(DetectorError):
    """The body is not what the address takes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not taken: its place in the body from 0, which field is wrong, and how."""

    row: int
    field: str
    message: str


class _FieldError(LabelError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def read_labels(body: bytes, now: int, find_problem: FindProblem) -> tuple[list[Label], list[Refusal]]:
    """Return the labels of a body, and the rows that are none.

    Args:
        body: A JSON list of labels, or an object with that list under `labels`. Each has `service`,
            `customer_id`, `outcome` and `true_at`, and may have `known_at` (now, if not). Times are ISO 8601
            (no zone means UTC) or microseconds since 1970; a boolean outcome becomes "true" or "false".
        now: Microseconds since 1970.
        find_problem: Knows what the contracts allow.

    Raises:
        IntakeError: The body is no such JSON.
    """
    labels, refused = [], []
    for row, document in enumerate(_read_list(body, "labels")):
        try:
            labels.append(_read_label(document, now, find_problem))
        except _FieldError as error:
            refused.append(Refusal(row, error.field, error.message))
        except LabelError as error:  # the record's own: a text that is too long, a time out of range
            refused.append(Refusal(row, str(error).partition(":")[0], str(error)))
    return labels, refused


def _read_label(document: object, now: int, find_problem: FindProblem) -> Label:
    fields = _read_object(document)
    outcome = fields.get("outcome")
    if isinstance(outcome, bool):
        outcome = "true" if outcome else "false"
    service = _read_text(fields, "service")
    outcome = _read_text({"outcome": outcome}, "outcome")
    label = Label(
        service=service,
        customer_id=_read_text(fields, "customer_id", numbers=True),
        outcome=outcome,
        true_at=_read_time(fields, "true_at"),
        known_at=now if fields.get("known_at") is None else _read_time(fields, "known_at"),
    )
    problem = find_problem(service, outcome)
    if problem is not None:
        _refuse("outcome", problem)
    return label


def read_transitions(body: bytes) -> tuple[list[Transition], list[Refusal]]:
    """Return the transitions of a body (a JSON list, or one under `transitions`), and the rows that are none.

    Raises:
        IntakeError: The body is no such JSON.
    """
    transitions, refused = [], []
    for row, document in enumerate(_read_list(body, "transitions")):
        try:
            transitions.append(_read_transition(document))
        except _FieldError as error:
            refused.append(Refusal(row, error.field, error.message))
        except EventError as error:
            refused.append(Refusal(row, str(error).partition(":")[0], str(error)))
    return transitions, refused


def _read_transition(document: object) -> Transition:
    fields = _read_object(document)
    shares = fields.get("shares")
    if not isinstance(shares, dict) or not all(type(share) is int for share in shares.values()):
        _refuse("shares", "expected an object: version -> whole percent")
    evidence = fields.get("evidence")
    if not isinstance(evidence, dict):
        _refuse("evidence", "expected an object")
    reason = fields.get("reason", "")
    if not isinstance(reason, str):
        _refuse("reason", "expected a text")
    return Transition(
        id=_read_text(fields, "id"),
        service=_read_text(fields, "service"),
        at=_read_time(fields, "at"),
        outcome=_read_text(fields, "outcome"),
        shares=shares,
        reason=reason.replace("\0", ""),
        evidence=evidence,
    )


def read_notice(body: bytes) -> list[str]:
    """Return the addresses (`s3://BUCKET/KEY`) of the objects that a notification calls new.

    Args:
        body: An S3 event notification, that in the `data` of a CloudEvent in JSON, or one of its records.

    Raises:
        IntakeError: It is none of these.
    """
    document = _decode(body)
    if isinstance(document, dict) and "data" in document and "specversion" in document:
        document = document["data"]
    records = document.get("Records", [document]) if isinstance(document, dict) else None
    if not isinstance(records, list):
        raise IntakeError("the body is not an S3 event notification: Records is no list")
    uris = []
    for row, record in enumerate(records):
        try:
            name, entity = record.get("eventName", "ObjectCreated"), record["s3"]
            bucket, key = entity["bucket"]["name"], entity["object"]["key"]
            created = "ObjectCreated" in name
        except (KeyError, TypeError, AttributeError) as error:
            raise IntakeError(f"Records: row {row} is no record of an S3 event ({error})") from error
        if not (isinstance(bucket, str) and isinstance(key, str) and bucket and key):
            raise IntakeError(f"Records: row {row}: bucket and key must be texts")
        if created:
            uris.append(f"s3://{bucket}/{unquote_plus(key)}")
    return uris


def show_refusals(refused: Sequence[Refusal]) -> list[dict[str, Any]]:
    """Return refusals as JSON."""
    return [asdict(refusal) for refusal in refused]


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntakeError(f"the body is not JSON: {error}") from error


def _read_list(body: bytes, key: str) -> list[object]:
    document = _decode(body)
    rows = document.get(key) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise IntakeError(f'the body is neither a JSON list nor an object with a list under "{key}"')
    return rows


def _read_object(document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        _refuse("", "expected an object")
    return document


def _read_text(fields: dict[str, Any], name: str, *, numbers: bool = False) -> str:
    value = fields.get(name)
    if numbers and type(value) is int:
        return str(value)
    if value is None or value == "":
        _refuse(name, "is missing")
    if not isinstance(value, str):
        _refuse(name, f"{repr(value)[:60]} is not a text")
    return value


def _read_time(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if value is None:
        _refuse(name, "is missing")
    if isinstance(value, str):
        with contextlib.suppress(ValueError, OverflowError):
            value = to_us(parse_time(value))
    if type(value) is int:
        return value
    return _refuse(
        name, f"{repr(value)[:60]} is neither like 2026-01-31T12:00:00Z nor microseconds since 1970"
    )


def _refuse(field: str, message: str) -> NoReturn:
    raise _FieldError(field, message)
