"""The hot path of gRPC: ModelInfer from its bytes to the query that REST has, and back.

Sources: the Open Inference Protocol (V2 gRPC), its ModelInferRequest and InferTensorContents.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest, ModelInferResponse

from serving.predictor.conversion import shorten
from serving.predictor.decoding import COMPLETE, OUTPUTS, Query, Wanted
from serving.predictor.encoding import pack, render_query, render_response
from serving.predictor.errors import PredictorError, RequestError, UnknownModelError
from serving.predictor.events import Inference
from serving.predictor.tensors import DATATYPES, Output, Parameters, Request, Tensor, decode_strings, unpack
from tenure.encoding import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.predictor.engine import Answer, Engine

SERVICE, METHOD = "inference.GRPCInferenceService", "ModelInfer"

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

_log = logging.getLogger("serving.predictor")


class Rpc:
    """Answers ModelInfer; everything else of the service is kserve's."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._gate = engine.gate

    def make_handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Return the method's handler. It takes bytes: gRPC would call a message that is none our mistake."""
        return {METHOD: grpc.unary_unary_rpc_method_handler(self.infer)}

    async def infer(self, message: bytes, context: Any) -> bytes:
        """Answer one request; ends the call with the status of what is wrong with it."""
        gate = self._gate
        try:
            with self._engine.metrics.watch("grpc"):
                gate.enter()
                try:
                    return await self._infer(message, context)
                finally:
                    gate.leave()
        except PredictorError as error:
            status, text = error.grpc_status, str(error)
        except Exception as error:
            _log.error("%s failed", METHOD, exc_info=error)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log has the cause")
            raise
        return await context.abort(grpc.StatusCode[status], text)  # type: ignore[no-any-return]

    async def _infer(self, message: bytes, context: Any) -> bytes:
        began = time.time_ns()
        engine = self._engine
        try:
            request = ModelInferRequest.FromString(message)
        except DecodeError as error:
            raise RequestError(f"the message is not a ModelInferRequest: {error}") from error
        self._check_model(request.model_name, request.model_version)
        query = engine.decoder.read(read_message(request))
        answer = await engine.answer(query)
        raw = len(request.raw_input_contents) > 0
        response = write_message(answer, query.wanted, raw, self._name, engine.version, request.id)
        if engine.events is not None:
            # Rendered behind the answer: it waits for nothing that its caller does not see.
            given = next(
                (value for key, value in context.invocation_metadata() or () if key == "ce-id"), None
            )
            loop = asyncio.get_running_loop()
            loop.call_soon(self._log_inference, query, answer, began, time.time_ns(), given)
        data: bytes = response.SerializeToString()
        return data

    def _check_model(self, name: str, version: str) -> None:
        """Refuse requests for another model, or for another version of this one."""
        if name != self._name:
            raise UnknownModelError(f"model {show(name)} is not served here, only {self._name!r} is")
        self._engine.check_version(name, version)

    def _log_inference(
        self, query: Query, answer: Answer, began: int, ended: int, given: str | bytes | None
    ) -> None:
        """Log what was answered, as REST would have said it."""
        engine = self._engine
        events = engine.events
        assert events is not None  # noqa: S101 - the caller has looked
        response, _ = render_response(
            answer, COMPLETE, model=self._name, version=engine.version, request_id=None
        )
        request = render_query(query, engine.decoder.datatypes)
        number = events.make_id(given if isinstance(given, str) else None)
        events.log(Inference(number, began, ended, request, True, response))


def read_message(request: ModelInferRequest) -> Request:
    """Turn a message into the request that REST has.

    Raises:
        RequestError: A tensor has values in the wrong field, in two, or raw contents that are none of its
            datatype; there are not as many raw contents as tensors.
    """
    raws = request.raw_input_contents
    inputs = []
    if raws:
        if len(raws) != len(request.inputs):
            raise RequestError(
                f"raw_input_contents: has {len(raws)} entries, expected one for each of the "
                f"{len(request.inputs)} inputs"
            )
        for entry, raw in zip(request.inputs, raws, strict=True):
            name = shorten(entry.name)
            if entry.HasField("contents"):
                raise RequestError(f"{name}: has contents, expected none beside raw_input_contents")
            values = unpack(name, entry.datatype, raw)
            inputs.append(Tensor(entry.name, list(entry.shape), entry.datatype, values))  # type: ignore[arg-type]
    else:
        for entry in request.inputs:
            inputs.append(Tensor(entry.name, list(entry.shape), entry.datatype, _read_contents(entry)))
    outputs = None
    if request.outputs:
        outputs = [Output(output.name, _read_parameters(output.parameters)) for output in request.outputs]
    return Request(inputs, request.id or None, _read_parameters(request.parameters), outputs)


def _read_contents(entry: Any) -> list[Any]:
    """Return the values of a tensor with typed contents."""
    datatype = entry.datatype
    field = _FIELDS.get(datatype)
    if field is None:
        expected = "raw_input_contents" if datatype in DATATYPES else f"one of {', '.join(sorted(DATATYPES))}"
        name = shorten(entry.name)
        raise RequestError(f"{name}: datatype {show(datatype)} in contents, expected {expected}")
    filled = entry.contents.ListFields()
    if len(filled) == 1 and filled[0][0].name == field:
        values = filled[0][1]
        return decode_strings(shorten(entry.name), values) if datatype == "BYTES" else list(values)
    if not filled:
        return []
    names = ", ".join(descriptor.name for descriptor, _ in filled)
    raise RequestError(f"{shorten(entry.name)}: has values in {names}, expected {field} for {datatype}")


def _read_parameters(parameters: Mapping[str, Any]) -> Parameters | None:
    """Return parameters as plain values, None if there are none."""
    if not parameters:
        return None
    plain: Parameters = {}
    for name, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        plain[name] = getattr(value, kind) if kind else None
    return plain


def write_message(
    answer: Answer, wanted: tuple[Wanted, ...], raw: bool, model: str, version: str, request_id: str
) -> ModelInferResponse:
    """Return the answer as a message: with raw contents if the request had them, else with typed ones."""
    response = ModelInferResponse(model_name=model, model_version=version, id=request_id)
    shape = (len(answer.probabilities),)
    for output in wanted:
        values = answer.get(output.name)
        datatype = OUTPUTS[output.name]
        tensor = response.outputs.add(name=output.name, datatype=datatype, shape=shape)
        if raw:
            response.raw_output_contents.append(pack(values))
        elif isinstance(values, np.ndarray):
            getattr(tensor.contents, _FIELDS[datatype]).extend(values.tolist())
        else:
            tensor.contents.bytes_contents.extend([value.encode() for value in values])
    return response
