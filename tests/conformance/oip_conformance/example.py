"""A good request: what every valid and every malformed request is made from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oip_conformance.datatypes import DATATYPES, Datatype, Value, holds
from oip_conformance.errors import UsageError

GUESSES: dict[str, Value] = {"text": "a", "bool": True, "int": 1, "float": 1.0}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its elements flat, in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[Any, ...]

    @property
    def type(self) -> Datatype:
        """What the datatype's name stands for."""
        return DATATYPES[self.datatype]

    @property
    def width(self) -> int:
        """Elements of one row."""
        return math.prod(self.shape[1:])

    def to_json(self, **more: Any) -> dict[str, Any]:
        """Return the tensor as the request has it."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "datatype": self.datatype,
            "data": list(self.data),
            **more,
        }

    def take(self, rows: Sequence[int]) -> Tensor:
        """Return the tensor with these of its rows."""
        width = self.width
        data = tuple(value for row in rows for value in self.data[row * width : (row + 1) * width])
        return replace(self, shape=(len(rows), *self.shape[1:]), data=data)


@dataclass(frozen=True, slots=True)
class Example:
    """A good request's inputs."""

    inputs: tuple[Tensor, ...]

    @property
    def rows(self) -> int:
        """The first dimension that all inputs share; 1 if they share none."""
        lengths = {tensor.shape[0] if tensor.shape else 0 for tensor in self.inputs}
        return lengths.pop() if len(lengths) == 1 else 1

    def take(self, rows: Sequence[int]) -> Example:
        """Return the request for these rows."""
        return Example(tuple(tensor.take(rows) for tensor in self.inputs))

    def to_json(self, **more: Any) -> dict[str, Any]:
        """Return the V2 request."""
        return {"inputs": [tensor.to_json() for tensor in self.inputs], **more}

    def find(self, *kinds: str) -> int | None:
        """Return the position of the first input whose datatype is of one of these kinds."""
        return next((at for at, one in enumerate(self.inputs) if one.type.kind in kinds), None)


def read_example(path: Path) -> Example:
    """Read a V2 request from a JSON file.

    Raises:
        UsageError: It is no V2 request, or its values are not all of their datatypes.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON: {error}") from error
    return parse_example(document, str(path))


def parse_example(document: Any, where: str) -> Example:
    """Read a V2 request from its document.

    Raises:
        UsageError: As `read_example`.
    """
    try:
        entries = document["inputs"]
        tensors = tuple(_read_tensor(entry) for entry in entries)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{where}: is not a V2 request: {error!r}") from error
    if not tensors:
        raise UsageError(f"{where}: has no inputs")
    for tensor in tensors:
        if len(tensor.data) != math.prod(tensor.shape):
            raise UsageError(f"{where}: {tensor.name}: the shape does not fit {len(tensor.data)} values")
        wrong = [value for value in tensor.data if not holds(tensor.type, value)]
        if wrong:
            raise UsageError(f"{where}: {tensor.name}: {wrong[0]!r} is not a value of {tensor.datatype}")
    return Example(tensors)


def _read_tensor(entry: Mapping[str, Any]) -> Tensor:
    datatype = entry["datatype"]
    if datatype not in DATATYPES:
        raise ValueError(f"datatype {datatype!r} is unknown")
    values = flatten(entry["data"])
    if DATATYPES[datatype].kind == "float":
        values = [float(value) for value in values]
    return Tensor(entry["name"], datatype, tuple(entry["shape"]), tuple(values))


def flatten(values: Any) -> list[Any]:
    """Return the elements of nested lists in row-major order."""
    if not isinstance(values, list):
        return [values]
    return [element for value in values for element in flatten(value)]


def nest(values: Sequence[Any], shape: Sequence[int]) -> Any:
    """Return flat elements in their multi-dimensional form."""
    if len(shape) <= 1:
        return list(values)
    size = len(values) // shape[0]
    return [nest(values[at * size : (at + 1) * size], shape[1:]) for at in range(shape[0])]


def guess_example(inputs: Sequence[Mapping[str, Any]]) -> Example:
    """Make a request of one row from a model's metadata, with the plainest values.

    Raises:
        UsageError: The metadata name no inputs, or datatypes that are none.
    """
    if not inputs:
        raise UsageError("the model's metadata name no inputs: give an example of a request (--example FILE)")
    tensors = []
    for entry in inputs:
        datatype = DATATYPES.get(entry["datatype"])
        if datatype is None:
            raise UsageError(
                f"{entry['name']}: datatype {entry['datatype']!r} is unknown: give --example FILE"
            )
        shape = tuple(1 if size < 0 else size for size in entry["shape"])
        value = GUESSES[datatype.kind]
        tensors.append(Tensor(entry["name"], datatype.name, shape, (value,) * math.prod(shape)))
    return Example(tuple(tensors))
