"""Ways to spoil a good request that the checks and the generator share."""

from __future__ import annotations

import json
from typing import Any

from oip_conformance.errors import NotApplicableError
from oip_conformance.example import Example, Tensor
from oip_conformance.rest import RestRequest

PLACE = "\N{SNOWMAN}raw{}\N{SNOWMAN}"
"""A string that `write` replaces, with its quotes, by a text that need not be JSON."""

NO_NAME = "no-such-input"


def write(document: Any, *texts: str) -> bytes:
    """Return a document as JSON, with each text in the place of `PLACE` of its position."""
    written = json.dumps(document, ensure_ascii=False)
    for position, text in enumerate(texts):
        written = written.replace(f'"{PLACE.format(position)}"', text)
    return written.encode("utf-8", "surrogatepass")


def replace_input(example: Example, at: int, **changes: Any) -> dict[str, Any]:
    """Return the request with members of one input changed; `...` leaves one out."""
    document = example.to_json()
    entry = document["inputs"][at]
    for key, value in changes.items():
        if value is ...:
            del entry[key]
        else:
            entry[key] = value
    return document


def replace_value(tensor: Tensor, value: Any) -> list[Any]:
    """Return a tensor's values with another as its first."""
    return [value, *tensor.data[1:]]


def find_datatype(example: Example, *names: str) -> int:
    """Return the position of the first input with one of these datatypes."""
    for at, tensor in enumerate(example.inputs):
        if tensor.datatype in names:
            return at
    raise NotApplicableError(f"the request has no input of {' or '.join(names)}")


def overflow(count: int) -> list[int]:
    """Return two dimensions whose product, in 64 bits, is `count`: it wraps round."""
    third = pow(3, -1, 2**64)
    return [3 * count, third]


def other_datatype(tensor: Tensor) -> tuple[str, Any]:
    """Return a datatype of another kind, and a value of it."""
    return ("FP64", 1.5) if tensor.type.kind == "text" else ("BYTES", "a")


def post(note: str, document: Any, *texts: str) -> RestRequest:
    """Return a request with that document."""
    return RestRequest(write(document, *texts), note)


def swap_case(tensor: Tensor) -> str:
    """Return a tensor's name in the other case."""
    other = tensor.name.swapcase()
    if other == tensor.name:
        raise NotApplicableError(f"{tensor.name} has no letters")
    return other
