"""Bodies of requests and responses over V2 (JSON, or JSON with binary tensors behind it) and V1.

Sources: the Open Inference Protocol (V2 REST) and its binary tensor data extension; KServe's V1 protocol.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgspec
import numpy as np

from serving.detector.errors import EventError
from serving.detector.event import Event
from serving.detector.records import Request, Response

PROBABILITY, CHURN = "churn_probability", "churn"

_DTYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_LENGTH = struct.Struct("<I")
_PLAIN = frozenset({str, int, bool, type(None)})


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str = ""
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    """Request or response of either protocol."""

    inputs: list[_Tensor] | None = None
    instances: list[dict[str, Any]] | None = None
    outputs: list[_Tensor] | None = None
    predictions: list[dict[str, Any]] | None = None
    model_version: str | None = None


_decoder = msgspec.json.Decoder(_Body)
_finder = json.JSONDecoder()


def read_body(event: Event, id_name: str) -> Request | Response:
    """Understand an event's body.

    Args:
        event: Says which half it is.
        id_name: Tensor or key that holds the customer's id.

    Raises:
        EventError: It is no such body, or the ledger could not keep it; the text names tensor and row.
    """
    body, tail = _decode(event.body)
    if event.kind == "request":
        customers, features = _read_request(body, tail, id_name)
        return Request(event.id, event.service, event.version, event.time, customers, features)
    scores, churn = _read_response(body, tail)
    version = body.model_version or event.version
    return Response(event.id, event.service, version, event.time, scores, churn)


def _decode(raw: bytes) -> tuple[_Body, bytes]:
    """Return the JSON of a body and what follows it.

    The agent does not say where the JSON ends (the header that did is not passed on), so that is found here.
    """
    try:
        return _decoder.decode(raw), b""
    except msgspec.ValidationError as error:
        raise EventError(f"the body is neither V2 nor V1: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = error
    text = raw.decode("latin-1")  # one character for each byte: positions stay what they are
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        _, end = _finder.raw_decode(text, start)
        return _decoder.decode(raw[:end]), raw[end:]
    except msgspec.ValidationError as error:
        raise EventError(f"the body is neither V2 nor V1: {error}") from error
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise EventError(f"the body is not JSON: {problem}") from error


def _read_request(body: _Body, tail: bytes, id_name: str) -> tuple[list[str | None], list[dict[str, Any]]]:
    """Return the customers' ids and the features, one per row."""
    if body.inputs is not None:
        columns = _read_tensors(body.inputs, tail)
        rows = len(next(iter(columns.values())))
        ids = columns.pop(id_name, None)
        customers: list[str | None] = [None] * rows
        if ids is not None:
            customers = [_read_id(value, row) for row, value in enumerate(ids)]
        names = tuple(columns)
        if not names:
            raise EventError(f"inputs: there is no tensor but {id_name}")
        return customers, [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if body.instances is None:
        raise EventError('the request has neither "inputs" (V2) nor "instances" (V1)')
    if not body.instances:
        raise EventError("instances: there are no rows")
    customers = []
    features: list[dict[str, Any]] = []
    for row, instance in enumerate(body.instances):
        customers.append(_read_id(instance.pop(id_name, None), row))
        features.append({name: _read_values(name, [value], row)[0] for name, value in instance.items()})
    return customers, features


def _read_response(body: _Body, tail: bytes) -> tuple[list[float], list[bool]]:
    """Return P(churn) and the decision, one per row."""
    if body.outputs is not None:
        tensors = [tensor for tensor in body.outputs if tensor.name in (PROBABILITY, CHURN) or tail]
        columns = _read_tensors(tensors, tail) if tensors else {}
        if PROBABILITY not in columns or CHURN not in columns:
            raise EventError(f"outputs: the answer lacks {PROBABILITY} or {CHURN}: it was not asked for")
        scores, churn = columns[PROBABILITY], columns[CHURN]
    elif body.predictions:
        try:
            scores = [row[PROBABILITY] for row in body.predictions]
            churn = [row[CHURN] for row in body.predictions]
        except KeyError as error:
            raise EventError(f"predictions: a row lacks {error}") from error
    else:
        raise EventError('the response has neither "outputs" (V2) nor "predictions" (V1)')
    for row, (score, flag) in enumerate(zip(scores, churn, strict=True)):
        if type(score) not in (float, int) or not 0 <= score <= 1:
            raise EventError(f"{PROBABILITY}: row {row}: {_shorten(score)} is no probability")
        if type(flag) is not bool:
            raise EventError(f"{CHURN}: row {row}: {_shorten(flag)} is neither true nor false")
    return [float(score) for score in scores], churn


def _read_tensors(tensors: list[_Tensor], tail: bytes) -> dict[str, list[Any]]:
    """Return the values of each tensor, one per row; all have the same number, at least one."""
    columns: dict[str, list[Any]] = {}
    start, rows = 0, -1
    for tensor in tensors:
        name, shape, values = tensor.name, tensor.shape, tensor.data
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(tail) - start:
                raise EventError(f"{name}: its binary data are not in the body")
            values = _unpack(name, tensor.datatype, tail[start : start + size])
            start += size
        if values is None:
            raise EventError(f"{name}: has no data")
        if name in columns:
            raise EventError(f"{name}: the tensor is there twice")
        if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)) or shape[0] != len(values):
            raise EventError(f"{name}: shape {_shorten(shape)} does not fit {len(values)} values")
        if rows not in (-1, len(values)):
            raise EventError(f"{name}: has {len(values)} rows, the tensor before it has {rows}")
        rows = len(values)
        if len(shape) == 2 and values and isinstance(values[0], list):
            if not all(isinstance(value, list) and len(value) == 1 for value in values):
                raise EventError(f"{name}: not every row is a list of one value")
            values = [value[0] for value in values]
        columns[name] = _read_values(name, values)
    if start != len(tail):
        raise EventError(f"the body has {len(tail) - start} bytes that belong to no tensor")
    if rows < 1:
        raise EventError("the body has no rows")
    return columns


