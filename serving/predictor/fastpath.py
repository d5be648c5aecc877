"""The hot path: V2 inference over REST as a plain ASGI route in front of kserve's application.

kserve's own route parses with FastAPI and pydantic and times in two middlewares: several times what the
model costs. Everything but `POST /v2/models/NAME[/versions/VERSION]/infer` goes on to kserve, with its body
read and bounded here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serving.predictor.encoding import render_error, render_response
from serving.predictor.engine import Engine
from serving.predictor.errors import PredictorError, RequestError, UnknownModelError
from serving.predictor.tensors import parse_request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_PREFIX, _SUFFIX = "/v2/models/", "/infer"
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")
_HEADER_LENGTH = b"inference-header-content-length"


class FastPath:
    """Answers V2 inference itself and passes everything else on."""

    def __init__(self, application: Application, engine: Engine, name: str, max_body_bytes: int) -> None:
        self._application = application
        self._engine = engine
        self._name = name
        self._max_body_bytes = max_body_bytes
        self._paths = {
            f"{_PREFIX}{name}{_SUFFIX}",
            f"{_PREFIX}{name}/versions/{engine.version}{_SUFFIX}",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event as ASGI demands."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._application(scope, receive, send)
            return
        path = scope["path"]
        is_infer = path in self._paths or (path.startswith(_PREFIX) and path.endswith(_SUFFIX))
        try:
            body = await self._read(scope, receive)
            if body is None:
                return
            if not is_infer:
                await self._application(scope, _replay(body, receive), send)
                return
            if path not in self._paths:
                raise UnknownModelError(self._explain(path))
            with self._engine.metrics.watch("v2"):
                answer, header_length = await self._infer(scope, body)
        except PredictorError as error:
            await _respond(send, error.status, render_error(str(error)), _JSON)
            return
        if header_length is None:
            await _respond(send, 200, answer, _JSON)
        else:
            length = (b"inference-header-content-length", b"%d" % header_length)
            await _respond(send, 200, answer, _BINARY, length)

    async def _infer(self, scope: Scope, body: bytes) -> tuple[bytes, int | None]:
        """Answer one inference request: the response's body, and the length of its JSON if more follows."""
        header_length = None
        for key, value in scope["headers"]:
            if key == _HEADER_LENGTH:
                if not value.isdigit():
                    raise RequestError(f"Inference-Header-Content-Length is {value!r}, expected a number")
                header_length = int(value)
            elif key == b"content-encoding" and value != b"identity":
                raise RequestError("the body is compressed: send it as it is")
        request = parse_request(body, header_length)
        query = self._engine.decoder.read(request)
        answer = await self._engine.answer(query)
        return render_response(
            answer, query.wanted, model=self._name, version=self._engine.version, request_id=request.id
        )

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the request's body, None if the client has gone away."""
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message.get("body", b"")
            self._check_length(len(body))
            return body
        for key, value in scope["headers"]:
            if key == b"content-length" and value.isdigit():
                self._check_length(int(value))
        parts, length = [], 0
        while message["type"] == "http.request":
            part = message.get("body", b"")
            parts.append(part)
            length += len(part)
            self._check_length(length)
            if not message.get("more_body"):
                return b"".join(parts)
            message = await receive()
        return None

    def _check_length(self, length: int) -> None:
        if length > self._max_body_bytes:
            raise RequestError(
                f"the body has more than {self._max_body_bytes} bytes: send fewer rows at a time"
            )

    def _explain(self, path: str) -> str:
        name, _, version = path[len(_PREFIX) : -len(_SUFFIX)].partition("/versions/")
        if name == self._name and version:
            return f"version {version[:60]} of {name} is not served here, only {self._engine.version} is"
        return f"model {name[:60]!r} is not served here, only {self._name!r} is"


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once more, then what the server says."""
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay


async def _respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
