"""One form for values that a protocol without null or truth values says otherwise.

gRPC and binary tensors have no null: there NaN stands for what is missing, the empty string in string
columns, and a nullable boolean is 0, 1 or NaN. The predictor reads requests so, and whoever reads logged
requests must do the same, for KServe's agent logs them as they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenure.contract import Type
from tenure.encoding import Feature, ValueProblem, show

TRUE_TEXTS = frozenset({"1", "true", "t", "yes", "y"})
FALSE_TEXTS = frozenset({"0", "false", "f", "no", "n"})
"""What texts of files and labels say as truth values, in small letters."""


def takes_empty_for_missing(feature: Feature) -> bool:
    """Whether the empty string says that a column's value is not known: unless training knew it otherwise."""
    column = feature.column
    return column.type is Type.STRING and column.nullable and "" not in feature.categories


def drop_empties(values: list[Any]) -> list[Any]:
    """Return a column with None for each empty string; the very list if there is none."""
    return [None if value == "" else value for value in values] if "" in values else values


def read_boolean(value: Any) -> bool | None:
    """Return what a number says as a truth value: 0, 1, or missing (NaN, None).

    Raises:
        ValueProblem: It is another number, or none.
    """
    if value is None or (type(value) is float and value != value):
        return None
    if type(value) in (int, float) and value in (0, 1):
        return bool(value)
    raise ValueProblem(f"{show(value)} is not 0, 1 or missing")


def normalise_truth(value: Any) -> Any:
    """Return a logged value of a boolean column as a truth value or None, or as it is if it is neither."""
    try:
        return value if isinstance(value, bool) else read_boolean(value)
    except ValueProblem:
        return value


def normalise_columns(columns: Mapping[str, list[Any]], features: Sequence[Feature]) -> dict[str, list[Any]]:
    """Return logged columns as the featuriser reads them.

    What the predictor would not have taken stays as it is; the featuriser says what is wrong with it.

    Args:
        columns: Feature -> values as they were logged, one per row.
        features: What training learned of each.
    """
    normal = dict(columns)
    for feature in features:
        column, values = feature.column, columns[feature.column.name]
        if takes_empty_for_missing(feature):
            normal[column.name] = drop_empties(values)
        elif column.type is Type.BOOLEAN and column.nullable:
            normal[column.name] = [normalise_truth(value) for value in values]
    return normal
