"""The detector's HTTP addresses, as a plain ASGI application: events come thousands a second.

Nothing is acknowledged (200) before the ledger has it durably. 503 with Retry-After means: send it again.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr

from clients.errors import ClientError
from clients.ledger.instant import now_us
from serving.detector.body import read_body
from serving.detector.errors import EventError, LedgerError
from serving.detector.event import Event, Misfit, Place, read_events
from serving.detector.intake import (
    IntakeError,
    read_labels,
    read_notice,
    read_transitions,
    show_refusals,
)
from serving.detector.metrics import Metrics
from serving.detector.records import DeadLetter, Record
from serving.detector.sink import FullError, Sink

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Reply = tuple[int, Any]

_JSON = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode
_INLINE_BYTES = 256 * 1024  # about 5 ms of reading; more goes to a thread, so that others are answered


class Watches(Protocol):
    """What the addresses need of the watcher."""

    def notify(self, uri: str) -> None:
        """Look at a new object soon."""

    def status(self) -> dict[str, Any]:
        """Return what it sees and what it waits for, as JSON; raises ClientError."""

    def find_problem(self, service: str, outcome: str) -> str | None:
        """Say what the service's contract has against an outcome; None: nothing, or not known."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Longest body in bytes, and the name of the customer's id in requests."""

    body: int
    id_name: str


class _HttpError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Application:
    """Answers every address of the detector.

    Args:
        sink: Takes what is posted; started.
        metrics: Shown, and counted in.
        watcher: Is told of new objects and asked for its state.
        check: Raises LedgerError when the ledger cannot be written; may block.
        limits: Of bodies.
        token: What those who post must know; without one nobody must.
        open_events: Whether events are taken without it, for KServe's agent can send none.
    """

    def __init__(
        self,
        sink: Sink,
        metrics: Metrics,
        watcher: Watches,
        check: Callable[[], None],
        limits: Limits,
        token: SecretStr | None = None,
        *,
        open_events: bool = False,
    ) -> None:
        self._sink = sink
        self._metrics = metrics
        self._watcher = watcher
        self._check = check
        self._limits = limits
        self._expected = f"Bearer {token.get_secret_value()}".encode() if token else None
        self._open_events = open_events
        self._too_long = f"the body has more than {limits.body} bytes: send less at a time"
        self._gets: dict[str, Callable[[], Awaitable[Reply]]] = {
            "/healthz": self._show_health,
            "/readyz": self._show_readiness,
            "/metrics": self._show_metrics,
            "/status": self._show_status,
        }
        self._posts: dict[str, Callable[[bytes], Awaitable[Reply]]] = {
            "/labels": self._take_labels,
            "/transitions": self._take_transitions,
            "/notifications": self._take_notice,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event as ASGI demands."""
        if scope["type"] != "http":
            return
        try:
            status, document = await self._answer(scope, receive)
        except _HttpError as error:
            status, document = error.status, {"error": str(error)}
        except (FullError, LedgerError, ClientError) as error:
            status, document = 503, {"error": str(error)}
        except IntakeError as error:
            status, document = 400, {"error": str(error)}
        text = isinstance(document, bytes)
        body = document if text else _encode(document)
        kind = (b"content-type", CONTENT_TYPE_LATEST.encode()) if text else _JSON
        headers = [kind, (b"content-length", b"%d" % len(body))]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD") and path in self._gets:
            return await self._gets[path]()
        is_events = path == "/events" or path.startswith("/events/")
        if method != "POST" or not (is_events or path in self._posts):
            known = is_events or path in self._posts or path in self._gets
            raise _HttpError(405 if known else 404, f"there is no {method} {path[:200]} here")
        if not (is_events and self._open_events):
            self._authorize(scope)
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            self._sink.reserve(size)
            reserved += size

        try:
            body = await self._read(scope, receive, reserve)
            if is_events:
                return await self._take_events(scope, body)
            return await self._posts[path](body)
        finally:
            self._sink.release(reserved)

    def _authorize(self, scope: Scope) -> None:
        """Refuse who does not know the token, if there is one."""
        if self._expected is None:
            return
        for key, value in scope["headers"]:
            if key == b"authorization" and hmac.compare_digest(value, self._expected):
                return
        raise _HttpError(
            401, f"{scope['path'][:200]} needs the detector's bearer token: TENURE_DETECTOR_TOKEN"
        )

    async def _read(self, scope: Scope, receive: Receive, reserve: Callable[[int], None]) -> bytes:
        """Return the body, having made room for it."""
        for key, value in scope["headers"]:
            if key == b"content-length" and value.isdigit() and int(value) > self._limits.body:
                raise _HttpError(413, self._too_long)
            if key == b"origin":
                # A page in a browser on this machine can post here unseen; our programs name no origin.
                raise _HttpError(403, "browsers may not post here")
            if key == b"content-encoding" and value != b"identity":
                raise _HttpError(415, "the body is compressed: send it as it is")
        parts, length = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _HttpError(400, "the sender has gone away")
            part = message.get("body", b"")
            length += len(part)
            if length > self._limits.body:
                raise _HttpError(413, self._too_long)
            reserve(len(part))
            parts.append(part)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _take_events(self, scope: Scope, body: bytes) -> Reply:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        path = scope["path"]
        if len(body) > _INLINE_BYTES:
            batch = await asyncio.to_thread(self._read_events, headers, body, path)
        else:
            batch = self._read_events(headers, body, path)
        try:
            await self._sink.submit(batch.records)
        except (FullError, LedgerError):
            for kind, _ in batch.outcomes.elements():
                self._metrics.events.labels(kind, "refused").inc()
            raise
        for (kind, outcome), count in batch.outcomes.items():
            self._metrics.events.labels(kind, outcome).inc(count)
        return 200, {"events": batch.events, "dead_letters": batch.letters}

    def _read_events(self, headers: dict[str, str], body: bytes, path: str) -> _Batch:
        """Return the records of a body; what cannot be understood is one too."""
        batch = _Batch([], Counter())
        place, problem = _read_place(path)
        if problem is not None:
            events: list[Event] = []
            misfits = [Misfit(problem, body)]
        else:
            events, misfits = read_events(headers, body, place)
        for event in events:
            try:
                batch.records.append(read_body(event, self._limits.id_name))
                batch.outcomes[event.kind, "recorded"] += 1
            except EventError as error:
                text = f"{event.kind} {event.id[:200]}: {error}"
                batch.records.append(DeadLetter(path, text, headers, event.body))
                batch.outcomes[event.kind, "dead_letter"] += 1
        for misfit in misfits:
            batch.records.append(DeadLetter(path, misfit.reason, headers, misfit.body))
            batch.outcomes["unknown", "dead_letter"] += 1
        return batch

    async def _take_labels(self, body: bytes) -> Reply:
        labels, refused = await asyncio.to_thread(read_labels, body, now_us(), self._watcher.find_problem)
        await self._sink.submit([*labels])
        self._metrics.labels.labels("recorded").inc(len(labels))
        self._metrics.labels.labels("refused").inc(len(refused))
        return 200, {"accepted": len(labels), "refused": show_refusals(refused)}

    async def _take_transitions(self, body: bytes) -> Reply:
        transitions, refused = read_transitions(body)
        if refused:
            return 400, {"accepted": 0, "refused": show_refusals(refused)}
        await self._sink.submit([*transitions])
        return 200, {"accepted": len(transitions), "refused": []}

    async def _take_notice(self, body: bytes) -> Reply:
        uris = read_notice(body)
        for uri in uris:
            self._watcher.notify(uri)
        return 200, {"notified": uris}

    async def _show_health(self) -> Reply:
        return 200, {"alive": True}

    async def _show_readiness(self) -> Reply:
        await asyncio.to_thread(self._check)
        return 200, {"ready": True}

    async def _show_metrics(self) -> Reply:
        return 200, await asyncio.to_thread(generate_latest, self._metrics.registry)

    async def _show_status(self) -> Reply:
        watcher = await asyncio.to_thread(self._watcher.status)
        return 200, {"sink": self._sink.describe(), "watcher": watcher}


@dataclass(slots=True)
class _Batch:
    """What a body of events amounts to: records, and how many by kind and outcome."""

    records: list[Record]
    outcomes: Counter[tuple[str, str]]

    @property
    def events(self) -> int:
        return sum(count for (_, outcome), count in self.outcomes.items() if outcome == "recorded")

    @property
    def letters(self) -> int:
        return sum(count for (_, outcome), count in self.outcomes.items() if outcome == "dead_letter")


def _read_place(path: str) -> tuple[Place, str | None]:
    """Return what the address says, or what is wrong with it: /events or /events/SERVICE/VERSION."""
    parts = path.strip("/").split("/")[1:]
    if not parts:
        return Place(), None
    if len(parts) != 2 or not all(parts):
        return Place(), f"the address {path[:200]!r} is not /events/SERVICE/VERSION"
    return Place(*parts), None
