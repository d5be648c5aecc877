"""Clients that send one request again and again over one connection: bare asyncio protocols, for their cost.

grpc.aio would cost as much as some servers do, so gRPC goes over the few HTTP/2 frames that a unary call
needs (RFC 9113; header blocks by RFC 7541 without the dynamic table; gRPC over HTTP/2 for the rest).
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from typing import cast

HOST = "127.0.0.1"
INFER = "/inference.GRPCInferenceService/ModelInfer"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_FRAME = struct.Struct(">BHBBI")  # length (24 bits), type, flags, stream
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_MOST_DATA = 16_384  # in one frame
_FIRST_WINDOW = 65_535
_WIDEST_WINDOW = 2**31 - 1
_CLOSED = "the server closed the connection"
_GOOD = b"\x0bgrpc-status\x010"


class LoadError(Exception):
    """A server answered with an error, or not at all."""


class Client(asyncio.Protocol):
    """One connection, with one request under way at most."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = b""
        self._begin = self._until = 0.0
        self._times: list[float] = []
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are of no such class

    async def run(self, until: float, times: list[float]) -> None:
        """Send requests until then; append the seconds that each took.

        Raises:
            LoadError: An answer is an error, or none.
        """
        if self.closed:
            raise LoadError(_CLOSED)
        self._until, self._times = until, times
        self._done = asyncio.get_running_loop().create_future()
        self._begin = time.perf_counter()
        self._send()
        await self._done

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection."""
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self._fail(_CLOSED)

    def _send(self) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Take the time of an answer, and send again."""
        now = time.perf_counter()
        self._times.append(now - self._begin)
        if now < self._until:
            self._begin = now
            self._send()
        elif self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, problem: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(LoadError(problem))


class HttpClient(Client):
    """One HTTP/1.1 connection; takes answers of status 200 only."""

    _end = 0

    def _send(self) -> None:
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        if not self._end:
            body = received.find(b"\r\n\r\n") + 4
            if body < 4:
                return
            length = _LENGTH.search(received, 0, body)
            if not received.startswith(b"HTTP/1.1 200 "):
                self._fail(f"unexpected answer: {received[:500].decode(errors='replace')}")
                return
            self._end = body + int(length[1]) if length else find_end(received, body)
        if not self._end or len(received) < self._end:
            return
        self._received, self._end = b"", 0
        self._finish()


def find_end(received: bytes, body: int) -> int:
    """Return where a chunked answer whose body begins at `body` ends; 0 if it has not arrived as a whole."""
    while True:
        line = received.find(b"\r\n", body)
        if line < 0:
            return 0
        size = int(received[body:line], 16)
        body = line + size + 4
        if body > len(received):
            return 0
        if not size:
            return body


class GrpcClient(Client):
    """One HTTP/2 connection of unary calls; takes answers of status 0 only."""

    def __init__(self, request: bytes) -> None:
        super().__init__(b"\0" + struct.pack(">I", len(request)) + request)
        self._stream = -1
        self._window = _FIRST_WINDOW
        self._waits = False
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # No dynamic table, no pushes, and windows that need no more updates.
        settings = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, _WIDEST_WINDOW)
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(_SETTINGS, 0, 0, settings)
            + frame(_WINDOW, 0, 0, struct.pack(">I", _WIDEST_WINDOW - _FIRST_WINDOW))
        )

    def _send(self) -> None:
        request = self._request
        self._waits = self._window < len(request)
        if self._waits:
            return
        self._window -= len(request)
        self._stream += 2
        self._answered = False
        parts = [frame(_HEADERS, _END_HEADERS, self._stream, _HEAD)]
        for start in range(0, len(request), _MOST_DATA):
            part = request[start : start + _MOST_DATA]
            last = start + _MOST_DATA >= len(request)
            parts.append(frame(_DATA, _END_STREAM if last else 0, self._stream, part))
        self._transport.write(b"".join(parts))

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        position = 0
        while len(received) - position >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(received, position)
            start = position + _FRAME.size
            end = start + (high << 16 | low)
            if end > len(received):
                break
            position = end
            if kind == _DATA:
                self._answered = True
            elif kind == _HEADERS:
                if flags & _END_STREAM:
                    self._end_call(received[start:end])
            else:
                self._control(kind, flags, stream, received[start:end])
        self._received = received[position:]

    def _end_call(self, trailers: bytes) -> None:
        if self._answered and _GOOD in trailers:
            self._finish()
        else:
            self._fail(f"unexpected answer: {trailers.decode(errors='replace')}")

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Handle what belongs to the connection."""
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._transport.write(frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _WINDOW and not stream:
            self._window += int.from_bytes(payload)
            if self._waits:
                self._send()
        elif kind in (_RESET, _GO_AWAY):
            self._fail(f"the server ended the call: {payload!r}")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _text(value: str) -> bytes:
    """Return a short string of a header block, not compressed."""
    return bytes([len(value)]) + value.encode()


# Static names by number (method POST, scheme http, path, authority, content-type), values never indexed.
_HEAD = (
    b"\x83\x86\x04" + _text(INFER) + b"\x01" + _text(HOST) + b"\x0f\x10" + _text("application/grpc")
    + b"\x00" + _text("te") + _text("trailers")
)  # fmt: skip


async def open_client(wire: str, port: int, request: bytes) -> Client:
    """Connect; the wire is http or grpc."""
    kind = GrpcClient if wire == "grpc" else HttpClient
    _, client = await asyncio.get_running_loop().create_connection(lambda: kind(request), HOST, port)
    return client
