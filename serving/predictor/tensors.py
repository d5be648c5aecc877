"""The V2 protocol's request: its JSON, its binary tensors, its datatypes. Values are not judged here.

Sources: the Open Inference Protocol (V2 REST) and its binary tensor data extension.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from serving.predictor.errors import RequestError

DTYPES = {
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
DATATYPES = frozenset({*DTYPES, "BYTES"})
_LENGTH = struct.Struct("<I")
_INPUT_PATH = re.compile(r"\$\.inputs\[(\d+)\]")


class Tensor(msgspec.Struct):
    """One input tensor. `data` is the list of its values, flat or (for shape [n, 1]) one list per row."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Output(msgspec.Struct):
    """One output tensor that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class Request(msgspec.Struct):
    """One inference request. Keys that the protocol does not know are ignored, as it demands."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Output] | None = None


_decoder = msgspec.json.Decoder(Request)


def parse_request(body: bytes, header_length: int | None = None) -> Request:
    """Parse a REST request.

    Args:
        body: JSON; with `header_length`, JSON of that many bytes followed by binary tensors.
        header_length: Value of the Inference-Header-Content-Length header.

    Raises:
        RequestError: It is not JSON (NaN and Infinity are none), not a V2 request, or its binary tensors do
            not fill the body exactly.
    """
    text = body
    if header_length is not None:
        if not 0 <= header_length <= len(body):
            raise RequestError(
                f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes"
            )
        text = body[:header_length]
    try:
        request = _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise RequestError(_explain(text, str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise RequestError("the body is not a V2 request: it is nested too deeply") from error
    _read_binary(request.inputs, body, len(text), header_length is not None)
    return request


def _read_binary(tensors: Iterable[Tensor], body: bytes, start: int, allowed: bool) -> None:
    """Give tensors that say `binary_data_size` their values from the body's tail, which starts at `start`."""
    for tensor in tensors:
        parameters = tensor.parameters
        if parameters is None or "binary_data_size" not in parameters:
            continue
        size = parameters["binary_data_size"]
        if type(size) is not int or size < 0:
            raise RequestError(f"{tensor.name}: binary_data_size is {size!r}, expected a number of bytes")
        if not allowed:
            raise RequestError(
                f"{tensor.name}: has binary data, but the request has no Inference-Header-Content-Length"
            )
        if tensor.data is not None:
            raise RequestError(f"{tensor.name}: has both data and binary data")
        if start + size > len(body):
            raise RequestError(
                f"{tensor.name}: its {size} bytes of binary data go beyond the end of the body"
            )
        tensor.data = unpack(tensor.name, tensor.datatype, body[start : start + size])
        start += size
    if allowed and start != len(body):
        raise RequestError(f"the body has {len(body) - start} bytes that belong to no tensor")


def unpack(name: str, datatype: str, raw: bytes) -> list[Any]:
    """Return the values of a binary tensor: little-endian numbers, or strings each after its length.

    Raises:
        RequestError: The bytes are no such values; names the tensor, and the row of a string.
    """
    if datatype == "BYTES":
        return decode_strings(name, _split(name, raw))
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise RequestError(f"{name}: datatype {datatype!r} is not one of {', '.join(sorted(DATATYPES))}")
    if len(raw) % dtype.itemsize:
        raise RequestError(f"{name}: {len(raw)} bytes are not a whole number of {datatype} values")
    if datatype == "BOOL" and raw.strip(b"\0\1"):
        raise RequestError(f"{name}: a BOOL byte is neither 0 nor 1")
    values: list[Any] = np.frombuffer(raw, dtype=dtype).tolist()
    return values


def decode_strings(name: str, values: Iterable[bytes]) -> list[Any]:
    """Decode the elements of a BYTES tensor as UTF-8.

    Raises:
        RequestError: One is not UTF-8; names the tensor and the row.
    """
    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError as error:
            raise RequestError(f"{name}: row {row}: is not UTF-8 text") from error
    return texts


def _split(name: str, raw: bytes) -> list[bytes]:
    """Cut `raw` into strings, each preceded by its length in four bytes."""
    values: list[bytes] = []
    position = 0
    while position < len(raw):
        end = position + _LENGTH.size
        if end <= len(raw):
            end += _LENGTH.unpack_from(raw, position)[0]
        if end > len(raw):
            raise RequestError(f"{name}: row {len(values)}: the binary data end inside of a string")
        values.append(raw[position + _LENGTH.size : end])
        position = end
    return values


def read_switch(parameters: dict[str, Any] | None, name: str, where: str) -> bool | None:
    """Return the value of a yes-or-no parameter, None if it is not given.

    Raises:
        RequestError: It is not a boolean.
    """
    value = None if parameters is None else parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise RequestError(f"{where}: {name} is {value!r}, expected true or false")


def _explain(text: bytes, problem: str) -> str:
    """Say what msgspec found wrong, with the tensor's name in front if it has one."""
    where = "the request"
    match = _INPUT_PATH.search(problem)
    if match is not None:
        where = _find_name(text, int(match[1])) or f"inputs[{match[1]}]"
    return f"{where}: {problem[0].lower()}{problem[1:]}"


def _find_name(text: bytes, position: int) -> str | None:
    """Return the name of the input tensor at `position`; None if it has none or the text is broken."""
    try:
        name = msgspec.json.decode(text)["inputs"][position]["name"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return None
    return name if isinstance(name, str) else None
