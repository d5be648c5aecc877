"""What each datatype of a tensor holds for a column: which values are taken, and what they become.

A column is a list (of JSON, of typed contents) or an array (of binary tensors, of raw contents).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from serving.predictor.errors import RequestError
from tenure.contract import Type
from tenure.encoding import Feature, ValueProblem, show
from tenure.normalisation import read_boolean

INTEGERS = {"INT64": 64, "INT32": 32, "INT16": 16, "INT8": 8, "UINT32": -32, "UINT16": -16, "UINT8": -8}
"""Datatypes of whole numbers and their bits; negative for those without a sign."""

Column = list[Any] | np.ndarray[Any, Any]
"""A column's values, one per row."""

Convert = Callable[[Column], Column]
"""Returns a column's values as the featuriser reads them: the very object if nothing changes."""


class RowProblem(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with the value in one row."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def convert_column(name: str, convert: Convert, values: Column, first: int = 0) -> Column:
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
    integers: dict[str, Convert | None] = {name: _make_range_check(name) for name in INTEGERS}
    if column.type is Type.FLOAT:
        return {"FP64": None, "FP32": None, **integers}
    return {**integers, "FP64": None} if column.nullable else integers


def _make_booleans(values: Column) -> Column:
    """Turn 0, 1 and NaN into False, True and None."""
    if isinstance(values, np.ndarray):
        missing = np.isnan(values)
        good = missing | (values == 0) | (values == 1)
        if good.all():
            if not missing.any():
                return values == 1  # type: ignore[no-any-return]
            return [None if value != value else value == 1 for value in values.tolist()]
        values = values.tolist()
    booleans = []
    for row, value in enumerate(values):
        try:
            booleans.append(read_boolean(value))
        except ValueProblem as problem:
            raise RowProblem(row, str(problem)) from None
    return booleans


def _make_range_check(datatype: str) -> Convert:
    """Return a check that whole numbers fit the datatype; an array's always do."""
    bits = INTEGERS[datatype]
    low = 0 if bits < 0 else -(2 ** (bits - 1))
    high = 2**-bits - 1 if bits < 0 else 2 ** (bits - 1) - 1

    def check(values: Column) -> Column:
        if not isinstance(values, np.ndarray):
            for row, value in enumerate(values):
                if type(value) is int and not low <= value <= high:
                    raise RowProblem(row, f"{show(value)} does not fit {datatype}, expected {low} to {high}")
        return values

    return check


def check_strings(values: Column) -> Column:
    """Check ids in a tensor of BYTES; raises `RowProblem` as all checks do."""
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise RowProblem(row, f"{show(value)} is not a string")
    return values


def check_integers(values: Column) -> Column:
    """Check ids in a tensor of whole numbers."""
    if not isinstance(values, np.ndarray):
        for row, value in enumerate(values):
            if type(value) is not int:
                raise RowProblem(row, f"{show(value)} is not a whole number")
    return values


def check_id(values: Column) -> Column:
    """Check ids of V1 rows, where the protocol has no datatypes."""
    for row, value in enumerate(values):
        if not isinstance(value, str) and type(value) is not int:
            raise RowProblem(row, f"{show(value)} is not an id")
    return values


def shorten(text: str) -> str:
    """Return a text as it is if it is short, else its beginning; half a surrogate pair as its escape, for no
    answer can have it.
    """
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
