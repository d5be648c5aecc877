"""The hot path: V2 inference over REST as a plain ASGI route in front of kserve's application.

kserve's own route parses with FastAPI and pydantic and times in two middlewares: several times what the
model costs. Everything but `POST /v2/models/NAME[/versions/VERSION]/infer` goes on to kserve, with its body
read and bounded here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from serving.predictor.decoding import COMPLETE, Query, Wanted
from serving.predictor.encoding import is_complete, render_error, render_query, render_response
from serving.predictor.engine import Answer, Engine
from serving.predictor.errors import (
    BusyError,
    PredictorError,
    RequestError,
    TooLargeError,
    UnknownModelError,
    UnsupportedMediaError,
)
from serving.predictor.events import Events, Inference
from serving.predictor.gate import RETRY_SECONDS
from serving.predictor.protocol import ADMITTED, RESPOND, Reply, Scope
from serving.predictor.tensors import parse_request
from tenure.encoding import show

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_PREFIX, _SUFFIX = "/v2/models/", "/infer"
_JSON = (b"content-type", b"application/json")
_RETRY = (b"retry-after", b"%d" % RETRY_SECONDS)
_BINARY = (b"content-type", b"application/octet-stream")
_HEADER_LENGTH = b"inference-header-content-length"
_TYPES = frozenset(
    {
        b"application/json",
        b"application/octet-stream",
        b"application/x-www-form-urlencoded",  # what curl -d says unless it is told otherwise
    }
)
_READ_BODIES = 8  # so many of the longest bodies may be on their way at a time
_LONGEST_NUMBER = 18  # digits of a length


class _Reply(NamedTuple):
    """A response's body, the length of its JSON if more follows, and what it says; the query behind it, and
    whether that differs from the request's JSON.
    """

    body: bytes
    header_length: int | None
    query: Query
    answer: Answer
    altered: bool


class FastPath:
    """Answers V2 inference itself and passes everything else on."""

    def __init__(self, application: Application, engine: Engine, name: str, max_body_bytes: int) -> None:
        self._application = application
        self._gate = engine.gate
        self._max_read_bytes = _READ_BODIES * max_body_bytes
        self._reading = 0  # bytes of bodies that are not complete yet
        self._engine = engine
        self._name = name
        self._max_body_bytes = max_body_bytes
        error = self._gate.refuse()
        busy = render_error(str(error))
        self._busy = error.status, (_JSON, _RETRY, (b"content-length", b"%d" % len(busy))), busy
        self._v1_path = f"/v1/models/{name}:predict"
        self._paths = {
            f"{_PREFIX}{name}{_SUFFIX}",
            f"{_PREFIX}{name}/versions/{engine.version}{_SUFFIX}",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event as ASGI demands."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._application(scope, receive, send)
            return
        admitted = scope.get(ADMITTED)
        if admitted is None:  # a server without our protocol
            admitted = self._gate.try_enter()
        if not admitted:
            status, headers, body = self.refuse(scope)
            await send({"type": "http.response.start", "status": status, "headers": list(headers)})
            await send({"type": "http.response.body", "body": body})
            return
        try:
            await self._answer(scope, receive, send)
        finally:
            self._gate.leave()

    def refuse(self, scope: Scope) -> Reply:
        """Count a request that the gate does not admit, and return what it is told."""
        path = scope["path"]
        if path in self._paths or path == self._v1_path:
            self._engine.metrics.count_busy("v2" if path in self._paths else "v1")
        return self._busy

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that was admitted."""
        path = scope["path"]
        is_infer = path in self._paths or (path.startswith(_PREFIX) and path.endswith(_SUFFIX))
        began = time.time_ns()
        body = None
        try:
            header_length = _check_headers(scope["headers"], self._max_body_bytes)
            if is_infer and path not in self._paths:
                raise UnknownModelError(self._explain(path))
            body = await self._read(receive)
            if body is None:
                return
            if not is_infer:
                await self._pass_on(scope, body, receive, send, began)
                return
            with self._engine.metrics.watch("v2"):
                reply = await self._infer(body, header_length)
        except PredictorError as error:
            await _refuse(scope, send, error)
            if body is not None and path in self._paths:
                self._log(scope, began, body, None)
            return
        if reply.header_length is None:
            await _respond(scope, send, 200, reply.body, _JSON)
        else:
            length = (_HEADER_LENGTH, b"%d" % reply.header_length)
            await _respond(scope, send, 200, reply.body, _BINARY, length)
        if self._find_events(scope) is not None:
            self._log(scope, began, *self._tell(body, reply))

    async def _infer(self, body: bytes, header_length: int | None) -> _Reply:
        """Answer one inference request."""
        request = parse_request(body, header_length)
        query = self._engine.decoder.read(request)
        answer = await self._engine.answer(query)
        text, length = self._render(answer, query.wanted, request.id)
        return _Reply(text, length, query, answer, query.altered or header_length is not None)

    def _render(
        self, answer: Answer, wanted: tuple[Wanted, ...], request_id: str | None
    ) -> tuple[bytes, int | None]:
        return render_response(
            answer, wanted, model=self._name, version=self._engine.version, request_id=request_id
        )

    def _tell(self, body: bytes, reply: _Reply) -> tuple[bytes, bytes]:
        """Return request and response for the log: in JSON, with nulls, probability and decision."""
        request = render_query(reply.query, self._engine.decoder.datatypes) if reply.altered else body
        if is_complete(reply.query.wanted):
            return request, reply.body
        return request, self._render(reply.answer, COMPLETE, None)[0]

    async def _pass_on(self, scope: Scope, body: bytes, receive: Receive, send: Send, began: int) -> None:
        """Give a request to kserve; what V1 answers is logged."""
        if self._find_events(scope) is None or scope["path"] != self._v1_path:
            await self._application(scope, _replay(body, receive), send)
            return
        status, parts = 0, []

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
            await send(message)

        await self._application(scope, _replay(body, receive), watch)
        if status == 200:
            self._log(scope, began, self._engine.decoder.clean_instances(body), b"".join(parts))
        else:
            self._log(scope, began, body, None)

    def _find_events(self, scope: Scope) -> Events | None:
        """Return where a request is logged; None if it is not, or the agent that passed it on does it."""
        engine = self._engine
        if engine.direct_only and engine.events is not None and _is_loopback(scope):
            return None
        return engine.events

    def _log(self, scope: Scope, began: int, request: bytes, response: bytes | None) -> None:
        """Log an inference; without a response its request may be anything."""
        events = self._find_events(scope)
        if events is None:
            return
        given = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"ce-id"), None)
        is_json = response is not None
        events.log(Inference(events.make_id(given), began, time.time_ns(), request, is_json, response))

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the request's body, None if the client has gone away."""
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message.get("body", b"")
            _check_length(len(body), self._max_body_bytes)
            return body
        parts, length = [], 0
        self._gate.leave()  # it is not complete: whoever sends slowly takes nobody's place
        try:
            while message["type"] == "http.request":
                part = message.get("body", b"")
                parts.append(part)
                length += len(part)
                self._reading += len(part)
                _check_length(length, self._max_body_bytes)
                if self._reading > self._max_read_bytes:
                    raise BusyError(
                        "the server is busy: too many long bodies are on their way, send it again"
                    )
                if not message.get("more_body"):
                    break
                message = await receive()
            else:
                return None
        finally:
            self._reading -= length
            self._gate.waiting += 1
        self._gate.check()
        return b"".join(parts)

    def _explain(self, path: str) -> str:
        name, _, version = path[len(_PREFIX) : -len(_SUFFIX)].partition("/versions/")
        if name == self._name and version:
            return f"version {version[:60]} of {name} is not served here, only {self._engine.version} is"
        return f"model {name[:60]!r} is not served here, only {self._name!r} is"


