"""The meaning of one value: what a column's encoder makes of it, or why it refuses it.

Every value has one meaning, given by its column's `encode` function. The vectorised path handles what is
plainly good and hands everything else to that same function, so that a batch can never differ from its rows
one by one. Numpy and dictionaries only: this runs for every prediction.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.contract import Column, Type, Unseen
from tenure.errors import RowError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAN = float("nan")
_FLOAT32_MAX = float(np.finfo(np.float32).max)

_brief = reprlib.Repr()
_brief.maxlevel = 3


@dataclass(frozen=True, slots=True)
class Feature:
    """What training learned about one column.

    Attributes:
        column: The contract's column.
        categories: Categories in code order; empty unless the column is a string.
        low: Smallest number seen in training; None if the column is not numeric or was always missing.
        high: Largest number seen in training; likewise.
    """

    column: Column
    categories: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


class ValueProblem(Exception):  # noqa: N818 - the featuriser turns it into a RowError
    """What is wrong with one value; its column and row are added by whoever knows them."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """One column, ready to run: `encode` gives a value's meaning, the rest lets numpy skip good values."""

    name: str
    type: Type
    nullable: bool
    encode: Callable[[Any], float]
    codes: Mapping[Any, float]
    low: float
    high: float


def make_encoder(feature: Feature) -> Encoder:
    """Build the column's `encode` function and bounds."""
    column = feature.column
    low, high = -_FLOAT32_MAX, _FLOAT32_MAX
    codes: dict[Any, float] = {}
    if column.type is Type.STRING:
        codes = {category: float(code) for code, category in enumerate(feature.categories)}
        encode = _make_category_function(column, codes)
    elif column.type is Type.BOOLEAN:
        encode = _make_boolean_function(column)
    else:
        if column.minimum is not None:
            low = max(low, column.minimum)
        if column.maximum is not None:
            high = min(high, column.maximum)
        if column.unseen is Unseen.REJECT:
            low = max(low, math.inf if feature.low is None else feature.low)
            high = min(high, -math.inf if feature.high is None else feature.high)
        encode = _make_number_function(feature, low, high)
    return Encoder(column.name, column.type, column.nullable, encode, codes, low, high)


def _make_category_function(column: Column, codes: Mapping[Any, float]) -> Callable[[Any], float]:
    """Return the meaning of one value of a string column."""
    nullable, reject = column.nullable, column.unseen is Unseen.REJECT
    get = codes.get

    def encode(value: Any) -> float:
        try:
            code = get(value)
        except TypeError:  # unhashable
            raise ValueProblem(_say_type(value, "a string")) from None
        if code is not None:
            return code
        if _is_missing(value):
            return _admit_missing(nullable)
        if not isinstance(value, str):
            raise ValueProblem(_say_type(value, "a string"))
        if reject:
            raise ValueProblem(f"{show(value)} is not one of {_show_some(list(codes))}")
        return _NAN

    return encode


def _make_boolean_function(column: Column) -> Callable[[Any], float]:
    """Return the meaning of one value of a boolean column."""
    nullable = column.nullable

    def encode(value: Any) -> float:
        if value is True:
            return 1.0
        if value is False:
            return 0.0
        if isinstance(value, np.bool_):
            return float(value)
        if _is_missing(value):
            return _admit_missing(nullable)
        raise ValueProblem(_say_type(value, "true or false"))

    return encode


def _make_number_function(feature: Feature, low: float, high: float) -> Callable[[Any], float]:
    """Return the meaning of one value of a float or integer column; `low` and `high` bound what is fine."""
    column = feature.column
    nullable, whole = column.nullable, column.type is Type.INTEGER
    wanted = "a whole number" if whole else "a number"

    def encode(value: Any) -> float:
        kind = type(value)
        if kind is not float:
            if kind is not int:
                if _is_missing(value):
                    return _admit_missing(nullable)
                if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                    raise ValueProblem(_say_type(value, wanted))
            try:
                value = float(value)
            except OverflowError:
                raise ValueProblem(f"{show(value)} is too large") from None
        if low <= value <= high and (not whole or value.is_integer()):
            return value  # type: ignore[no-any-return]
        if value != value:  # NaN
            return _admit_missing(nullable)
        raise ValueProblem(_say_range(feature, value))

    return encode


