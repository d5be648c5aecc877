"""REST as the kit speaks it: any bytes, bounded in time and size, and no answer that is lost."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from oip_conformance.errors import BrokenError, UsageError

JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"
HEADER_LENGTH = "Inference-Header-Content-Length"
_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RestRequest:
    """One request over REST.

    Attributes:
        note: What is wrong with it, for the scorecard.
        path: Below the URL; empty for the model's inference endpoint.
        raw: Bytes for the connection instead of all else; the end of sending follows if `half_close`.
    """

    body: bytes = b""
    note: str = ""
    method: str = "POST"
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": JSON_TYPE})
    raw: bytes | None = None
    half_close: bool = False

    def describe(self) -> str:
        """Return the request in short."""
        return self.note or f"{self.method} {self.path} {shorten(self.body)}".strip()


@dataclass(frozen=True, slots=True)
class RestReply:
    """What came.

    Attributes:
        status: None if no whole answer came; `problem` then says why.
        closed: The connection was closed instead.
    """

    status: int | None
    headers: Mapping[str, str]
    body: bytes
    problem: str = ""
    closed: bool = False

    def describe(self) -> str:
        """Return the answer in short."""
        return self.problem or f"{self.status} {shorten(self.body)}"

    def read_json(self) -> Any:
        """Return the body's document.

        Raises:
            BrokenError: It is none; NaN and Infinity are not JSON.
        """
        text = self.body
        length = self.headers.get(HEADER_LENGTH.lower())
        if length is not None and length.isdigit() and len(length) < 19:
            text = text[: int(length)]
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BrokenError(f"the body is not JSON ({error}): {shorten(text)}") from error

    def find_error(self) -> str | None:
        """Return the message of an error object, None if the body is no such thing."""
        try:
            document = self.read_json()
        except BrokenError:
            return None
        message = document.get("error") if isinstance(document, dict) else None
        return message if isinstance(message, str) and message.strip() else None


class RestClient:
    """Sends requests to one server."""

    def __init__(self, url: str, seconds: float) -> None:
        """Take an address; `seconds` bound each request as a whole.

        Raises:
            UsageError: It is no http:// or https:// URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no http:// or https:// URL")
        self._base = url.rstrip("/")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._seconds = seconds
        # Bodies are judged as they come: a compressed one could not be.
        self._client = httpx.Client(
            trust_env=False, timeout=seconds, follow_redirects=False, headers={"Accept-Encoding": "identity"}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def authority(self) -> str:
        """Value of a Host header."""
        return f"{self._host}:{self._port}"

    @property
    def prefix(self) -> str:
        """Path of the URL."""
        return self._prefix

    @property
    def plain(self) -> bool:
        """Whether raw bytes can be sent: there is no TLS."""
        return not self._tls

    def get(self, path: str) -> RestReply:
        """Ask for a document."""
        return self.send(RestRequest(method="GET", path=path, headers={}))

    def send(self, request: RestRequest) -> RestReply:
        """Send a request, and wait for its answer within the time that is allowed."""
        if request.raw is not None:
            return self._send_raw(request.raw, request.half_close)
        reply = self._send_once(request)
        # A connection that the server had closed before is found out only when it is used again.
        return self._send_once(request) if reply.closed else reply

    def _send_once(self, request: RestRequest) -> RestReply:
        deadline = time.monotonic() + self._seconds
        try:
            with self._client.stream(
                request.method,
                f"{self._base}/{request.path.lstrip('/')}",
                content=request.body if request.method != "GET" else None,
                headers=dict(request.headers),
            ) as response:
                parts, length = [], 0
                for part in response.iter_raw():
                    parts.append(part)
                    length += len(part)
                    if time.monotonic() > deadline or length > _MOST_BYTES:
                        return RestReply(None, {}, b"", f"no end of the answer after {self._seconds:g} s")
                headers = {key.lower(): value for key, value in response.headers.items()}
                return RestReply(response.status_code, headers, b"".join(parts))
        except httpx.TimeoutException:
            return RestReply(None, {}, b"", f"no answer within {self._seconds:g} s")
        except httpx.HTTPError as error:
            return RestReply(None, {}, b"", f"no answer: {error!r}"[:200], closed=True)

    def _send_raw(self, raw: bytes, half_close: bool) -> RestReply:
        """Send these bytes over a connection of their own, and read one answer."""
        try:
            with socket.create_connection((self._host, self._port), self._seconds) as connection:
                # A server may answer, and close, before it has read everything.
                with contextlib.suppress(ConnectionError):
                    connection.sendall(raw)
                    if half_close:
                        connection.shutdown(socket.SHUT_WR)
                with HTTPResponse(connection) as response:
                    response.begin()
                    headers = {key.lower(): value for key, value in response.getheaders()}
                    return RestReply(response.status, headers, response.read(_MOST_BYTES))
        except TimeoutError:
            return RestReply(None, {}, b"", f"no answer within {self._seconds:g} s")
        except (OSError, HTTPException) as error:
            return RestReply(None, {}, b"", f"closed: {error!r}"[:200], closed=True)


def shorten(text: bytes | str, most: int = 160) -> str:
    """Return a text as one line that is not too long."""
    text = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    line = " ".join(text[: most * 2].split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= most and len(text) <= most * 2 else f"{line[: most - 3]}..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
