"""Answers to inference requests: whether they are well-formed, and whether two say the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from oip_conformance.datatypes import DATATYPES, holds, unpack
from oip_conformance.errors import BrokenError
from oip_conformance.example import Tensor, flatten, nest
from oip_conformance.rest import HEADER_LENGTH, RestReply

Answer = dict[str, Tensor]
"""Output tensors by name."""

_NEAR = 1e-5
"""Relative difference of floating-point outputs that still counts as the same: other paths sum otherwise."""


def read_rest(reply: RestReply) -> Answer:
    """Read a REST answer.

    Raises:
        BrokenError: The status is not 200, or an output breaks the rules of *$response_output*.
    """
    if reply.status != 200:
        raise BrokenError(f"expected 200, got {reply.describe()}")
    document = reply.read_json()
    if not isinstance(document, dict) or not isinstance(document.get("outputs"), list):
        raise BrokenError(f"the answer has no list of outputs: {reply.describe()}")
    start = _find_tail(reply)
    tensors = []
    for entry in document["outputs"]:
        if not isinstance(entry, dict):
            raise BrokenError(f"an output is no object: {entry!r}")
        parameters = entry.get("parameters") or {}
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            tensors.append(_read_output(entry, entry.get("data")))
            continue
        if type(size) is not int or not 0 <= size <= len(reply.body) - start:
            raise BrokenError(f"{entry.get('name')}: binary_data_size {size!r} does not fit the body")
        tensors.append(_read_output(entry, _unpack(entry, reply.body[start : start + size])))
        start += size
    if HEADER_LENGTH.lower() in reply.headers and start != len(reply.body):
        raise BrokenError(f"{len(reply.body) - start} bytes of the body belong to no output")
    return _collect(tensors)


def _find_tail(reply: RestReply) -> int:
    length = reply.headers.get(HEADER_LENGTH.lower())
    if length is None:
        return len(reply.body)
    if not length.isdigit() or len(length) > 18 or int(length) > len(reply.body):
        raise BrokenError(f"{HEADER_LENGTH} is {length!r}, the body has {len(reply.body)} bytes")
    return int(length)


def _unpack(entry: Mapping[str, Any], raw: bytes) -> list[Any]:
    datatype = DATATYPES.get(str(entry.get("datatype")))
    if datatype is None:
        raise BrokenError(f"{entry.get('name')}: datatype {entry.get('datatype')!r} is unknown")
    try:
        return unpack(datatype, raw)
    except ValueError as error:
        raise BrokenError(f"{entry.get('name')}: {error}") from error


def _read_output(entry: Mapping[str, Any], data: Any) -> Tensor:
    """Check one output against its own shape and datatype."""
    name, shape, datatype = entry.get("name"), entry.get("shape"), entry.get("datatype")
    if not isinstance(name, str) or not name:
        raise BrokenError(f"an output has no name: {name!r}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise BrokenError(f"{name}: shape {shape!r} is no list of whole numbers")
    if datatype not in DATATYPES:
        raise BrokenError(f"{name}: datatype {datatype!r} is unknown")
    if not isinstance(data, list):
        raise BrokenError(f"{name}: has no list of data")
    values = flatten(data)
    if len(values) != math.prod(shape):
        raise BrokenError(f"{name}: shape {shape}, but {len(values)} values")
    if data and isinstance(data[0], list) and data != nest(values, shape):
        raise BrokenError(f"{name}: the nesting of the data is not that of shape {shape}")
    for value in values:
        if not holds(DATATYPES[datatype], value):
            raise BrokenError(f"{name}: {value!r} is not a value of {datatype}")
    return Tensor(name, datatype, tuple(shape), tuple(values))


def read_rpc(message: Any) -> Answer:
    """Read a ModelInferResponse.

    Raises:
        BrokenError: An output breaks the rules of its message.
    """
    raws = list(message.raw_output_contents)
    if raws and len(raws) != len(message.outputs):
        raise BrokenError(f"{len(message.outputs)} outputs, but {len(raws)} raw_output_contents")
    tensors = []
    for position, output in enumerate(message.outputs):
        entry = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if raws:
            if output.contents.ListFields():
                raise BrokenError(f"{output.name}: has contents as well as raw_output_contents")
            data = _unpack(entry, raws[position])
        else:
            data = _read_contents(output)
        tensors.append(_read_output(entry, data))
    return _collect(tensors)


def _read_contents(output: Any) -> list[Any]:
    datatype = DATATYPES.get(output.datatype)
    used = [field.name for field, _ in output.contents.ListFields()]
    if datatype is None or not set(used) <= {datatype.field}:
        raise BrokenError(f"{output.name}: datatype {output.datatype!r} with its data in {', '.join(used)}")
    values = list(getattr(output.contents, datatype.field)) if used else []
    try:
        return [value.decode() if isinstance(value, bytes) else value for value in values]
    except UnicodeDecodeError as error:
        raise BrokenError(f"{output.name}: an element is not UTF-8") from error


def _collect(tensors: Sequence[Tensor]) -> Answer:
    answer = {tensor.name: tensor for tensor in tensors}
    if len(answer) != len(tensors):
        raise BrokenError("an output is there twice")
    return answer


def compare(got: Answer, expected: Answer) -> None:
    """Hold one answer against another.

    Raises:
        BrokenError: Outputs, datatypes, shapes or values differ.
    """
    if set(got) != set(expected):
        raise BrokenError(f"outputs {sorted(got)}, expected {sorted(expected)}")
    for name, tensor in got.items():
        other = expected[name]
        if (tensor.datatype, tensor.shape) != (other.datatype, other.shape):
            kind, wanted = (f"{one.datatype} {list(one.shape)}" for one in (tensor, other))
            raise BrokenError(f"{name}: {kind}, expected {wanted}")
        for position, (value, wanted) in enumerate(zip(tensor.data, other.data, strict=True)):
            if not _is_same(value, wanted):
                raise BrokenError(f"{name}[{position}]: {value!r}, expected {wanted!r}")


def _is_same(value: Any, wanted: Any) -> bool:
    if isinstance(value, float) or isinstance(wanted, float):
        return math.isclose(value, wanted, rel_tol=_NEAR, abs_tol=_NEAR)
    return bool(value == wanted)


def join(answers: Sequence[Answer]) -> Answer:
    """Return the answer whose rows are those of the answers, one after the other."""
    joined = {}
    for name, tensor in answers[0].items():
        parts = [answer[name] for answer in answers]
        shape = (sum(part.shape[0] for part in parts), *tensor.shape[1:])
        data = tuple(value for part in parts for value in part.data)
        joined[name] = Tensor(name, tensor.datatype, shape, data)
    return joined
