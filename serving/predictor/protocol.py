"""HTTP as uvicorn speaks it with httptools, with bounds on what a client may send and how long it may take.

uvicorn itself bounds neither headers nor time, and waits for ever for a client that says nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.predictor.encoding import render_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from serving.predictor.gate import Gate

ADMITTED = "tenure.admitted"
"""Key of an ASGI scope: whether the gate has let the request in; whoever answers it lets it out."""

RESPOND = "tenure.respond"
"""Key of an ASGI scope: writes a complete response (status, headers, body) and says whether it has."""

Scope = MutableMapping[str, Any]
Reply = tuple[int, Sequence[tuple[bytes, bytes]], bytes]
"""Status, headers and body of a response."""

_IDLE, _HEADER, _BODY = "idle", "header", "body"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may do.

    Attributes:
        header_bytes: Longest request line and headers.
        header_seconds: Time until they are complete, from the connection's or the request's first byte on.
        body_seconds: Time until the body is complete, and until an answer is taken.
    """

    header_bytes: int
    header_seconds: float
    body_seconds: float


class Protocol(HttpToolsProtocol):
    """One connection. `expire` must be called from time to time: a timer for each request would cost more.

    `refuse` counts a request that the gate does not admit, and returns what it is told.
    """

    def __init__(
        self, *arguments: Any, limits: Limits, gate: Gate, refuse: Callable[[Scope], Reply], **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self._limits = limits
        self._gate = gate
        self._refuse = refuse
        self._due = math.inf  # when what is being received must be complete
        self._taken_by = math.inf  # when what is being sent must be taken
        self._stage = _IDLE
        self._begun = 0  # requests
        self._header_bytes = self._unended_bytes = 0
        self._refusal = (400, "the request is not HTTP that is understood here")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin: the first request has to come."""
        super().connection_made(transport)
        self._due = self.loop.time() + self._limits.header_seconds

    def data_received(self, data: bytes) -> None:
        """Read a part of one or more requests."""
        if self._due == math.inf:
            self._due = self.loop.time() + self._limits.header_seconds
        # The one request whose header may be all that these bytes are.
        mine = {_IDLE: self._begun + 1, _HEADER: self._begun}.get(self._stage)
        super().data_received(data)
        if self._stage is _HEADER and self._begun == mine and not self.transport.is_closing():
            # The parser tells of a header when it ends, and this one may never do so.
            self._unended_bytes += len(data)
            if self._unended_bytes > self._limits.header_bytes:
                self._refuse_header()
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._due = self.loop.time() + self._limits.header_seconds
        self._stage = _HEADER
        self._begun += 1
        self._header_bytes = self._unended_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Read a part of the path."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start to answer the request."""
        self._stage = _BODY
        self._due = self.loop.time() + self._limits.body_seconds
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request."""
        super().on_message_complete()
        self._stage = _IDLE
        self._due = math.inf

    def pause_writing(self) -> None:
        """Note that the client does not take its answer."""
        super().pause_writing()
        self._taken_by = self.loop.time() + self._limits.body_seconds

    def resume_writing(self) -> None:
        """Note that it does."""
        super().resume_writing()
        self._taken_by = math.inf

    def expire(self, now: float) -> None:
        """Close the connection if its client is too slow."""
        if now >= self._taken_by:
            self.transport.abort()
            return
        if now < self._due or self.transport.is_closing():
            return
        cycle = self.cycle
        if self._stage is _BODY and cycle.response_started:
            self.transport.abort()  # it was answered before its body was complete, and goes on sending
        elif self._stage is not _BODY and cycle is not None and not cycle.response_complete:
            self._due = now + self._limits.header_seconds  # the answer to the one before comes first
        elif self._stage is _IDLE:
            self.transport.close()
        else:
            if self._stage is _BODY:
                cycle.disconnected = True
                cycle.message_event.set()
            self._refusal = (408, f"the request's {self._stage} was not complete in time")
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Say why a request is refused before it is one, and close the connection."""
        status, text = self._refusal
        body = render_error(text)
        self.transport.write(
            b"%scontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
            % (STATUS_LINE[status], len(body), body)
        )
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Scope = cycle.scope  # type: ignore[assignment]
        is_post = scope["method"] == "POST"
        scope[ADMITTED] = is_post and self._gate.try_enter()
        # Refused without a task, for under a flood that is most of the work; but if more requests wait on
        # this connection, the end of this one starts the next, and so on: then each has a task.
        if is_post and not scope[ADMITTED] and not self.pipeline and _respond(cycle, *self._refuse(scope)):
            return
        scope[RESPOND] = partial(_respond, cycle)
        super()._start_asgi_task(cycle, app)

    def _count(self, length: int) -> None:
        """Count bytes of the header; the parser takes the error to `send_400_response`."""
        self._header_bytes += length
        if self._header_bytes > self._limits.header_bytes:
            self._refuse_header()
            raise ValueError("the header is too long")

    def _refuse_header(self) -> None:
        most = self._limits.header_bytes
        self._refusal = (431, f"the request line and headers have more than {most} bytes, expected fewer")


def _respond(
    cycle: RequestResponseCycle, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Write a response in one piece; says whether it has, or ASGI must, which waits for a slow client.

    Through ASGI head and body are written apart: two system calls, and two packets for the client to read.
    """
    if cycle.flow.write_paused or cycle.disconnected or cycle.response_started:
        return False
    parts = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", body)
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def expire_connections(connections: Iterable[Any], now: float) -> None:
    """Close the connections of clients that are too slow."""
    for connection in list(connections):
        connection.expire(now)
