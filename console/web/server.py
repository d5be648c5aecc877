"""The addresses of the page: itself, its board for refreshing, reports, health and metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import REGISTRY, CollectorRegistry
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from clients.errors import ClientError, NotFoundError
from clients.run import Run
from console.web import view
from console.web.guard import Guard
from console.web.reading import LedgersReading, Reader, ServiceReading
from console.web.source import Metrics, Source, look
from tenure import __version__

PATIENCE = 2.0
"""Seconds that a page waits for what is being read before it shows what is known already."""

REFRESH = 5
"""Seconds from one refresh of an open page to the next."""

REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""A report comes from MLflow: whatever stands in it, it may look like something and do nothing."""

_HERE = Path(__file__).parent
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Sources:
    """Everything that the page is made of."""

    services: Source[list[ServiceReading]]
    ledger: Source[LedgersReading]
    detector: Source[dict[str, Any]]
    runs: Source[list[Run]]

    @classmethod
    def connect(cls, reader: Reader, metrics: Metrics) -> Sources:
        """Make the sources of what a reader reads; reads nothing yet."""
        services = Source("InferenceServices", reader.read_services, 2, metrics)

        def read_ledger() -> LedgersReading:
            known = services.reading.value
            return reader.read_ledger(None if known is None else [one.state.name for one in known])

        return cls(
            services,
            Source("ledger", read_ledger, 4, metrics),
            Source("detector", reader.read_detector, 4, metrics),
            Source("runs", reader.read_runs, 4, metrics),
        )

    def look(self, patience: float = PATIENCE) -> None:
        """Refresh what is not fresh; the ledger is asked for the services that are known by then."""
        look([[self.services], [self.ledger, self.detector, self.runs]], patience)

    def build_board(self) -> dict[str, Any]:
        """Return what the template of the board shows."""
        services, ledger = self.services.reading, self.ledger.reading
        known = ledger.value.services if ledger.value else {}
        return {
            "services": services,
            "views": [
                view.build_service(one, known.get(one.state.name), self.detector.reading.value)
                for one in services.value or ()
            ],
            "ledger": ledger,
            "detector": self.detector.reading,
            "runs": self.runs.reading,
            "readings": [services, ledger, self.detector.reading, self.runs.reading],
            "now": datetime.now(UTC),
        }


class Pages:
    """The handlers of the addresses.

    Args:
        sources: What is shown.
        reader: For reports.
        facts: What does not change: namespace, links.
        registry: Of the metrics.
    """

    def __init__(
        self, sources: Sources, reader: Reader, facts: Mapping[str, Any], registry: CollectorRegistry
    ) -> None:
        self._sources = sources
        self._reader = reader
        self._facts = {"version": __version__, "refresh": REFRESH, **facts}
        self._registry = registry
        self._environment = make_environment()

    async def show_page(self, _: Request) -> Response:
        """The whole page."""
        return HTMLResponse(await run_in_threadpool(self._render, "page.html.j2"))

    async def show_board(self, _: Request) -> Response:
        """The part that is refreshed."""
        return HTMLResponse(await run_in_threadpool(self._render, "board.html.j2"))

    async def show_report(self, request: Request) -> Response:
        """A verdict's report, as far as the page knows of it."""
        run_id = request.path_params["run_id"]
        if not _RUN_ID.fullmatch(run_id) or run_id not in self._list_reports():
            return PlainTextResponse("there is no such report, or no longer\n", status_code=404)
        try:
            text = await run_in_threadpool(self._reader.read_report, run_id)
        except NotFoundError as error:
            return PlainTextResponse(f"{error}\n", status_code=404)
        except ClientError as error:
            return PlainTextResponse(f"{error}\n", status_code=503, headers={"retry-after": "5"})
        return HTMLResponse(text, headers={"content-security-policy": REPORT_POLICY})

    async def show_health(self, _: Request) -> Response:
        """Whether the process answers."""
        return JSONResponse({"status": "ok"})

    async def show_readiness(self, _: Request) -> Response:
        """Whether there is something to show; a source that is dead is something too."""
        self._sources.services.refresh()
        asked = self._sources.services.reading.asked
        return JSONResponse({"status": "ok" if asked else "starting"}, 200 if asked else 503)

    async def show_metrics(self, _: Request) -> Response:
        """How reading goes, for Prometheus."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def _render(self, name: str) -> str:
        self._sources.look()
        return self._environment.get_template(name).render(**self._facts, **self._sources.build_board())

    def _list_reports(self) -> set[str]:
        """Return the MLflow runs of the verdicts that the page knows."""
        ledger = self._sources.ledger.reading.value
        return {
            run_id
            for service in (ledger.services.values() if ledger else ())
            for verdicts in service.verdicts.values()
            for one in verdicts
            if (run_id := view.read_run_id(one.report_uri)) is not None
        }


def make_environment() -> jinja2.Environment:
    """Return the templates' environment: every value is escaped, a missing one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["time"] = view.say_time
    environment.filters["ago"] = view.say_ago
    environment.filters["signed"] = view.say_number
    environment.filters["count"] = lambda number: f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
    environment.filters["outcome"] = view.say_outcome
    environment.filters["steps"] = view.count_steps
    return environment


def make_application(
    sources: Sources,
    reader: Reader,
    facts: Mapping[str, Any],
    hosts: tuple[str, ...] = (),
    registry: CollectorRegistry = REGISTRY,
) -> Starlette:
    """Return the ASGI application; see `Pages` and `Guard`."""
    pages = Pages(sources, reader, facts, registry)
    return Starlette(
        routes=[
            Route("/", pages.show_page),
            Route("/board", pages.show_board),
            Route("/reports/{run_id}", pages.show_report),
            Route("/healthz", pages.show_health),
            Route("/readyz", pages.show_readiness),
            Route("/metrics", pages.show_metrics),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
    )
