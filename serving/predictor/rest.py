"""kserve's REST server as we run it: our address, uvloop's loop, the fast path in front, quiet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from kserve.model_server import app as kserve_application
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from kserve.protocol.rest.v2_datamodels import ModelMetadataResponse, ModelReadyResponse
from kserve.protocol.rest.v2_endpoints import V2Endpoints
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import REGISTRY

from serving.predictor.errors import PredictorError
from serving.predictor.fastpath import FastPath
from serving.predictor.protocol import Limits, Protocol, expire_connections
from serving.predictor.status import KSERVE_ERRORS, find_statuses

if TYPE_CHECKING:
    from serving.predictor.events import Events
    from serving.predictor.model import ChurnModel
    from serving.predictor.settings import Settings


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers: the signals stop gRPC too, so the model server has them."""

    events: Events | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether to stop, and which clients are too slow."""
        if self.events is not None:
            self.events.counts.publish()
        expire_connections(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)


class RestServer(RESTServer):  # type: ignore[misc]
    """kserve's REST server on our address, behind the fast path."""

    def __init__(
        self,
        data_plane: DataPlane,
        repository: ModelRepositoryExtension,
        model: ChurnModel,
        settings: Settings,
    ) -> None:
        application = FastPath(kserve_application, model.backend, model.name, settings.max_body_bytes)
        limits = Limits(settings.max_header_bytes, settings.header_seconds, settings.body_seconds)
        super().__init__(application, data_plane, repository, settings.http_port)
        self.config = uvicorn.Config(
            application,
            http=partial(Protocol, limits=limits, gate=model.backend.gate, refuse=application.refuse),  # type: ignore[arg-type]  # called as a class
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            proxy_headers=False,  # who is connected, not whom somebody speaks of
            backlog=2048,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=settings.grace_seconds,
        )
        self._server = _Uvicorn(self.config)
        self._server.events = model.backend.events
        self._registry = model.backend.metrics.registry
        self._engine = model.backend
        self._endpoints = V2Endpoints(data_plane)
        self.stopping = asyncio.Event()

    @property
    def started(self) -> bool:
        """Whether the port answers."""
        return self._server.started

    def stop(self) -> None:
        """Take no new connection, and end when those in flight are answered; a second call ends at once."""
        self._server.force_exit = self._server.should_exit
        self._server.should_exit = True
        self.stopping.set()

    async def serve(self, sock: socket.socket) -> None:
        """Serve until stopped."""
        try:
            self.create_application()
            await self._server.serve(sockets=[sock])
        finally:
            self.stopping.set()

    def _register_endpoints(self, app: FastAPI) -> None:
        """As kserve, but several workers tell one story: kserve's metrics are those of one process. And the
        version that the metadata announce can be asked for, where kserve answers 501.
        """
        if self._registry is not REGISTRY:
            app.add_api_route("/metrics", self._tell_metrics, methods=["GET"])
        path = "/v2/models/{model_name}/versions/{model_version}"
        app.add_api_route(path, self._tell_version, methods=["GET"])
        app.add_api_route(f"{path}/ready", self._tell_version_ready, methods=["GET"])
        super()._register_endpoints(app)

    async def _tell_version(self, model_name: str, model_version: str) -> ModelMetadataResponse:
        metadata = await self._endpoints.model_metadata(model_name)
        self._engine.check_version(model_name, model_version)
        return metadata

    async def _tell_version_ready(self, model_name: str, model_version: str) -> ModelReadyResponse:
        readiness = await self._endpoints.model_ready(model_name)
        self._engine.check_version(model_name, model_version)
        return readiness

    async def _tell_metrics(self, request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": kind})

    def _add_middlewares(self, app: FastAPI) -> None:
        """Add none: kserve's only writes timings to a log that is off."""

    def _add_exception_handlers(self, app: FastAPI) -> None:
        """As kserve, but a caller's mistake is told to the caller, not to the log."""
        super()._add_exception_handlers(app)
        app.add_exception_handler(PredictorError, _answer_error)
        for kind in KSERVE_ERRORS:
            app.add_exception_handler(kind, _answer_error)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    status, _ = find_statuses(error) or (500, "")
    return JSONResponse({"error": str(error)}, status_code=status)
