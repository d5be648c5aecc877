"""Our kserve Model: what kserve's own routes call, for gRPC and V1 (and V2 without the fast path)."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.protocol.infer_type import to_http_parameters

from serving.predictor.decoding import COMPLETE, OUTPUTS, REASONS, Query
from serving.predictor.encoding import render_predictions, render_query, render_response
from serving.predictor.errors import RequestError
from serving.predictor.events import Inference
from serving.predictor.tensors import Output, Request, Tensor, decode_strings

if TYPE_CHECKING:
    from serving.predictor.engine import Answer, Engine


class ChurnModel(Model):  # type: ignore[misc]  # kserve carries no types
    """One bundle under one name."""

    def __init__(self, name: str, engine: Engine) -> None:
        super().__init__(name)
        self.backend = engine  # `engine` is a flag of kserve's
        self.load()

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the V2 metadata of the input tensors."""
        return self.backend.inputs

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the V2 metadata of the output tensors."""
        return self.backend.outputs

    async def predict(
        self,
        payload: InferRequest | dict[str, Any] | bytes,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse | dict[str, Any]:
        """Answer a V2 request with a V2 response, a V1 document with a V1 document.

        Raises:
            RequestError: The request breaks the protocol or the contract.
        """
        if isinstance(payload, InferRequest):
            with self.backend.metrics.watch("grpc" if payload.from_grpc else "v2"):
                return await self._infer(payload, (headers or {}).get("ce-id"))
        with self.backend.metrics.watch("v1"):
            query = self.backend.decoder.read_instances(parse_document(payload))
            answer = await self.backend.answer(query)
            return render_predictions(answer, query, model=self.name, version=self.backend.version)

    async def _infer(self, payload: InferRequest, event_id: str | None) -> InferResponse:
        began = time.time_ns()
        query = self.backend.decoder.read(_convert(payload))
        answer = await self.backend.answer(query)
        if payload.from_grpc:
            self._log(query, answer, began, event_id)
        raw = payload.from_grpc and payload.use_binary_outputs
        outputs = []
        for wanted in query.wanted:
            values = answer.get(wanted.name)
            output = InferOutput(wanted.name, [query.rows], OUTPUTS[wanted.name])
            if raw:
                output.set_data_from_numpy(
                    np.asarray(values, dtype=None if wanted.name != REASONS else object)
                )
            else:
                output.data = values.tolist() if isinstance(values, np.ndarray) else values
            outputs.append(output)
        return InferResponse(
            response_id=payload.id or "",
            model_name=self.name,
            model_version=self.backend.version,
            infer_outputs=outputs,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )

    def _log(self, query: Query, answer: Answer, began: int, event_id: str | None) -> None:
        """Log what gRPC has answered, as REST would have said it; REST logs by itself."""
        backend = self.backend
        if backend.events is None:
            return
        response, _ = render_response(
            answer, COMPLETE, model=self.name, version=backend.version, request_id=None
        )
        request = render_query(query, backend.decoder.datatypes)
        number = backend.events.make_id(event_id)
        backend.events.log(Inference(number, began, time.time_ns(), request, True, response))


def parse_document(payload: object) -> object:
    """Return the JSON document that bytes are; anything else is one already.

    Raises:
        RequestError: They are no JSON; NaN and Infinity are none.
    """
    if not isinstance(payload, bytes):
        return payload
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error


def _convert(payload: InferRequest) -> Request:
    """Turn kserve's request into ours."""
    raw = payload.from_grpc and payload.use_binary_outputs
    outputs = payload.request_outputs
    return Request(
        inputs=[
            Tensor(entry.name, list(entry.shape), entry.datatype, _read_values(entry, raw))
            for entry in payload.inputs
        ],
        id=payload.id or None,
        parameters=to_http_parameters(payload.parameters) if payload.parameters else None,
        outputs=[Output(output.name, output.parameters) for output in outputs] if outputs else None,
    )


def _read_values(entry: Any, raw: bool) -> list[Any]:
    """Return the values of one input tensor, flat; strings are decoded."""
    values = entry.data
    if raw:
        try:
            values = entry.as_numpy().ravel().tolist()
        except (ValueError, struct.error) as error:
            raise RequestError(f"{entry.name}: its bytes do not fill shape {entry.shape}: {error}") from error
    if entry.datatype == "BYTES" and all(isinstance(value, bytes) for value in values):
        return decode_strings(entry.name, values)
    return list(values)
