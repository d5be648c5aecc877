"""How the halves of a prediction, request and response, find each other within one transaction.

Both carry the same event id and come in any order, at any distance, any number of times.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, select

from clients.ledger.schema import halves, predictions
from serving.detector.records import DeadLetter, Request, Response

Half = Request | Response

CHUNK = 500
"""Event ids that one statement asks for; both databases limit its parameters."""

REQUEST, RESPONSE = "request", "response"


@dataclass(slots=True)
class Paired:
    """What a batch of halves amounts to, as rows to insert.

    Attributes:
        predictions: Rows of whole events.
        events: How many events those are.
        halves: Rows of events whose other half has not come.
        found: Event ids whose first half lay in the ledger and is spent now.
        letters: Pairs that do not fit together.
        duplicates: Halves that came before.
    """

    predictions: list[dict[str, Any]] = field(default_factory=list)
    events: int = 0
    halves: list[dict[str, Any]] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    duplicates: int = 0


def pair(connection: Connection, items: Sequence[Half], now: int) -> Paired:
    """Match halves with one another and with those that wait in the ledger; changes nothing there.

    Args:
        connection: Within the transaction that will insert the result.
        items: In order of arrival.
        now: When they were received.
    """
    result = Paired()
    fresh: dict[str, dict[str, Half]] = {}
    for item in items:
        kinds = fresh.setdefault(item.event_id, {})
        if _kind(item) in kinds:
            result.duplicates += 1
        else:
            kinds[_kind(item)] = item
    for event_id in _find_recorded(connection, fresh):
        result.duplicates += len(fresh.pop(event_id))
    waiting = _read_halves(connection, fresh)
    for event_id, kinds in fresh.items():
        earlier = waiting.get(event_id, {})
        result.duplicates += len(kinds.keys() & earlier.keys())
        known = kinds | earlier
        if len(known) == 2:
            _join(result, known[REQUEST], known[RESPONSE], now)
            if earlier:
                result.found.append(event_id)
        elif not earlier:
            result.halves.extend(_store(half, now) for half in kinds.values())
    return result


def forget_halves(connection: Connection, event_ids: Sequence[str]) -> None:
    """Delete the halves of these events."""
    for some in _chunk(event_ids):
        connection.execute(delete(halves).where(halves.c.event_id.in_(some)))


def encode_json(value: Any) -> str:
    """Return JSON in ASCII, so that every database holds any string; NaN and infinities become null."""
    try:
        return _ENCODER.encode(value)
    except ValueError:
        return _ENCODER.encode(_replace_nan(value))


def _find_recorded(connection: Connection, event_ids: Iterable[str]) -> list[str]:
    found: list[str] = []
    for some in _chunk(list(event_ids)):
        query = select(predictions.c.event_id).where(predictions.c.event_id.in_(some), predictions.c.row == 0)
        found.extend(connection.execute(query).scalars())
    return found


def _read_halves(connection: Connection, event_ids: Iterable[str]) -> dict[str, dict[str, Half]]:
    found: dict[str, dict[str, Half]] = {}
    for some in _chunk(list(event_ids)):
        for row in connection.execute(select(halves).where(halves.c.event_id.in_(some))):
            found.setdefault(row.event_id, {})[row.kind] = _restore(row)
    return found


def _join(result: Paired, request: Half, response: Half, now: int) -> None:
    assert isinstance(request, Request)  # noqa: S101
    assert isinstance(response, Response)  # noqa: S101
    if request.service != response.service or len(request.features) != len(response.scores):
        reason = (
            f"event {request.event_id}: a request of {len(request.features)} rows at {request.service} and a "
            f"response of {len(response.scores)} rows at {response.service} do not belong together: an "
            "event id must never be used twice"
        )
        body = encode_json({"request": _dump(request), "response": _dump(response)}).encode()
        result.letters.append(DeadLetter(f"/events/{response.service}/{response.version}", reason, {}, body))
        return
    result.events += 1
    latency = (response.time - request.time) / 1000
    result.predictions.extend(
        {
            "event_id": request.event_id,
            "row": row,
            "service": request.service,
            "version": response.version,
            "customer_id": request.customers[row],
            "time": request.time,
            "recorded_at": now,
            "features": encode_json(request.features[row]),
            "score": response.scores[row],
            "churn": response.churn[row],
            "latency_ms": latency,
        }
        for row in range(len(request.features))
    )


def _kind(half: Half) -> str:
    return REQUEST if isinstance(half, Request) else RESPONSE


def _dump(half: Half) -> dict[str, Any]:
    if isinstance(half, Request):
        return {"customers": half.customers, "features": half.features}
    return {"scores": half.scores, "churn": half.churn}


def _store(half: Half, now: int) -> dict[str, Any]:
    return {
        "event_id": half.event_id,
        "kind": _kind(half),
        "service": half.service,
        "version": half.version,
        "time": half.time,
        "received_at": now,
        "body": encode_json(_dump(half)),
    }


def _restore(row: Any) -> Half:
    make: type[Request] | type[Response] = Request if row.kind == REQUEST else Response
    return make(row.event_id, row.service, row.version, row.time, **json.loads(row.body))


def _chunk(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def _to_plain(value: Any) -> Any:
    """Turn a number of numpy into Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in JSON")


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_to_plain)


def _replace_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _replace_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
