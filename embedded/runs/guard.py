"""What every request must pass: a name of this machine, the bearer token, a body that is not too large."""

from __future__ import annotations

import hmac
import ipaddress

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedded.runs.errors import ApiError, ForbiddenError, TooLargeError, UnauthenticatedError

LARGEST_BODY = 33 * 1024 * 1024
_NAMES = frozenset({"localhost"})


class Guard:
    """ASGI middleware. A page in a browser that made its name point to 127.0.0.1 fails at the Host header."""

    def __init__(self, app: ASGIApp, token: SecretStr) -> None:
        self._app = app
        self._token = token.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with the error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            check_host(headers.get("host", ""))
            self._check_token(headers.get("authorization", ""))
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > LARGEST_BODY:
                raise TooLargeError(f"the body has {length} bytes; at most {LARGEST_BODY} are taken")
        except ApiError as error:
            response = JSONResponse(error.to_document(), status_code=error.status)
            await response(scope, receive, send)
            return
        await self._app(scope, _limit(receive), send)

    def _check_token(self, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._token):
            raise UnauthenticatedError(
                "the bearer token is missing or wrong; pass it as kfp.Client(existing_token=...) or "
                "`kfp --existing-token ...` (TENURE_RUNS_TOKEN of the platform's env file)"
            )


def check_host(host: str) -> None:
    """Check a Host header: localhost or a loopback address, with any port.

    Raises:
        ForbiddenError: It is another name.
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in _NAMES:
        return
    try:
        if ipaddress.ip_address(name).is_loopback:
            return
    except ValueError:
        pass
    raise ForbiddenError(f"this API answers at loopback names only (127.0.0.1, localhost), not as {host!r}")


def _limit(receive: Receive) -> Receive:
    received = 0

    async def read() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > LARGEST_BODY:
            raise TooLargeError(f"the body is larger than {LARGEST_BODY} bytes")
        return message

    return read
