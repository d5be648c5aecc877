"""The featuriser: from named columns to the matrix that the trees read. Training and serving share it.

It runs on the prediction's hot path, so transforming needs numpy and dictionaries only. Every value has one
meaning, given by its column's `encode` function; the vectorised path handles what is plainly good and hands
everything else to that same function, so that a batch can never differ from its rows one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.contract import Column, Contract, Type, Unseen
from tenure.errors import BundleError, ContractError, RowError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Values = Sequence[Any] | np.ndarray[Any, Any]

FORMAT = 1
MAX_CATEGORIES = 1000
_NAN = float("nan")
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SCALAR_ROWS = 24  # up to here a Python loop beats numpy's fixed cost per column (benchmarked on 19 columns)


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


@dataclass(frozen=True)
class Featuriser:
    """Turns columns into a float32 matrix with one column per feature, in the contract's order.

    Booleans become 0 and 1, categories their code, numbers themselves (rounded to float32, which holds
    integers exactly up to 2**24). Missing is NaN; so is a category that training did not know, unless its
    column says `unseen: reject`. Instances are immutable and safe to share between threads.
    """

    features: tuple[Feature, ...]
    _encoders: tuple[_Encoder, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoders", tuple(_make_encoder(feature) for feature in self.features))

    @classmethod
    def fit(cls, frame: pd.DataFrame, contract: Contract) -> Featuriser:
        """Learn categories and ranges from the good training rows.

        Args:
            frame: Canonical rows (see `validation.validate_frame`) of the training part.
            contract: Its categories win over those observed; without them the observed ones are sorted.

        Raises:
            ContractError: A feature column is missing, or has more than 1,000 distinct categories.
        """
        features = []
        for column in contract.features:
            if column.name not in frame.columns:
                raise ContractError(f"column {column.name!r} is missing: the featuriser cannot be fitted")
            series = frame[column.name]
            if column.type is Type.STRING:
                categories = column.categories
                if categories is None:
                    categories = tuple(sorted({str(value) for value in series.dropna()}))
                if len(categories) > MAX_CATEGORIES:
                    raise ContractError(
                        f"column {column.name!r} has {len(categories)} distinct values in training, at most "
                        f"{MAX_CATEGORIES} make sense as categories: group them, or take the column out"
                    )
                features.append(Feature(column, categories))
            elif column.type is Type.BOOLEAN:
                features.append(Feature(column))
            else:
                numbers = series.to_numpy(dtype=np.float64, na_value=_NAN)
                numbers = numbers[~np.isnan(numbers)]
                if numbers.size:
                    low, high = float(numbers.min()), float(numbers.max())
                    features.append(Feature(column, low=low, high=high))
                else:
                    features.append(Feature(column))
        return cls(tuple(features))

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names, in the order of the matrix's columns."""
        return tuple(feature.column.name for feature in self.features)

    @property
    def types(self) -> tuple[str, ...]:
        """XGBoost's feature types: "c" for categories, "q" for numbers and booleans."""
        return tuple("c" if feature.column.type is Type.STRING else "q" for feature in self.features)

    def transform(self, columns: Mapping[str, Values]) -> NDArray[np.float32]:
        """Turn columns into the matrix.

        Args:
            columns: For each feature a list, a tuple or a one-dimensional array, all of one length. Keys
                that are no feature are ignored. Missing is None or NaN. Strings are `str`, booleans `bool`,
                numbers `int` or `float` (whole ones where the contract says integer) or numpy's like.

        Returns:
            Array of shape [rows, features], C-contiguous.

        Raises:
            RowError: A column is missing or of another length; a value has the wrong type, is not finite,
                lies beyond minimum or maximum, is missing where it may not be, or was unseen in training
                and the contract rejects that.
        """
        table: list[Any] = []
        rows = -1
        for encoder in self._encoders:
            try:
                values = columns[encoder.name]
            except KeyError:
                raise RowError(encoder.name, "the column is missing") from None
            if type(values) is not list:
                values = _open(encoder.name, values)
            if len(values) != rows:
                if rows >= 0:
                    raise RowError(
                        encoder.name, f"has {len(values)} rows, but {self._encoders[0].name} has {rows}"
                    )
                rows = len(values)
            table.append(values)
        if 0 < rows <= _SCALAR_ROWS:
            return self._transform_few(table, rows)
        matrix = np.empty((rows, len(table)), dtype=np.float32)
        for position, (encoder, values) in enumerate(zip(self._encoders, table, strict=True)):
            matrix[:, position] = _encode_many(encoder, values)
        return matrix

    def _transform_few(self, table: list[Any], rows: int) -> NDArray[np.float32]:
        """Encode value by value: `table` holds one list or array per feature."""
        encoded: list[Any] = []
        for encoder, values in zip(self._encoders, table, strict=True):
            if type(values) is not list:
                values = values.tolist()
            encode = encoder.encode
            try:
                encoded.append(encode(values[0]) if rows == 1 else [encode(value) for value in values])
            except _ValueProblem:
                _encode_each(encoder, values)  # raises the same, with the row
                raise
        if rows == 1:
            return np.array((encoded,), dtype=np.float32)
        return np.ascontiguousarray(np.array(encoded, dtype=np.float32).T)

    def transform_frame(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """Turn a canonical frame into the matrix: `transform` over its columns, same result, same errors."""
        columns: dict[str, Values] = {}
        for feature in self.features:
            name = feature.column.name
            if name not in frame.columns:
                continue  # transform says which
            series = frame[name]
            if not isinstance(series.dtype, np.dtype):
                if feature.column.type in (Type.FLOAT, Type.INTEGER) and series.dtype.kind in "iuf":
                    columns[name] = series.to_numpy(dtype=np.float64, na_value=_NAN)
                else:
                    objects = series.to_numpy(dtype=object, copy=True)
                    objects[series.isna().to_numpy()] = None
                    columns[name] = objects
            else:
                columns[name] = series.to_numpy()
        return self.transform(columns)

    def to_document(self) -> dict[str, Any]:
        """Return everything that was learned as plain JSON values; the contract is stored elsewhere."""
        return {
            "format": FORMAT,
            "features": [
                {
                    "name": feature.column.name,
                    "categories": list(feature.categories),
                    "low": feature.low,
                    "high": feature.high,
                }
                for feature in self.features
            ],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], contract: Contract) -> Featuriser:
        """Rebuild a featuriser from `to_document` and the contract it was fitted with.

        Raises:
            BundleError: The document has another format, or does not fit the contract.
        """
        if document.get("format") != FORMAT:
            raise BundleError(
                f"featuriser: format {document.get('format')!r}, but this version reads {FORMAT}: train again"
            )
        try:
            entries = [
                (
                    str(entry["name"]),
                    tuple(str(value) for value in entry["categories"]),
                    None if entry["low"] is None else float(entry["low"]),
                    None if entry["high"] is None else float(entry["high"]),
                )
                for entry in document["features"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"featuriser: the document is malformed ({error!r})") from error
        names = [entry[0] for entry in entries]
        expected = [column.name for column in contract.features]
        if names != expected:
            raise BundleError(f"featuriser: has the features {names}, but its contract has {expected}")
        return cls(
            tuple(Feature(contract[name], categories, low, high) for name, categories, low, high in entries)
        )


def encode_labels(frame: pd.DataFrame, contract: Contract) -> NDArray[np.float64]:
    """Return who left: 1 for the contract's positive label, 0 for another one, NaN where it is not known.

    Args:
        frame: Canonical rows with the label column.
        contract: Names the label and its positive value.

    Returns:
        Array of shape [rows].

    Raises:
        ContractError: The label column is missing.
    """
    label = contract.label
    if label.name not in frame.columns:
        raise ContractError(f"the label column {label.name!r} is missing")
    series = frame[label.name]
    known = series.notna().to_numpy(dtype=bool)
    labels = np.full(len(series), np.nan)
    positive = True if label.positive is None else label.positive
    labels[known] = [float(value == positive) for value in series.to_numpy(dtype=object)[known]]
    return labels


class _ValueProblem(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with one value; its column and row are added by whoever knows them."""


@dataclass(frozen=True, slots=True)
class _Encoder:
    """One column, ready to run: `encode` gives a value's meaning, the rest lets numpy skip good values."""

    name: str
    type: Type
    nullable: bool
    encode: Callable[[Any], float]
    codes: Mapping[Any, float]
    low: float
    high: float


def _make_encoder(feature: Feature) -> _Encoder:
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
    return _Encoder(column.name, column.type, column.nullable, encode, codes, low, high)


def _make_category_function(column: Column, codes: Mapping[Any, float]) -> Callable[[Any], float]:
    """Return the meaning of one value of a string column."""
    nullable, reject = column.nullable, column.unseen is Unseen.REJECT
    get = codes.get

    def encode(value: Any) -> float:
        try:
            code = get(value)
        except TypeError:  # unhashable
            raise _ValueProblem(_say_type(value, "a string")) from None
        if code is not None:
            return code
        if _is_missing(value):
            return _admit_missing(nullable)
        if not isinstance(value, str):
            raise _ValueProblem(_say_type(value, "a string"))
        if reject:
            raise _ValueProblem(f"{_show(value)} is not one of {_show_some(list(codes))}")
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
        raise _ValueProblem(_say_type(value, "true or false"))

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
                    raise _ValueProblem(_say_type(value, wanted))
            try:
                value = float(value)
            except OverflowError:
                raise _ValueProblem(f"{_show(value)} is too large") from None
        if low <= value <= high and (not whole or value.is_integer()):
            return value  # type: ignore[no-any-return]
        if value != value:  # NaN
            return _admit_missing(nullable)
        raise _ValueProblem(_say_range(feature, value))

    return encode


def _encode_many(encoder: _Encoder, values: Any) -> NDArray[np.float64]:
    """Encode one column with numpy where that is safe, value by value elsewhere."""
    is_array = isinstance(values, np.ndarray)
    if is_array and values.dtype.kind in "OU":
        values, is_array = values.tolist(), False
    if encoder.type is Type.STRING:
        return _encode_strings(encoder, values.tolist() if is_array else values)
    if is_array:
        if values.dtype.kind not in ("b" if encoder.type is Type.BOOLEAN else "iuf"):
            return _encode_each(encoder, values.tolist())
        numbers: NDArray[np.float64] = values.astype(np.float64)
    else:
        plain = {bool, type(None)} if encoder.type is Type.BOOLEAN else {float, int, type(None)}
        if not plain.issuperset(map(type, values)):
            return _encode_each(encoder, values)
        try:
            numbers = np.array(values, dtype=np.float64)  # None becomes NaN
        except OverflowError:
            return _encode_each(encoder, values)
    good = (numbers >= encoder.low) & (numbers <= encoder.high)
    if encoder.type is Type.INTEGER:
        good &= numbers == np.floor(numbers)
    if encoder.nullable:
        good |= np.isnan(numbers)
    if not good.all():
        first = int(np.argmin(good))
        _encode_each(encoder, values[first : first + 1], first)  # raises, or the two paths have diverged
        raise AssertionError(f"{encoder.name}: numpy refuses a value that encode accepts")
    return numbers


def _encode_strings(encoder: _Encoder, values: list[Any]) -> NDArray[np.float64]:
    """Look every string up; whatever has no code goes through `encode`."""
    try:
        codes = np.array(list(map(encoder.codes.get, values)), dtype=np.float64)  # None becomes NaN
    except TypeError:  # unhashable
        return _encode_each(encoder, values)
    for row in np.flatnonzero(np.isnan(codes)).tolist():
        _encode_each(encoder, values[row : row + 1], row)
    return codes


def _encode_each(encoder: _Encoder, values: Sequence[Any], first: int = 0) -> NDArray[np.float64]:
    """Encode value by value; `first` is the row of the first one, for the error message."""
    encode = encoder.encode
    encoded = []
    for row, value in enumerate(values):
        try:
            encoded.append(encode(value))
        except _ValueProblem as problem:
            raise RowError(encoder.name, f"row {first + row}: {problem}") from None
    return np.array(encoded, dtype=np.float64)


def _open(name: str, values: Any) -> Any:
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
    raise _ValueProblem("is missing, but the contract says it never is")


def _say_type(value: Any, wanted: str) -> str:
    return f"{_show(value)} is of type {type(value).__name__}, expected {wanted}"


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


def _show(value: Any) -> str:
    """Quote a value, at most 60 characters of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _show_some(values: list[str]) -> str:
    """List the first ten values."""
    more = f" and {len(values) - 10} more" if len(values) > 10 else ""
    return ", ".join(_show(value) for value in values[:10]) + more
