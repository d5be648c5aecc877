"""From an answer to the bytes of a V2 REST response, or to the document of a V1 response."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from serving.predictor.decoding import CHURN, COMPLETE, OUTPUTS, PROBABILITY, Query, Wanted
from serving.predictor.engine import Answer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH = struct.Struct("<I")
_encode = msgspec.json.Encoder().encode


def render_response(
    answer: Answer, wanted: tuple[Wanted, ...], *, model: str, version: str, request_id: str | None
) -> tuple[bytes, int | None]:
    """Return a V2 REST body, and the length of its JSON if binary tensors follow that."""
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    shape = (len(answer.probabilities),)
    for output in wanted:
        values = answer.get(output.name)
        tensor: dict[str, Any] = {"name": output.name, "datatype": OUTPUTS[output.name], "shape": shape}
        if output.binary:
            raw = pack(values)
            tensor["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            tensor["data"] = _list(values)
        outputs.append(tensor)
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if request_id is not None:
        document["id"] = request_id
    document["outputs"] = outputs
    text = _encode(document)
    if not tail:
        return text, None
    return b"".join((text, *tail)), len(text)


def _list(values: NDArray[Any] | list[Any]) -> list[Any]:
    """Return values as a list."""
    return values.tolist() if isinstance(values, np.ndarray) else values


def pack(values: NDArray[Any] | list[str]) -> bytes:
    """Return the binary form of an output tensor: little-endian numbers, or strings each after its length."""
    if isinstance(values, np.ndarray):
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    parts: list[bytes] = []
    for value in values:
        raw = value.encode()
        parts += (_LENGTH.pack(len(raw)), raw)
    return b"".join(parts)


def render_predictions(answer: Answer, query: Query, *, model: str, version: str) -> dict[str, Any]:
    """Return a V1 response: one object per row, with `reasons` as a list if they were asked for."""
    predictions: list[dict[str, Any]] = [
        {"churn_probability": probability, "churn": churn}
        for probability, churn in zip(answer.probabilities.tolist(), answer.churn.tolist(), strict=True)
    ]
    if query.reasons and answer.reasons is not None:
        for prediction, reasons in zip(predictions, answer.reasons, strict=True):
            prediction["reasons"] = msgspec.json.decode(reasons)
    return {"predictions": predictions, "model_name": model, "model_version": version}


def render_query(query: Query, datatypes: Mapping[str, str]) -> bytes:
    """Return a query as a V2 REST body, all in JSON: for the log, where the request itself says it otherwise.

    Args:
        query: What was understood.
        datatypes: The datatype of each tensor.
    """
    inputs = [
        {"name": name, "shape": (query.rows,), "datatype": datatypes[name], "data": _list(values)}
        for name, values in query.columns.items()
    ]
    return _encode({"inputs": inputs})


def is_complete(wanted: tuple[Wanted, ...]) -> bool:
    """Whether these outputs tell probability and decision, both in JSON."""
    if wanted is COMPLETE:
        return True
    plain = {output.name for output in wanted if not output.binary}
    return len(plain) == len(wanted) and PROBABILITY in plain and CHURN in plain


def render_error(message: str) -> bytes:
    """Return the body of an error response."""
    return _encode({"error": message})
