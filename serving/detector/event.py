"""CloudEvents as KServe's agent and our predictor send them: binary, structured and batched.

Sources: CloudEvents 1.0 (HTTP binding, JSON format); the attributes are those of KServe's agent.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from clients.ledger.instant import now_us, parse_time, to_us
from serving.detector.errors import EventError

Kind = Literal["request", "response"]

BATCH, STRUCTURED = "application/cloudevents-batch", "application/cloudevents"
KINDS: dict[str, Kind] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One half of an inference.

    Attributes:
        id: The CloudEvent's id; request and response have the same.
        kind: Which half.
        service: InferenceService.
        version: Version that the address or the event names.
        time: Microseconds since 1970.
        body: The request's or response's body, unchanged.
    """

    id: str
    kind: Kind
    service: str
    version: str
    time: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """What the address says: service and version, or neither."""

    service: str | None = None
    version: str | None = None


class _Envelope(msgspec.Struct):
    """An event in CloudEvents' JSON format; other attributes are ignored."""

    id: str
    type: str
    specversion: str
    time: str | None = None
    inferenceservicename: str | None = None
    version: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_envelopes = msgspec.json.Decoder(list[_Envelope])
_raws = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Misfit:
    """A piece of a body that is no event of ours."""

    reason: str
    body: bytes


def read_events(headers: Mapping[str, str], body: bytes, place: Place) -> tuple[list[Event], list[Misfit]]:
    """Return the events that a POST carries, and what of it cannot be understood.

    Args:
        headers: The HTTP headers by lower-case name.
        body: The HTTP body.
        place: What the address says; it wins over what an event says.
    """
    content = headers.get("content-type", "").partition(";")[0].strip().lower()
    pieces: list[_Envelope | Misfit]
    if content.startswith(BATCH):
        pieces = _split_batch(body)
    elif content.startswith(STRUCTURED):
        pieces = [_decode(body)]
    else:
        return _collect([_read_headers(headers, body)], place)
    return _collect(pieces, place)


def _collect(pieces: list[_Envelope | Misfit], place: Place) -> tuple[list[Event], list[Misfit]]:
    events, misfits = [], []
    for piece in pieces:
        if isinstance(piece, Misfit):
            misfits.append(piece)
            continue
        try:
            events.append(_open(piece, place))
        except EventError as error:
            misfits.append(Misfit(str(error), _show(piece)))
    return events, misfits


def _split_batch(body: bytes) -> list[_Envelope | Misfit]:
    """Return the envelopes of a batch; one that is broken does not take the others with it."""
    try:
        return list(_envelopes.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        pieces = _raws.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [Misfit(f"the body is not a JSON list of CloudEvents: {error}", body)]
    return [_decode(bytes(piece)) for piece in pieces]


def _decode(body: bytes) -> _Envelope | Misfit:
    try:
        return _envelope.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Misfit(f"the body is not a CloudEvent in JSON: {error}", body)


def _read_headers(headers: Mapping[str, str], body: bytes) -> _Envelope | Misfit:
    """Return the envelope of an event in binary mode: its attributes are headers."""
    missing = [name for name in ("ce-id", "ce-type", "ce-specversion") if not headers.get(name)]
    if missing:
        return Misfit(f"the headers {', '.join(missing)} are missing: this is not a CloudEvent", body)
    return _Envelope(
        id=headers["ce-id"],
        type=headers["ce-type"],
        specversion=headers["ce-specversion"],
        time=headers.get("ce-time"),
        inferenceservicename=headers.get("ce-inferenceservicename"),
        version=headers.get("ce-version"),
        data=msgspec.Raw(body),
    )


def _open(envelope: _Envelope, place: Place) -> Event:
    """Check an envelope's attributes; the body is not looked at."""
    if not envelope.specversion.startswith("1."):
        raise EventError(f"specversion is {envelope.specversion[:40]!r}, expected 1.0")
    kind = KINDS.get(envelope.type)
    if kind is None:
        raise EventError(f"type is {envelope.type[:100]!r}, expected one of {', '.join(KINDS)}")
    service = place.service or envelope.inferenceservicename
    version = place.version or envelope.version
    if envelope.data_base64 is None:
        body = bytes(envelope.data)
    else:
        try:
            body = base64.b64decode(envelope.data_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise EventError(f"data_base64 is not base64: {error}") from error
    if not service or not version:
        raise EventError(
            "neither the address nor the event says which version of which service this is: post to "
            "/events/SERVICE/VERSION, or send the extensions inferenceservicename and version"
        )
    return Event(
        id=envelope.id,
        kind=kind,
        service=service,
        version=version,
        time=now_us() if envelope.time is None else read_time(envelope.time),
        body=body,
    )


def read_time(text: str) -> int:
    """Return an RFC 3339 time as microseconds since 1970; what is finer is cut off, no zone means UTC.

    Raises:
        EventError: It is no such time.
    """
    try:
        return to_us(parse_time(text))
    except (ValueError, OverflowError) as error:
        raise EventError(f"time {text[:60]!r} is not like 2026-01-31T12:00:00Z") from error


def _show(envelope: _Envelope) -> bytes:
    """Return an envelope as JSON, for the dead letters."""
    body = bytes(envelope.data)
    attributes = {
        name: value
        for name in ("id", "type", "specversion", "time", "inferenceservicename", "version", "data_base64")
        if (value := getattr(envelope, name)) is not None
    }
    return msgspec.json.encode(attributes) + b"\n" + body
