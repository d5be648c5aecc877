"""The protocol's datatypes: which values they hold, and their bytes.

Source: Tensor Data Types (sizes) and InferTensorContents (fields); the binary tensor data extension (bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Value = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype.

    Attributes:
        code: Its letter for `struct`; empty for BYTES.
        field: Where gRPC's InferTensorContents has it; empty for what has to be raw.
        low: Least value of an integer type.
        high: Greatest value of an integer type; of a floating-point type its greatest finite value.
    """

    name: str
    code: str
    field: str
    low: int = 0
    high: float = 0

    @property
    def size(self) -> int:
        """Bytes of one element; 0 for BYTES."""
        return struct.calcsize(f"<{self.code}") if self.code else 0

    @property
    def kind(self) -> str:
        """`bool`, `int`, `float` or `text`."""
        if self.name == "BYTES":
            return "text"
        if self.name == "BOOL":
            return "bool"
        return "float" if self.name.startswith("FP") else "int"


def _integer(name: str, code: str, field: str) -> Datatype:
    bits = struct.calcsize(f"<{code}") * 8
    if name.startswith("U"):
        return Datatype(name, code, field, 0, 2**bits - 1)
    return Datatype(name, code, field, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


DATATYPES = {
    one.name: one
    for one in (
        Datatype("BOOL", "?", "bool_contents"),
        _integer("UINT8", "B", "uint_contents"),
        _integer("UINT16", "H", "uint_contents"),
        _integer("UINT32", "I", "uint_contents"),
        _integer("UINT64", "Q", "uint64_contents"),
        _integer("INT8", "b", "int_contents"),
        _integer("INT16", "h", "int_contents"),
        _integer("INT32", "i", "int_contents"),
        _integer("INT64", "q", "int64_contents"),
        Datatype("FP16", "e", "", high=65504.0),
        Datatype("FP32", "f", "fp32_contents", high=3.4028234663852886e38),
        Datatype("FP64", "d", "fp64_contents", high=1.7976931348623157e308),
        Datatype("BYTES", "", "bytes_contents"),
    )
}


def holds(datatype: Datatype, value: Any) -> bool:
    """Whether a JSON value is one of the datatype's, without coercion."""
    if datatype.kind == "text":
        return isinstance(value, str)
    if datatype.kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if datatype.kind == "float":
        # An integer may be beyond every float. In few digits the greatest FP32 is written a little too large.
        most = datatype.high if datatype.name == "FP64" else datatype.high * (1 + 2**-24)
        return abs(value) <= most
    return isinstance(value, int) and datatype.low <= value <= datatype.high


def pack(datatype: Datatype, values: Sequence[Any]) -> bytes:
    """Return the raw bytes of a tensor: little-endian, row-major, each string after its length."""
    if datatype.kind == "text":
        encoded = [value if isinstance(value, bytes) else value.encode() for value in values]
        return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
    return struct.pack(f"<{len(values)}{datatype.code}", *values)


def unpack(datatype: Datatype, raw: bytes) -> list[Any]:
    """Return the elements in the raw bytes of a tensor.

    Raises:
        ValueError: The bytes are no whole number of elements, or no booleans.
    """
    if datatype.kind != "text":
        count, rest = divmod(len(raw), datatype.size)
        if rest:
            raise ValueError(f"{len(raw)} bytes are no whole number of {datatype.name}")
        if datatype.kind == "bool" and raw.strip(b"\0\1"):
            raise ValueError("a BOOL byte is neither 0 nor 1")
        return list(struct.unpack(f"<{count}{datatype.code}", raw))
    values: list[Any] = []
    position = 0
    while position < len(raw):
        end = position + 4
        if end <= len(raw):
            end += struct.unpack_from("<I", raw, position)[0]
        if end > len(raw):
            raise ValueError("the bytes end inside of an element")
        values.append(raw[position + 4 : end].decode())
        position = end
    return values
