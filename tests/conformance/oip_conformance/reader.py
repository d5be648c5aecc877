"""A strict reader of requests: what a request says if it is a good one, and else why it is none.

The generator's requests are changed at random, so that nobody knows beforehand whether one is still good. A
server that answers a request which this reader refuses has understood something that was not said.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from oip_conformance.datatypes import DATATYPES, Datatype, holds, unpack
from oip_conformance.errors import BrokenError
from oip_conformance.example import Example, Tensor, flatten, nest
from oip_conformance.messages import MESSAGES
from oip_conformance.rest import HEADER_LENGTH, RestRequest
from oip_conformance.session import Session


class UnjudgedError(Exception):
    """The request is good, but what its answer has to be cannot be told; the message says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A request, understood.

    Attributes:
        example: Its inputs in the model's own datatypes and shapes; a value may be None.
        outputs: The outputs that it asks for; empty for all.
        coerced: Whether a value, datatype or shape had to be converted, which servers may refuse.
    """

    example: Example
    outputs: tuple[str, ...]
    coerced: bool


class Reader:
    """Reads requests for one model."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._required = {tensor.name: tensor for tensor in session.example.inputs}
        listed = session.model_metadata.get("inputs") or []
        self._known = {entry["name"] for entry in listed} | set(self._required)
        self._outputs = {entry["name"] for entry in session.model_metadata.get("outputs") or []}
        self._outputs |= set(session.baseline)

    def read_rest(self, request: RestRequest) -> Reading:
        """Read a REST request.

        Raises:
            BrokenError: It is no good request.
            UnjudgedError: It is, and has values that JSON cannot say.
        """
        text, tail = request.body, b""
        length = request.headers.get(HEADER_LENGTH)
        if length is not None:
            digits = length.isascii() and length.isdigit() and len(length) < 19
            if not digits or int(length) > len(text):
                raise BrokenError(f"{HEADER_LENGTH} is {length!r}")
            text, tail = text[: int(length)], text[int(length) :]
        try:
            document = json.loads(
                text.decode(), parse_constant=_refuse_constant, object_pairs_hook=_refuse_twins
            )
        except (ValueError, RecursionError) as error:
            raise BrokenError(f"no JSON: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
            raise BrokenError("no list of inputs")
        tensors = []
        for entry in document["inputs"]:
            if not isinstance(entry, dict):
                raise BrokenError("an input is no object")
            size = self._find_size(entry)
            if size is None:
                _refuse_infinities(entry.get("data"))
                tensors.append(self._read_input(entry, entry.get("data")))
                continue
            if length is None or entry.get("data") is not None or size > len(tail):
                raise BrokenError("binary data that are not there, or there twice")
            tensors.append(self._read_input(entry, _unpack(str(entry.get("datatype")), tail[:size])))
            tail = tail[size:]
        if tail:
            raise BrokenError("bytes that belong to no tensor")
        return self._finish(tensors, document)

    def _find_size(self, entry: Mapping[str, Any]) -> int | None:
        parameters = entry.get("parameters")
        if not isinstance(parameters, dict | None):
            raise BrokenError("parameters are no object")
        size = (parameters or {}).get("binary_data_size")
        if size is not None and (type(size) is not int or size < 0):
            raise BrokenError(f"binary_data_size is {size!r}")
        return size

    def read_rpc(self, message: Any) -> Reading:
        """Read a gRPC request, from its message or its bytes; raises as `read_rest`."""
        if isinstance(message, bytes):
            raw, message = message, MESSAGES["ModelInferRequest"]()
            try:
                message.ParseFromString(raw)
            except DecodeError as error:
                raise BrokenError(f"no message: {error}") from error
        if message.model_name != self._session.model:
            raise BrokenError(f"another model: {message.model_name!r}")
        if message.model_version not in ("", *self._session.list_versions()):
            raise BrokenError(f"another version: {message.model_version!r}")
        raws = list(message.raw_input_contents)
        if raws and len(raws) != len(message.inputs):
            raise BrokenError("raw contents for other inputs")
        tensors = []
        for at, one in enumerate(message.inputs):
            entry = {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
            used = [field.name for field, _ in one.contents.ListFields()]
            if raws:
                if used:
                    raise BrokenError(f"{one.name}: contents twice")
                tensors.append(self._read_input(entry, _unpack(one.datatype, raws[at])))
                continue
            datatype = DATATYPES.get(one.datatype)
            if datatype is None or used != [datatype.field]:
                raise BrokenError(f"{one.name}: {one.datatype} in {used}")
            values = list(getattr(one.contents, datatype.field))
            tensors.append(self._read_input(entry, [_decode(value) for value in values]))
        outputs = [{"name": one.name} for one in message.outputs]
        return self._finish(tensors, {"outputs": outputs} if outputs else {})

    def _read_input(self, entry: Mapping[str, Any], data: Any) -> tuple[Tensor, bool]:
        """Return an input in the model's datatype and rank, and whether it had to be converted."""
        name, shape, own = entry.get("name"), entry.get("shape"), entry.get("datatype")
        if not isinstance(name, str) or name not in self._known:
            raise BrokenError(f"no input of the model: {name!r}")
        if not isinstance(own, str) or own not in DATATYPES:
            raise BrokenError(f"{name}: datatype {own!r}")
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise BrokenError(f"{name}: shape {shape!r}")
        if not isinstance(data, list):
            raise BrokenError(f"{name}: no list of data")
        values = flatten(data)
        nested = any(isinstance(value, list) for value in data)
        if math.prod(shape) != len(values) or (nested and nest(values, shape) != data):
            raise BrokenError(f"{name}: shape {shape} for other data")
        wanted = self._required.get(name)
        if wanted is None:
            return Tensor(name, own, tuple(shape), tuple(values)), False
        if not values:
            raise UnjudgedError("no rows")
        tail = list(wanted.shape[1:])
        if shape[1:] != tail and [size for size in shape[1:] if size != 1] != [s for s in tail if s != 1]:
            raise BrokenError(f"{name}: shape {shape}, the model's is {list(wanted.shape)}")
        read = [_convert(name, DATATYPES[own], wanted.type, value) for value in values]
        coerced = own != wanted.datatype or shape[1:] != tail or any(was for _, was in read)
        rows = (shape[0], *wanted.shape[1:]) if shape else wanted.shape
        if math.prod(rows) != len(read):
            raise BrokenError(f"{name}: shape {shape} for other data")
        return Tensor(name, wanted.datatype, rows, tuple(value for value, _ in read)), coerced

    def _finish(self, tensors: Sequence[tuple[Tensor, bool]], document: Mapping[str, Any]) -> Reading:
        """Check the inputs together, and the request's other members."""
        names = [tensor.name for tensor, _ in tensors]
        if len(set(names)) != len(names) or not set(self._required) <= set(names):
            raise BrokenError(f"inputs twice or missing: {names}")
        if len({tensor.shape[:1] for tensor, _ in tensors}) != 1:
            raise BrokenError("inputs of different rows")
        for key, kind in (("id", str), ("parameters", dict), ("outputs", list)):
            if not isinstance(document.get(key), kind | None):
                raise BrokenError(f"{key} is {document[key]!r}")
        outputs = []
        for output in document.get("outputs") or []:
            name = output.get("name") if isinstance(output, dict) else None
            if not isinstance(name, str) or name not in self._outputs:
                raise BrokenError(f"no output of the model: {output!r}")
            outputs.append(name)
        if not set(outputs) <= set(self._session.baseline):
            raise UnjudgedError("an output that is not among those that come by themselves")
        used = [tensor for tensor, _ in tensors if tensor.name in self._required]
        return Reading(Example(tuple(used)), tuple(outputs), any(was for _, was in tensors))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _refuse_infinities(data: Any) -> None:
    # JSON's own numbers have no end; Python reads what is beyond a double as infinite.
    if any(isinstance(value, float) and math.isinf(value) for value in flatten(data)):
        raise BrokenError("a number that no datatype holds")


def _decode(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UnjudgedError("a string that is not UTF-8") from None


def _unpack(name: str, raw: bytes) -> list[Any]:
    datatype = DATATYPES.get(name)
    if datatype is None:
        raise BrokenError(f"datatype {name!r}")
    try:
        return unpack(datatype, raw)
    except UnicodeDecodeError:
        raise UnjudgedError("a string that is not UTF-8") from None
    except ValueError as error:
        raise BrokenError(str(error)) from error


def _convert(name: str, own: Datatype, wanted: Datatype, value: Any) -> tuple[Any, bool]:
    """Return a value in the model's datatype, and whether it was converted."""
    if value is None:
        return None, False
    if isinstance(value, float) and not math.isfinite(value):
        raise UnjudgedError("NaN or Infinity")
    if own.name == wanted.name and holds(wanted, value):
        return float(value) if wanted.kind == "float" else value, False
    converted = _coerce(own, wanted, value)
    if converted is None or not holds(wanted, converted):
        raise BrokenError(f"{name}: {value!r:.60} is no {own.name}, or no {wanted.name}")
    return converted, True


def _coerce(own: Datatype, wanted: Datatype, value: Any) -> Any:
    """Return what a server may take the value for without losing anything; None if nothing."""
    if isinstance(value, list | dict) or (isinstance(value, str) and len(value) > 400):
        return None
    if own.kind != wanted.kind and (own.kind == "text" or wanted.kind == "text"):
        return None
    if wanted.kind == "text":
        return str(value)
    try:
        number = float(value)
        if wanted.kind == "float":
            return number
        if wanted.kind == "bool":
            return bool(number) if number in (0, 1) else None
        if isinstance(value, int):
            return int(value)
        return int(value) if isinstance(value, str) else (int(number) if number.is_integer() else None)
    except (ValueError, OverflowError):
        return None
