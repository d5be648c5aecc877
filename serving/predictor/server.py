"""kserve's ModelServer as we run it: REST and gRPC on uvloop, a readiness that means it, a clean end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import uvloop
from kserve import ModelServer
from kserve.constants.constants import PredictorProtocol
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from serving.predictor.errors import RefusedError, StartError
from serving.predictor.rest import RestServer
from serving.predictor.servicer import make_grpc_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.predictor.model import ChurnModel
    from serving.predictor.settings import Settings
    from serving.predictor.workers import Worker

_SWITCH_SECONDS = 0.0001  # Python's own 5 ms is how long a request could wait for the thread of the events
_FLUSH_SECONDS = 1.0  # what events that wait get even when requests have used up the grace time


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
        rest = RestServer(self.dataplane, self.model_repository_extension, model, settings)
        sock = _open_socket(settings.http_host, settings.http_port, shared)
        rpc = make_grpc_server(self.dataplane, self.model_repository_extension, model, settings, shared)
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


def _open_socket(host: str, port: int, shared: bool) -> socket.socket:
    """Return a listening socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048, reuse_port=shared)
    except OSError as error:
        raise StartError(f"REST cannot listen on {host}:{port}: {error.strerror or error}") from error
