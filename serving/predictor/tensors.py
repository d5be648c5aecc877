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

from serving.predictor.conversion import Column, shorten
from serving.predictor.errors import RequestError
from serving.predictor.keys import check_keys, explain_not_number, find_not_number, parse_leniently
from tenure.encoding import show

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

Parameters = dict[str, str | int | float | bool | None]
"""The protocol's parameters: plain values under names."""


class Tensor(msgspec.Struct):
    """One input tensor. `data` is the list of its values, flat or (for shape [n, 1]) one list per row.

    A binary tensor's numbers are an array instead.
    """

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: Parameters | None = None


class Output(msgspec.Struct):
    """One output tensor that is asked for."""

    name: str
    parameters: Parameters | None = None


class Request(msgspec.Struct):
    """One inference request. Keys that the protocol does not know are ignored, as it demands."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[Output] | None = None


_decoder = msgspec.json.Decoder(Request)


def parse_request(body: bytes, header_length: int | None = None) -> Request:
    """Parse a REST request.

    Args:
        body: JSON; with `header_length`, JSON of that many bytes followed by binary tensors.
        header_length: Value of the Inference-Header-Content-Length header.

    Raises:
        RequestError: It is not JSON (NaN and Infinity are none), has a key twice in one object, is not a V2
            request, or its binary tensors do not fill the body exactly.
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
        wrong = _find_wrong_number(text) if "out of range" in str(error) else None
        raise wrong or RequestError(_explain(text, str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _find_wrong_number(text) or RequestError(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise RequestError("the body is not a V2 request: it is nested too deeply") from error
    check_keys(text, _count_pairs(request))
    _read_binary(request.inputs, body, len(text), header_length is not None)
    return request


def _count_pairs(request: Request) -> int:
    """Return how many keys of JSON the request is made of."""
    inputs = request.inputs
    pairs = 1 + 4 * len(inputs)
    for tensor in inputs:
        if tensor.data is None:
            pairs -= 1
        if tensor.parameters is not None:
            pairs += 1 + len(tensor.parameters)
    if request.id is not None:
        pairs += 1
    if request.parameters is not None:
        pairs += 1 + len(request.parameters)
    if request.outputs is not None:
        pairs += 1 + len(request.outputs)
        for output in request.outputs:
            if output.parameters is not None:
                pairs += 1 + len(output.parameters)
    return pairs


def _read_binary(tensors: Iterable[Tensor], body: bytes, start: int, allowed: bool) -> None:
    """Give tensors that say `binary_data_size` their values from the body's tail, which starts at `start`."""
    for tensor in tensors:
        parameters = tensor.parameters
        if parameters is None or "binary_data_size" not in parameters:
            continue
        name = shorten(tensor.name)
        size = parameters["binary_data_size"]
        if type(size) is not int or size < 0:
            raise RequestError(f"{name}: binary_data_size is {show(size)}, expected a number of bytes")
        if not allowed:
            raise RequestError(
                f"{name}: has binary data, but the request has no Inference-Header-Content-Length"
            )
        if tensor.data is not None:
            raise RequestError(f"{name}: has both data and binary data, expected one of them")
        if start + size > len(body):
            raise RequestError(
                f"{name}: its {size} bytes of binary data go beyond the end of the body, expected at most "
                f"{len(body) - start}"
            )
        tensor.data = unpack(name, tensor.datatype, body[start : start + size])  # type: ignore[assignment]
        start += size
    if allowed and start != len(body):
        raise RequestError(
            f"the body has {len(body) - start} bytes that belong to no tensor: binary_data_size says of "
            "how many bytes each is"
        )


def unpack(name: str, datatype: str, raw: bytes) -> Column:
    """Return the values of a binary tensor: an array of its numbers, or a list of its strings.

    Numbers are little-endian; each string comes after its length.

    Raises:
        RequestError: The bytes are no such values; names the tensor, and the row of a string.
    """
    if datatype == "BYTES":
        return _split(name, raw)
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise RequestError(f"{name}: datatype {show(datatype)} is not one of {', '.join(sorted(DATATYPES))}")
    if len(raw) % dtype.itemsize:
        raise RequestError(
            f"{name}: {len(raw)} bytes are not a whole number of {datatype} values, expected "
            f"{dtype.itemsize} bytes each"
        )
    if datatype == "BOOL" and raw.strip(b"\0\1"):
        raise RequestError(f"{name}: a BOOL byte is neither 0 nor 1")
    return np.frombuffer(raw, dtype=dtype)


def decode_strings(name: str, values: Iterable[bytes]) -> list[str]:
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


def _split(name: str, raw: bytes) -> list[str]:
    """Cut `raw` into strings, each preceded by its length in four bytes."""
    values: list[str] = []
    position, end, read = 0, len(raw), _LENGTH.unpack_from
    known: dict[bytes, str] = {}  # a column has few different strings
    while position < end:
        start = position + 4
        position = start + read(raw, position)[0] if start <= end else end + 1
        if position > end:
            raise RequestError(
                f"{name}: row {len(values)}: the binary data end inside of a string, expected four bytes "
                "of length and as many bytes of text"
            )
        piece = raw[start:position]
        text = known.get(piece)
        if text is None:
            try:
                text = known[piece] = piece.decode()
            except UnicodeDecodeError as error:
                raise RequestError(f"{name}: row {len(values)}: is not UTF-8 text") from error
        values.append(text)
    return values


def read_switch(parameters: Parameters | None, name: str, where: str) -> bool | None:
    """Return the value of a yes-or-no parameter, None if it is not given.

    Raises:
        RequestError: It is not a boolean.
    """
    value = None if parameters is None else parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise RequestError(f"{where}: {name} is {show(value)}, expected true or false")


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
        name = parse_leniently(text)["inputs"][position]["name"]
    except (LookupError, TypeError):
        return None
    return shorten(name) if isinstance(name, str) else None


def _find_wrong_number(text: bytes) -> RequestError | None:
    """Return the error that names the tensor with NaN or the like; None if something else is no JSON."""
    document = parse_leniently(text)
    inputs = document.get("inputs") if isinstance(document, dict) else None
    for position, tensor in enumerate(inputs if isinstance(inputs, list) else ()):
        if isinstance(tensor, dict):
            found = find_not_number(tensor.get("data"))
            if found is not None:
                name = tensor.get("name")
                return explain_not_number(name if isinstance(name, str) else f"inputs[{position}]", *found)
    return None