def encode_many(encoder: Encoder, values: Any) -> NDArray[np.float64]:
    """Encode one column with numpy where that is safe, value by value elsewhere."""
    is_array = isinstance(values, np.ndarray)
    if is_array and values.dtype.kind in "OU":
        values, is_array = values.tolist(), False
    if encoder.type is Type.STRING:
        return _encode_strings(encoder, values.tolist() if is_array else values)
    if is_array:
        if values.dtype.kind not in ("b" if encoder.type is Type.BOOLEAN else "iuf"):
            return encode_each(encoder, values.tolist())
        numbers: NDArray[np.float64] = values.astype(np.float64)
    else:
        plain = {bool, type(None)} if encoder.type is Type.BOOLEAN else {float, int, type(None)}
        if not plain.issuperset(map(type, values)):
            return encode_each(encoder, values)
        try:
            numbers = np.array(values, dtype=np.float64)  # None becomes NaN
        except OverflowError:
            return encode_each(encoder, values)
    good = (numbers >= encoder.low) & (numbers <= encoder.high)
    if encoder.type is Type.INTEGER:
        good &= numbers == np.floor(numbers)
    if encoder.nullable:
        good |= np.isnan(numbers)
    if not good.all():
        first = int(np.argmin(good))
        encode_each(encoder, values[first : first + 1], first)  # raises, or the two paths have diverged
        raise AssertionError(f"{encoder.name}: numpy refuses a value that encode accepts")
    return numbers


def _encode_strings(encoder: Encoder, values: list[Any]) -> NDArray[np.float64]:
    """Look every string up; whatever has no code goes through `encode`."""
    try:
        codes = np.array(list(map(encoder.codes.get, values)), dtype=np.float64)  # None becomes NaN
    except TypeError:  # unhashable
        return encode_each(encoder, values)
    for row in np.flatnonzero(np.isnan(codes)).tolist():
        encode_each(encoder, values[row : row + 1], row)
    return codes


def encode_each(encoder: Encoder, values: Sequence[Any], first: int = 0) -> NDArray[np.float64]:
    """Encode value by value; `first` is the row of the first one, for the error message."""
    encode = encoder.encode
    encoded = []
    for row, value in enumerate(values):
        try:
            encoded.append(encode(value))
        except ValueProblem as problem:
            raise RowError(encoder.name, f"row {first + row}: {problem}") from None
    return np.array(encoded, dtype=np.float64)


def open_values(name: str, values: Any) -> Any:
    """Return a column as a list or as a one-dimensional array; anything else is an error."""
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise RowError(name, f"is an array of shape {list(values.shape)}, expected one dimension")
        if values.dtype.kind in "mM":
            raise RowError(name, f"holds {values.dtype} values, expected the contract's type")
        return values
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise RowError(name, f"is {type(values).__name__}, expected a list of values")
    return list(values)


def _is_missing(value: Any) -> bool:
    """Whether a value stands for "not known": None or NaN."""
    return value is None or (isinstance(value, float | np.floating) and bool(value != value))


def _admit_missing(nullable: bool) -> float:
    """Return the code of a missing value, or refuse it."""
    if nullable:
        return _NAN
    raise ValueProblem("is missing, but the contract says it never is")


def _say_type(value: Any, wanted: str) -> str:
    return f"{show(value)} is of type {type(value).__name__}, expected {wanted}"


def _say_range(feature: Feature, value: float) -> str:
    """Say why a number is refused."""
    column = feature.column
    if not math.isfinite(value):
        return f"{value} is not a finite number (leave a missing value empty)"
    if column.minimum is not None and value < column.minimum:
        return f"{value:g} is below the minimum {column.minimum:g}"
    if column.maximum is not None and value > column.maximum:
        return f"{value:g} is above the maximum {column.maximum:g}"
    if column.type is Type.INTEGER and not value.is_integer():
        return f"{value:g} is not a whole number"
    if abs(value) > _FLOAT32_MAX:
        return f"{value:g} is too large"
    if feature.low is None:
        return f"{value:g} was never seen in training, where the column was always missing"
    return f"{value:g} is beyond the training range {feature.low:g} to {feature.high:g}"


def show(value: Any) -> str:
    """Quote a value, at most 60 characters of it; what is long or deep costs no more than what is short."""
    if isinstance(value, str | bytes):
        text = repr(value[:60])
        return text if len(value) <= 60 and len(text) <= 60 else text[:57] + "..."
    try:
        text = _brief.repr(value) if isinstance(value, Sequence | Mapping) else repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def _show_some(values: list[str]) -> str:
    """List the first ten values."""
    more = f" and {len(values) - 10} more" if len(values) > 10 else ""
    return ", ".join(show(value) for value in values[:10]) + more
