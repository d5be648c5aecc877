"""kserve's ModelServer as we run it: our addresses, uvloop, the fast path in front, quiet, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import uvicorn
import uvloop
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from grpc_interceptor import AsyncExceptionToStatusInterceptor
from kserve import ModelServer
from kserve.constants.constants import PredictorProtocol
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.model_server import app as kserve_application
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from kserve.protocol.rest.v2_datamodels import ModelMetadataResponse, ModelReadyResponse
from kserve.protocol.rest.v2_endpoints import V2Endpoints
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import REGISTRY

from serving.predictor.errors import PredictorError, RefusedError, StartError
from serving.predictor.fastpath import FastPath
from serving.predictor.protocol import Limits, Protocol, expire_connections
from serving.predictor.rpc import METHOD, SERVICE, Rpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.predictor.events import Events
    from serving.predictor.model import ChurnModel
    from serving.predictor.settings import Settings
    from serving.predictor.workers import Worker

_SWITCH_SECONDS = 0.0001  # Python's own 5 ms is how long a request could wait for the thread of the events
_FLUSH_SECONDS = 1.0  # what events that wait get even when requests have used up the grace time

_log = logging.getLogger("serving.predictor")
_KSERVE_STATUS = {InvalidInput: 400, ModelNotFound: 404, ModelNotReady: 503, NotImplementedError: 501}
_GRPC_STATUS = {
    InvalidInput: "INVALID_ARGUMENT",
    ModelNotFound: "NOT_FOUND",
    ModelNotReady: "UNAVAILABLE",
    NotImplementedError: "UNIMPLEMENTED",
}


class PredictorServer(ModelServer):  # type: ignore[misc]  # kserve carries no types
    """Serves one model over REST and gRPC in this process until SIGTERM or SIGINT, then drains."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            http_port=settings.http_port,
            grpc_port=settings.grpc_port,
            workers=1,
            enable_grpc=True,
            enable_docs_url=False,
            enable_latency_logging=False,
            access_log_format=None,
            grace_period=settings.grace_seconds,
        )
        self._settings = settings
        self.dataplane = _DataPlane(self.registered_models)
        self.model_repository_extension = _FixedRepository(self.registered_models)

    def start(
        self,
        models: list[ChurnModel],
        on_ready: Callable[[], None] | None = None,
        worker: Worker | None = None,
    ) -> None:
        """Serve the one model in `models`; returns when the server has drained.

        Args:
            models: Exactly one.
            on_ready: Called once when both ports answer.
            worker: Which one of several this is; none by default.

        Raises:
            StartError: A port is taken, or an address is not one of this machine.
        """
        (model,) = models
        self._register_and_check_atleast_one_model_is_ready(models)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(model, on_ready, worker))

    async def _run(
        self, model: ChurnModel, on_ready: Callable[[], None] | None, worker: Worker | None
    ) -> None:
        """Open both ports, serve, and close them in order."""
        settings = self._settings
        if worker is not None and not worker.wait():
            return
        shared = worker is not None
        rest = _RestServer(self.dataplane, self.model_repository_extension, model, settings)
        sock = _open_socket(settings.http_host, settings.http_port, shared)
        rpc = _make_grpc_server(self.dataplane, self.model_repository_extension, model, settings, shared)
        await rpc.start()
        events = model.backend.events
        if events is not None:
            sys.setswitchinterval(_SWITCH_SECONDS)
            events.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, rest.stop)
        if worker is not None:
            loop.add_reader(worker.go, rest.stop)  # its end is the end of the process that keeps us
        serving = asyncio.create_task(rest.serve(sock))
        while not (rest.started or serving.done()):
            await asyncio.sleep(0.005)
        if rest.started and on_ready is not None:
            on_ready()
        await rest.stopping.wait()
        deadline = loop.time() + settings.grace_seconds
        self.dataplane.draining = True
        if worker is not None:
            loop.remove_reader(worker.go)
        await asyncio.gather(serving, rpc.stop(settings.grace_seconds))
        if events is not None:
            await asyncio.to_thread(events.close, max(deadline - loop.time(), _FLUSH_SECONDS))


