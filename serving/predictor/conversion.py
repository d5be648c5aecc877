"""What each datatype of a tensor holds for a column: which values are taken, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving.predictor.errors import RequestError
from tenure.contract import Type
from tenure.encoding import Feature, ValueProblem
from tenure.normalisation import read_boolean

INTEGERS = {"INT64": 64, "INT32": 32, "INT16": 16, "INT8": 8, "UINT32": -32, "UINT16": -16, "UINT8": -8}
"""Datatypes of whole numbers and their bits; negative for those without a sign."""

Convert = Callable[[list[Any]], list[Any]]
"""Returns a column's values as the featuriser reads them: the very list if nothing changes."""


class RowProblem(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with the value in one row."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def convert_column(name: str, convert: Convert, values: list[Any], first: int = 0) -> list[Any]:
    """Convert or check one column; `first` is the row of its first value.

    Raises:
        RequestError: Names column and row of a value that is not taken.
    """
    try:
        return convert(values)
    except RowProblem as problem:
        raise RequestError(f"{name}: row {first + problem.row}: {problem}") from None


def make_converters(feature: Feature) -> dict[str, Convert | None]:
    """Return the datatypes that a column takes, with what must be done to their values (None: nothing).

    The featuriser checks the type and range of every value, so most need nothing.
    """
    column = feature.column
    if column.type is Type.STRING:
        return {"BYTES": None}
    if column.type is Type.BOOLEAN:
        return {"BOOL": None, "FP64": _make_booleans} if column.nullable else {"BOOL": None}
    integers: dict[str, Convert | None] = {
        name: None if bits == 64 else _make_range_check(name, bits) for name, bits in INTEGERS.items()
    }
    if column.type is Type.FLOAT:
        return {"FP64": None, "FP32": None, **integers}
    return {**integers, "FP64": None} if column.nullable else integers


def _make_booleans(values: list[Any]) -> list[Any]:
    """Turn 0, 1 and NaN into False, True and None."""
    booleans: list[Any] = []
    for row, value in enumerate(values):
        try:
            booleans.append(read_boolean(value))
        except ValueProblem as problem:
            raise RowProblem(row, str(problem)) from None
    return booleans


def _make_range_check(datatype: str, bits: int) -> Convert:
    """Return a check that whole numbers fit the datatype; `bits` is negative if it has no sign."""
    low = 0 if bits < 0 else -(2 ** (bits - 1))
    high = 2**-bits - 1 if bits < 0 else 2 ** (bits - 1) - 1

    def check(values: list[Any]) -> list[Any]:
        for row, value in enumerate(values):
            if type(value) is int and not low <= value <= high:
                raise RowProblem(row, f"{shorten(value)} does not fit {datatype}")
        return values

    return check


def check_strings(values: list[Any]) -> list[Any]:
    """Check ids in a tensor of BYTES; raises `RowProblem` as all checks do."""
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise RowProblem(row, f"{shorten(value)!r} is not a string")
    return values


def check_integers(values: list[Any]) -> list[Any]:
    """Check ids in a tensor of whole numbers."""
    for row, value in enumerate(values):
        if type(value) is not int:
            raise RowProblem(row, f"{shorten(value)!r} is not a whole number")
    return values


def check_id(values: list[Any]) -> list[Any]:
    """Check ids of V1 rows, where the protocol has no datatypes."""
    for row, value in enumerate(values):
        if not isinstance(value, str) and type(value) is not int:
            raise RowProblem(row, f"{shorten(value)!r} is not an id")
    return values


def shorten(value: Any) -> Any:
    """Return a value as it is if its text is short, else the text's beginning."""
    text = str(value)
    return value if len(text) <= 60 else text[:57] + "..."
