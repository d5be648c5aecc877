"""The addresses of the page: itself, its parts for refreshing, health and metrics."""

from __future__ import annotations

from pathlib import Path

import jinja2
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import REGISTRY
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from console.web.guard import Guard
from console.web.settings import ConsoleSettings

_HERE = Path(__file__).parent


def make_application(own: ConsoleSettings) -> Starlette:
    """Return the ASGI application."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    async def show_page(_: Request) -> Response:
        return HTMLResponse(environment.get_template("page.html.j2").render())

    async def show_health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def show_metrics(_: Request) -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/healthz", show_health),
            Route("/readyz", show_health),
            Route("/metrics", show_metrics),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(Guard, hosts=own.hosts)],
    )
