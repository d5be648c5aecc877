"""The featuriser: from named columns to the matrix that the trees read. Training and serving share it.

It runs on the prediction's hot path, so transforming needs numpy and dictionaries only; what a single value
means is said in `encoding`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.contract import Contract, Type
from tenure.encoding import (
    Encoder,
    Feature,
    ValueProblem,
    encode_each,
    encode_many,
    make_encoder,
    open_values,
)
from tenure.errors import BundleError, ContractError, RowError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["MAX_CATEGORIES", "Feature", "Featuriser", "Values", "encode_labels"]

Values = Sequence[Any] | np.ndarray[Any, Any]

FORMAT = 1
MAX_CATEGORIES = 1000
_NAN = float("nan")
_SCALAR_ROWS = 24  # up to here a Python loop beats numpy's fixed cost per column (benchmarked on 19 columns)


@dataclass(frozen=True)
class Featuriser:
    """Turns columns into a float32 matrix with one column per feature, in the contract's order.

    Booleans become 0 and 1, categories their code, numbers themselves (rounded to float32, which holds
    integers exactly up to 2**24). Missing is NaN; so is a category that training did not know, unless its
    column says `unseen: reject`. Instances are immutable and safe to share between threads.
    """

    features: tuple[Feature, ...]
    _encoders: tuple[Encoder, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoders", tuple(make_encoder(feature) for feature in self.features))

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
                values = open_values(encoder.name, values)
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
            matrix[:, position] = encode_many(encoder, values)
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
            except ValueProblem:
                encode_each(encoder, values)  # raises the same, with the row
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
