"""Validation: which rows keep the contract, and what exactly is wrong with the others."""

from __future__ import annotations

import datetime
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tenure.contract import Column, Contract, Role, Type, Unseen
from tenure.errors import ContractError, TooManyBadRowsError
from tenure.normalisation import FALSE_TEXTS, TRUE_TEXTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

BAD_COLUMNS = ("row", "id", "column", "rule", "value")
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SHOWN_CHARACTERS = 200
_SHOWN_WARNINGS = 100
# pandera's own names for what its flags check
_RULES = {"not_nullable": "missing", "field_uniqueness": "duplicate"}


@dataclass(frozen=True)
class Validated:
    """What became of a source's rows.

    Attributes:
        good: Canonical rows with the contract's columns in its order and a fresh index: strings as objects
            with None, floats as float64 with NaN, integers as Int64, booleans as boolean, timestamps as
            datetime64[ns, UTC].
        bad: One line per violation, ordered by row: `row` (position in the source, from 0), `id`, `column`,
            `rule` (type, missing, minimum, maximum, category, duplicate) and `value` as text.
        rows: Number of rows in the source.
        warnings: Accepted rows by column and unlisted category; at most 100 categories per column.
    """

    good: pd.DataFrame
    bad: pd.DataFrame
    rows: int
    warnings: dict[str, dict[str, int]]

    @property
    def bad_rows(self) -> int:
        """Number of rows set aside (each may break several rules)."""
        return self.rows - len(self.good)


def validate_frame(frame: pd.DataFrame, contract: Contract) -> Validated:
    """Read every cell as its contract type and check it against the contract with pandera.

    Text is read generously where it is unambiguous: 0/1, true/false, yes/no are booleans, ISO 8601 is a time
    (UTC if it does not say), whole floats are integers. Of rows that share an id all are bad, for nobody can
    tell which one is right.

    Args:
        frame: What `snapshot.read_source` returned, or any frame with the contract's columns.
        contract: The rules.

    Returns:
        Good rows, violations, counts.

    Raises:
        ContractError: A column of the contract is missing.
    """
    missing = [column.name for column in contract.columns if column.name not in frame.columns]
    if missing:
        found = ", ".join(str(name) for name in frame.columns)
        raise ContractError(
            f"the source lacks {', '.join(map(repr, missing))} of the contract; its columns are: {found}"
        )
    frame = frame.reset_index(drop=True)
    canonical: dict[str, pd.Series[Any]] = {}
    violations: list[pd.DataFrame] = []
    for column in contract.columns:
        canonical[column.name], misread = _read_column(frame[column.name], column)
        violations.append(_list_violations(misread, column.name, "type"))
    typed = pd.DataFrame(canonical)
    checked = pd.concat([*violations, _check_schema(typed, contract)], ignore_index=True)
    # What could not be read is missing in `typed`: one violation is enough.
    order = {column.name: position for position, column in enumerate(contract.columns)}
    checked = checked.assign(
        order=checked["column"].map(order), rank=checked["rule"].map({"type": 0, "missing": 1}).fillna(2)
    )
    checked = checked.sort_values(["row", "order", "rank"], kind="stable")
    checked = checked.drop_duplicates(["row", "column"], keep="first")
    bad = _describe_violations(checked, frame, contract)
    keep = np.ones(len(frame), dtype=bool)
    keep[bad["row"].to_numpy(dtype=np.int64)] = False
    good = typed.loc[keep].reset_index(drop=True)
    return Validated(good, bad, len(frame), _count_unlisted(good, contract))


