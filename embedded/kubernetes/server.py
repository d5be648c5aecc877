"""The ASGI application: who may ask, what is said about the API itself, and the objects."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from embedded.errors import StorageError
from embedded.kubernetes import discovery, errors
from embedded.kubernetes.errors import ApiError
from embedded.kubernetes.registry import Registry
from embedded.kubernetes.routes import Routes

# As on a cluster, anybody may ask whether the server lives and what it is.
PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version")
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class BearerToken:
    """Lets requests through that carry the token; the rest are answered 401."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] == "http" and scope["path"].rstrip("/") not in PUBLIC_PATHS:
            given = next((value for key, value in scope["headers"] if key == b"authorization"), b"")
            if not hmac.compare_digest(given, self._expected):
                message = "Unauthorized: send the bearer token of the kubeconfig that `tenure up` wrote"
                refusal = ApiError(401, "Unauthorized", message)
                response = JSONResponse(
                    refusal.to_status(), status_code=401, headers={"WWW-Authenticate": "Bearer"}
                )
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def make_app(
    registry: Registry,
    token: str,
    check_ready: Callable[[], str | None] = lambda: None,
) -> Starlette:
    """Return the application.

    Args:
        registry: The objects.
        token: The bearer token that every request must carry.
        check_ready: Says what is wrong with the controllers; None when they work.
    """
    stopping = asyncio.Event()
    routes = Routes(registry, stopping)

    async def show_health(request: Request) -> Response:
        if request.url.path.startswith("/readyz"):
            problem = check_ready()
            if problem is not None:
                return PlainTextResponse(problem, status_code=503)
        return PlainTextResponse("ok")

    async def show_version(request: Request) -> Response:
        return JSONResponse(discovery.VERSION)

    async def show_openapi(request: Request) -> Response:
        return _answer(_find_openapi(_split(request)), request)

    async def serve_core(request: Request) -> Response:
        parts = _split(request)
        if len(parts) > 1:
            return await routes.handle(request)
        document = discovery.describe_resources("", parts[0]) if parts else discovery.describe_versions()
        return _answer(document, request)

    async def serve_groups(request: Request) -> Response:
        parts = _split(request)
        if len(parts) > 2:
            return await routes.handle(request)
        if len(parts) == 2:
            return _answer(discovery.describe_resources(parts[0], parts[1]), request)
        return _answer(discovery.describe_group(parts[0]) if parts else discovery.describe_groups(), request)

    async def refuse(request: Request) -> Response:
        raise errors.unknown_path(request.url.path)

    app = Starlette(
        routes=[
            *(Route(path, show_health) for path in ("/healthz", "/livez", "/readyz")),
            Route("/version", show_version),
            *(Route(f"/openapi/v3{end}", show_openapi) for end in ("", "/{path:path}")),
            *(Route(f"/api{end}", serve_core, methods=_METHODS) for end in ("", "/{path:path}")),
            *(Route(f"/apis{end}", serve_groups, methods=_METHODS) for end in ("", "/{path:path}")),
            Route("/{path:path}", refuse, methods=_METHODS),
        ],
        middleware=[Middleware(BearerToken, token=token)],
        exception_handlers={
            ApiError: _answer_refusal,
            StorageError: _answer_storage,
            HTTPException: _answer_http,
            Exception: _answer_bug,
        },
    )
    app.state.stopping = stopping
    return app


def _split(request: Request) -> list[str]:
    """Return the parts of the path below the route's own."""
    return [part for part in request.path_params.get("path", "").split("/") if part]


def _answer(document: dict[str, object] | None, request: Request) -> Response:
    """Answer with a document about the API, which knows no other method than GET."""
    if document is None:
        raise errors.unknown_path(request.url.path)
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed(request.method, request.url.path)
    return JSONResponse(document)


def _find_openapi(parts: list[str]) -> dict[str, object] | None:
    if not parts:
        return discovery.describe_openapi_paths()
    if parts[0] == "api" and len(parts) == 2:
        return discovery.describe_openapi("", parts[1])
    if parts[0] == "apis" and len(parts) == 3:
        return discovery.describe_openapi(parts[1], parts[2])
    return None


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101
    return JSONResponse(error.to_status(), status_code=error.code)


async def _answer_storage(request: Request, error: Exception) -> Response:
    refusal = errors.insufficient_storage(str(error))
    return JSONResponse(refusal.to_status(), status_code=refusal.code)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code == 405:
        refusal = errors.method_not_allowed(request.method, request.url.path)
    else:
        refusal = ApiError(error.status_code, "BadRequest", str(error.detail))
    return JSONResponse(refusal.to_status(), status_code=refusal.code)


async def _answer_bug(request: Request, error: Exception) -> Response:
    """Answer 500 without details; Starlette raises the error on, so that the log has its traceback."""
    refusal = ApiError(500, "InternalError", "the laptop platform's API failed; see `tenure logs kubernetes`")
    return JSONResponse(refusal.to_status(), status_code=500)