def _read_values(name: str, values: list[Any], first: int = 0) -> list[Any]:
    """Return values as JSON knows them, NaN as null; `first` is the row of the first."""
    has_nan = False
    for row, value in enumerate(values, first):
        if type(value) is float:
            if math.isnan(value):
                has_nan = True
            elif math.isinf(value):
                raise EventError(f"{name}: row {row}: is infinite")
        elif type(value) not in _PLAIN:
            raise EventError(f"{name}: row {row}: {_shorten(value)} is not one value")
    return [None if value != value else value for value in values] if has_nan else values


def _read_id(value: Any, row: int) -> str | None:
    """Return a customer's id as text, None if the request names none."""
    if value is None or value == "":
        return None
    if type(value) not in (str, int):
        raise EventError(f"the id in row {row} is {_shorten(value)}, expected a text or a whole number")
    return str(value)


def _unpack(name: str, datatype: str, raw: bytes) -> list[Any]:
    """Return the values of a binary tensor: little-endian numbers, or strings each after its length."""
    if datatype == "BYTES":
        return _split(name, raw)
    dtype = _DTYPES.get(datatype)
    if dtype is None or len(raw) % dtype.itemsize:
        raise EventError(f"{name}: {len(raw)} bytes are not values of datatype {datatype[:20]!r}")
    values: list[Any] = np.frombuffer(raw, dtype=dtype).tolist()
    return values


def _split(name: str, raw: bytes) -> list[Any]:
    values: list[str] = []
    position = 0
    while position < len(raw):
        end = position + _LENGTH.size
        if end <= len(raw):
            end += _LENGTH.unpack_from(raw, position)[0]
        if end > len(raw):
            raise EventError(f"{name}: row {len(values)}: the binary data end inside of a string")
        try:
            values.append(raw[position + _LENGTH.size : end].decode())
        except UnicodeDecodeError as error:
            raise EventError(f"{name}: row {len(values)}: is not UTF-8 text") from error
        position = end
    return values


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