def check_bad_fraction(validated: Validated, maximum: float) -> None:
    """Refuse a source of which too much was set aside, or everything.

    Args:
        validated: The outcome of `validate_frame`.
        maximum: Largest tolerated share of bad rows, 0 to 1.

    Raises:
        TooManyBadRowsError: With the share and the most frequent violations.
    """
    count, rows = validated.bad_rows, validated.rows
    if not rows:
        raise TooManyBadRowsError("the source has no rows")
    if count <= maximum * rows and count < rows:
        return
    common = Counter(zip(validated.bad["column"], validated.bad["rule"], strict=True)).most_common(5)
    causes = "; ".join(f"{column}: {rule} ({number} rows)" for (column, rule), number in common)
    raise TooManyBadRowsError(
        f"{count} of {rows} rows ({count / rows:.2%}) break the contract, the project allows {maximum:.2%} "
        f"(validation.max_bad_fraction) and at least one row has to be left. "
        f"Most frequent: {causes}. Mend the source or the contract"
    )


def _check_schema(typed: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """Run pandera over the typed frame; return violations as row, column, rule."""
    import pandera.pandas as pa
    from pandera.config import ValidationDepth, config_context

    schema = pa.DataFrameSchema({column.name: _build_column(pa, column) for column in contract.columns})
    try:
        # Said outright, for an environment variable can switch pandera off.
        with (
            config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA),
            warnings.catch_warnings(),
        ):
            # pandera joins failure cases of several types, which pandas 2 announces to do otherwise in 3.
            warnings.filterwarnings("ignore", "The behavior of DataFrame concatenation", FutureWarning)
            schema.validate(typed, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
    else:
        return _list_violations([], "", "")
    unplaced = cases[cases["index"].isna() | (cases["schema_context"] != "Column")]
    if len(unplaced):
        raise ContractError(f"the typed rows do not fit their own schema: {unplaced.to_dict('records')}")
    return pd.DataFrame(
        {
            "row": cases["index"].astype(np.int64),
            "column": cases["column"].astype(object),
            "rule": cases["check"].replace(_RULES).astype(object),
        }
    )


def _build_column(pa: Any, column: Column) -> Any:
    """Say a contract column in pandera's words; `error` names the rule in the failure cases."""
    checks = []
    if column.minimum is not None:
        checks.append(pa.Check.ge(column.minimum, error="minimum"))
    if column.maximum is not None:
        checks.append(pa.Check.le(column.maximum, error="maximum"))
    if column.categories is not None and column.unseen is Unseen.REJECT:
        checks.append(pa.Check.isin(list(column.categories), error="category"))
    return pa.Column(
        _DTYPES[column.type],
        checks,
        nullable=column.nullable,
        unique=column.role is Role.ID,
        report_duplicates="all",
    )


def _read_column(series: pd.Series[Any], column: Column) -> tuple[pd.Series[Any], NDArray[np.int64]]:
    """Return a column in its canonical type, and the rows whose value could not be read (missing there)."""
    if column.type is Type.TIMESTAMP:
        return _read_times(series)
    dtype = _DTYPES[column.type]
    if column.type is Type.FLOAT and series.dtype.kind in "iuf":
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
        wrong = np.abs(numbers) > _FLOAT32_MAX
        return pd.Series(np.where(wrong, np.nan, numbers), name=column.name), np.flatnonzero(wrong)
    read = _READERS[column.type]
    present = series.notna().to_numpy(dtype=bool)
    values: list[Any] = [None] * len(series)
    misread = []
    for row, value in enumerate(series.astype(object).tolist()):
        if present[row] and not (isinstance(value, str) and (not value or value.isspace())):
            try:
                values[row] = read(value)
            except (ValueError, OverflowError):
                misread.append(row)
    return pd.Series(values, dtype=dtype, name=column.name), np.array(misread, dtype=np.int64)


def _read_times(series: pd.Series[Any]) -> tuple[pd.Series[Any], NDArray[np.int64]]:
    """Return timestamps in UTC, and the rows that hold something else."""
    present = series.notna()
    if series.dtype.kind != "M":
        readable = series.map(lambda value: isinstance(value, str | datetime.date))  # datetimes are dates
        blank = series.map(lambda value: isinstance(value, str) and not value.strip())
        present &= ~blank.astype(bool)
        series = series.astype(object).mask(~readable.astype(bool))
        times = pd.to_datetime(series, errors="coerce", utc=True, format="ISO8601")
    else:
        times = pd.to_datetime(series, utc=True)
    times = times.astype("datetime64[ns, UTC]")
    return times, np.flatnonzero((present & times.isna()).to_numpy(dtype=bool))


def _read_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)  # codes and ids that a file stores as numbers
    raise ValueError(value)