class _DataPlane(DataPlane):  # type: ignore[misc]
    """kserve's data plane, with a readiness that says what it means and the version in the metadata.

    A V1 body is JSON, whatever its headers say. kserve would read some as CloudEvents, and fail on those that
    are none; the events that the logger needs are made elsewhere.
    """

    draining = False

    def decode(
        self,
        body: Any,
        headers: dict[str, str],
        protocol_version: str = PredictorProtocol.REST_V1.value,
        model_name: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        if protocol_version == PredictorProtocol.REST_V1.value:
            return body, {}  # the model parses it: it knows the contract's names
        decoded: tuple[Any, dict[str, Any]] = super().decode(body, headers, protocol_version, model_name)
        return decoded

    def encode(
        self, model_name: str, response: Any, headers: dict[str, str], req_attributes: dict[str, Any]
    ) -> tuple[Any, dict[str, str]]:
        encoded: tuple[Any, dict[str, str]] = super().encode(model_name, response, {}, req_attributes)
        return encoded

    async def ready(self) -> bool:
        models = self.model_registry.get_models().values()
        return not self.draining and all([await model.healthy() for model in models])

    def metadata(self) -> dict[str, Any]:
        return {**super().metadata(), "extensions": ["binary_tensor_data"]}

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        metadata: dict[str, Any] = await super().model_metadata(model_name)
        version = self.get_model_from_registry(model_name).backend.version
        return {**metadata, "platform": "tenure_onnx", "versions": [version]}


class _FixedRepository(ModelRepositoryExtension):  # type: ignore[misc]
    """kserve lets anyone who reaches the port unload the model; here the InferenceService decides."""

    async def load(self, model_name: str) -> None:
        raise RefusedError(f"{model_name}: models are loaded by the InferenceService, not over the network")

    async def unload(self, model_name: str) -> None:
        raise RefusedError(f"{model_name}: models are unloaded by the InferenceService, not over the network")


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


class _RestServer(RESTServer):  # type: ignore[misc]
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
        for kind in _KSERVE_STATUS:
            app.add_exception_handler(kind, _answer_error)


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, PredictorError) else _look_up(_KSERVE_STATUS, error)
    return JSONResponse({"error": str(error)}, status_code=status or 500)


class _Interceptor(AsyncExceptionToStatusInterceptor):
    """Gives each error its gRPC status. What is our fault is logged; a caller's mistake is not."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Stand before every method but the one that does so itself."""
        if handler_call_details.method == f"/{SERVICE}/{METHOD}":
            return await continuation(handler_call_details)
        return await super().intercept_service(continuation, handler_call_details)  # type: ignore[no-untyped-call]

    async def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: Any, method_name: str
    ) -> NoReturn:
        name = ex.grpc_status if isinstance(ex, PredictorError) else _look_up(_GRPC_STATUS, ex)
        if name is None:
            _log.error("%s failed", method_name, exc_info=ex)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log has the cause")
        await context.abort(grpc.StatusCode[name], str(ex))
        raise ex  # never reached: abort raises


class _Servicer(InferenceServicer):  # type: ignore[misc]
    """kserve's gRPC service, with the version told, and no other one served."""

    def __init__(
        self, data_plane: DataPlane, repository: ModelRepositoryExtension, model: ChurnModel
    ) -> None:
        super().__init__(data_plane, repository)
        self._model = model

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        metadata = await super().ModelMetadata(request, context)
        self._model.backend.check_version(request.name, request.version)
        metadata.versions.append(self._model.backend.version)
        return metadata

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        readiness = await super().ModelReady(request, context)
        self._model.backend.check_version(request.name, request.version)
        return readiness


def _make_grpc_server(
    data_plane: DataPlane,
    repository: ModelRepositoryExtension,
    model: ChurnModel,
    settings: Settings,
    shared: bool,
) -> grpc.aio.Server:
    """Return kserve's gRPC service on our address, not yet started."""
    server = grpc.aio.server(
        ThreadPoolExecutor(max_workers=1),
        interceptors=(_Interceptor(),),
        maximum_concurrent_rpcs=settings.max_concurrent,
        options=[
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            # Only workers of one predictor share a port; two predictors would share their customers.
            ("grpc.so_reuseport", int(shared)),
        ],
    )
    add_GRPCInferenceServiceServicer_to_server(_Servicer(data_plane, repository, model), server)
    server.add_registered_method_handlers(SERVICE, Rpc(model.backend, model.name).make_handlers())
    host = f"[{settings.grpc_host}]" if ":" in settings.grpc_host else settings.grpc_host
    address = f"{host}:{settings.grpc_port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"gRPC cannot listen on {address}: is the port taken, the address ours?") from error
    return server


def _open_socket(host: str, port: int, shared: bool) -> socket.socket:
    """Return a listening socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048, reuse_port=shared)
    except OSError as error:
        raise StartError(f"REST cannot listen on {host}:{port}: {error.strerror or error}") from error


def _look_up(table: dict[type[Exception], Any], error: Exception) -> Any:
    """Return what the table says of the error's class or one of its bases, None if nothing."""
    return next((value for kind, value in table.items() if isinstance(error, kind)), None)