def _check_headers(headers: list[tuple[bytes, bytes]], max_body_bytes: int) -> int | None:
    """Refuse bodies that are too long, compressed, or of a type that is not read here, before they are read.

    Returns:
        The length of the JSON in front of binary tensors, None if there are none.
    """
    header_length = None
    for key, value in headers:
        if key == b"content-length":
            _check_length(_read_number("Content-Length", value), max_body_bytes)
        elif key == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
            if kind and kind not in _TYPES and not kind.endswith(b"+json"):
                raise UnsupportedMediaError(
                    f"the content type is {show(value.decode('latin-1'))}, expected application/json, or "
                    "application/octet-stream with binary tensors"
                )
        elif key == b"content-encoding":
            if value.strip().lower() != b"identity":
                raise UnsupportedMediaError(
                    f"the content encoding is {show(value.decode('latin-1'))}, expected none"
                )
        elif key == _HEADER_LENGTH:
            if header_length is not None:
                raise RequestError("Inference-Header-Content-Length is there twice, expected once")
            header_length = _read_number("Inference-Header-Content-Length", value)
    return header_length


def _read_number(name: str, value: bytes) -> int:
    """Return the number that a header says."""
    if not value.isdigit() or len(value) > _LONGEST_NUMBER:
        raise RequestError(f"{name} is {show(value.decode('latin-1'))}, expected a number of bytes")
    return int(value)


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise TooLargeError(f"the body has more than {most} bytes: send fewer rows at a time")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once more, then what the server says."""
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay


def _is_loopback(scope: Scope) -> bool:
    client = scope.get("client")
    return client is not None and (client[0] == "::1" or client[0].startswith(("127.", "::ffff:127.")))


async def _refuse(scope: Scope, send: Send, error: PredictorError) -> None:
    headers = (_JSON, _RETRY) if error.status == 503 else (_JSON,)
    await _respond(scope, send, error.status, render_error(str(error)), *headers)


async def _respond(scope: Scope, send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    headers = (*headers, (b"content-length", b"%d" % len(body)))
    respond = scope.get(RESPOND)
    if respond is not None and respond(status, headers, body):
        return
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
