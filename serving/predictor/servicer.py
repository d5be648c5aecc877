"""kserve's gRPC service as we run it: our address, one method ours, the version told, statuses for errors."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc_interceptor import AsyncExceptionToStatusInterceptor
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer

from serving.predictor.errors import StartError
from serving.predictor.rpc import METHOD, SERVICE, Rpc
from serving.predictor.status import find_statuses

if TYPE_CHECKING:
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension

    from serving.predictor.model import ChurnModel
    from serving.predictor.settings import Settings

_log = logging.getLogger("serving.predictor")


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
        statuses = find_statuses(ex)
        if statuses is None:
            _log.error("%s failed", method_name, exc_info=ex)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log has the cause")
            raise ex
        await context.abort(grpc.StatusCode[statuses[1]], str(ex))
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


def make_grpc_server(
    data_plane: DataPlane,
    repository: ModelRepositoryExtension,
    model: ChurnModel,
    settings: Settings,
    shared: bool,
) -> grpc.aio.Server:
    """Return kserve's gRPC service on our address, not yet started.

    Raises:
        StartError: The port is taken, or the address is not one of this machine.
    """
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