def _read_float(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or (isinstance(value, str) and "_" in value):
        raise ValueError(value)
    if not isinstance(value, str | int | float | np.number) and not hasattr(value, "as_tuple"):  # Decimal
        raise ValueError(value)
    number = float(value)
    if not abs(number) <= _FLOAT32_MAX:  # also infinity, and text that says nan
        raise ValueError(value)
    return number


def _read_integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        number_as_float = _read_float(value)
        if not math.isfinite(number_as_float) or not number_as_float.is_integer():
            raise ValueError(value)
        text = value.strip() if isinstance(value, str) else ""
        number = int(text) if text.lstrip("+-").isdigit() else int(number_as_float)
    if not -(2**63) <= number < 2**63:
        raise ValueError(value)
    return number


def _read_boolean(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    text = value.strip().lower() if isinstance(value, str) else None
    if text in TRUE_TEXTS or (text is None and value == 1):
        return True
    if text in FALSE_TEXTS or (text is None and value == 0):
        return False
    raise ValueError(value)


_READERS: Mapping[Type, Callable[[Any], Any]] = {
    Type.STRING: _read_string,
    Type.FLOAT: _read_float,
    Type.INTEGER: _read_integer,
    Type.BOOLEAN: _read_boolean,
}
_DTYPES: Mapping[Type, Any] = {
    Type.STRING: "object",
    Type.FLOAT: "float64",
    Type.INTEGER: "Int64",
    Type.BOOLEAN: "boolean",
    Type.TIMESTAMP: "datetime64[ns, UTC]",
}


def _list_violations(rows: Any, column: str, rule: str) -> pd.DataFrame:
    """Return one line for each row number."""
    numbers = np.asarray(rows, dtype=np.int64)
    return pd.DataFrame(
        {
            "row": numbers,
            "column": np.full(len(numbers), column, dtype=object),
            "rule": np.full(len(numbers), rule, dtype=object),
        }
    )


def _describe_violations(checked: pd.DataFrame, frame: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """Add the id and the value as it stood in the source."""
    rows = checked["row"].tolist()
    values = [frame[column].iat[row] for row, column in zip(rows, checked["column"], strict=True)]
    ids = frame[contract.id.name]
    return pd.DataFrame(
        {
            "row": np.array(rows, dtype=np.int64),
            "id": pd.Series([_show(ids.iat[row]) for row in rows], dtype=object),
            "column": checked["column"].to_numpy(dtype=object),
            "rule": checked["rule"].to_numpy(dtype=object),
            "value": pd.Series([_show(value) for value in values], dtype=object),
        },
        columns=list(BAD_COLUMNS),
    )


def _show(value: Any) -> str:
    """Return a cell as text: empty if missing, cut if long."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    return str(value)[:_SHOWN_CHARACTERS]


def _count_unlisted(good: pd.DataFrame, contract: Contract) -> dict[str, dict[str, int]]:
    """Count accepted values that the contract's categories do not list, most frequent first."""
    unlisted: dict[str, dict[str, int]] = {}
    for column in contract.columns:
        if column.categories is None:
            continue
        values = good[column.name]
        values = values[values.notna() & ~values.isin(column.categories)]
        if len(values):
            counts = values.value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
            shown = counts.head(_SHOWN_WARNINGS)
            unlisted[column.name] = {str(value): int(number) for value, number in shown.items()}
    return unlisted
