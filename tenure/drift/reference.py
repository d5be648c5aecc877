"""What is compared: the champion's reference and a window of predictions, column by column, in one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from tenure.contract import Contract, Type
from tenure.errors import DriftError
from tenure.monitoring import Kind
from tenure.normalisation import normalise_truth

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

Family = Literal["inputs", "outcomes"]
"""What is judged at once: features and scores as they come, or outcomes and losses once labels are mature."""

FAMILIES: tuple[Family, ...] = ("inputs", "outcomes")
SCORE = "score"
LABEL = "label"
PERFORMANCE = "performance"

MISSING_NUMBER = -np.inf
"""A missing number: one value below all others, so that rank tests see it and no imputation hides it."""
MISSING_CATEGORY = ""
"""A missing category: one of its own; a contract allows no blank one."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows in the form in which they are compared.

    Attributes:
        columns: Column -> values, shape [rows]: numbers as float64 (`MISSING_NUMBER` for missing), categories
            as str objects (`MISSING_CATEGORY` for missing).
        scores: P(churn), shape [rows].
        labels: Outcomes 0 or 1, shape [rows]; None where they are not known yet.
    """

    columns: Mapping[str, NDArray[Any]]
    scores: NDArray[np.float64]
    labels: NDArray[np.float64] | None = None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.scores)

    @classmethod
    def join(cls, samples: Sequence[Self]) -> Self:
        """Return all rows of several samples of the same columns, in their order.

        Raises:
            DriftError: There are none, or their columns differ.
        """
        if not samples:
            raise DriftError("there is no sample to join: pass at least one window")
        if len(samples) == 1:
            return samples[0]
        first = samples[0]
        if any(list(sample.columns) != list(first.columns) for sample in samples):
            raise DriftError("windows of different columns cannot be joined: make all with one contract")
        labels = [sample.labels for sample in samples if sample.labels is not None]
        return cls(
            columns={
                name: np.concatenate([sample.columns[name] for sample in samples]) for name in first.columns
            },
            scores=np.concatenate([sample.scores for sample in samples]),
            labels=np.concatenate(labels) if len(labels) == len(samples) else None,
        )


@dataclass(frozen=True, eq=False)
class Reference:
    """What the champion was trained on, prepared for comparison.

    Attributes:
        family: What its columns are.
        kinds: Column -> kind of drift that a change of it is, in the columns' order.
        sample: The rows.
    """

    family: Family
    kinds: Mapping[str, Kind]
    sample: Sample

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, contract: Contract, family: Family) -> Self:
        """Prepare a bundle's reference.

        Args:
            frame: What `Bundle.reference()` returns: the features, `score` and `label`.
            contract: The bundle's contract.
            family: Which columns to compare.

        Raises:
            DriftError: A column is missing, there are no rows, or a label is not 0 or 1.
        """
        features = {column.name for column in contract.features}
        missing = sorted((features | {SCORE, LABEL}) - set(frame.columns))
        if missing:
            raise DriftError(
                f"the reference lacks {', '.join(missing)}: the bundle does not fit its contract, train again"
            )
        if not len(frame):
            raise DriftError("the reference has no rows: train again")
        sample = make_sample(
            {name: frame[name].to_numpy(dtype=object) for name in features},
            frame[SCORE].to_numpy(dtype=np.float64),
            frame[LABEL].to_numpy(dtype=np.float64),
            contract,
            family,
        )
        return cls(family, name_kinds(contract, family), sample)

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Column -> values, as `Sample.columns`."""
        return self.sample.columns

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.sample.rows

    @cached_property
    def sorted(self) -> dict[str, NDArray[np.float64]]:
        """Numeric column -> its values in ascending order."""
        return {name: np.sort(values) for name, values in self.columns.items() if is_numeric(values)}

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Categorical column -> how often each category occurs."""
        return {name: count_values(values) for name, values in self.columns.items() if not is_numeric(values)}


def name_kinds(contract: Contract, family: Family) -> dict[str, Kind]:
    """Return the columns of a family and the kind of drift that a change of each is, in their order."""
    if family == "outcomes":
        return {LABEL: "label", PERFORMANCE: "performance"}
    kinds: dict[str, Kind] = {column.name: "covariate" for column in contract.features}
    return kinds | {SCORE: "score"}


def make_sample(
    features: Mapping[str, NDArray[Any]],
    scores: ArrayLike,
    labels: ArrayLike | None,
    contract: Contract,
    family: Family,
) -> Sample:
    """Bring rows into the form in which they are compared.

    A cell that its column's type cannot hold counts as missing: no prediction was made from such a value, so
    it can only come from a record that was damaged later, and then the change is to be seen.

    Args:
        features: Feature -> values, shape [rows], None or NaN for missing; only family "inputs" needs them.
        scores: P(churn), shape [rows].
        labels: Outcomes 0 or 1, shape [rows]; only family "outcomes" needs them.
        contract: Says which features are numbers.
        family: Which columns to make.

    Raises:
        DriftError: A feature or the labels are missing, lengths differ, a score is no probability, or a label
            is not 0 or 1.
    """
    p = np.asarray(scores, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise DriftError("scores must be probabilities of shape [rows]: the ledger's rows are damaged")
    y = None if labels is None else _check_labels(labels, len(p))
    if family == "outcomes":
        if y is None:
            raise DriftError("family 'outcomes' needs labels: pass those of mature rows")
        return Sample({LABEL: _name_labels(y), PERFORMANCE: compute_losses(p, y)}, p, y)
    columns: dict[str, NDArray[Any]] = {}
    for column in contract.features:
        if column.name not in features:
            raise DriftError(
                f"the window lacks the feature {column.name!r}: read it with the contract's columns"
            )
        values = features[column.name]
        if len(values) != len(p):
            raise DriftError(f"{column.name}: {len(values)} values for {len(p)} scores")
        numeric = column.type in (Type.FLOAT, Type.INTEGER)
        if column.type is Type.BOOLEAN:
            values = np.fromiter(map(normalise_truth, values), dtype=object, count=len(values))
        columns[column.name] = to_numbers(values) if numeric else to_categories(values)
    return Sample(columns | {SCORE: p}, p, y)


def is_numeric(values: NDArray[Any]) -> bool:
    """Whether a column of a `Sample` holds numbers, and not categories."""
    return values.dtype == np.float64


def to_numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return numbers as float64, missing and impossible ones as `MISSING_NUMBER`."""
    if values.dtype.kind in "iuf":
        numbers = values.astype(np.float64)
    else:
        numbers = np.fromiter(map(_to_number, values), np.float64, len(values))
    numbers[~np.isfinite(numbers)] = MISSING_NUMBER
    return numbers


def to_categories(values: NDArray[Any]) -> NDArray[np.object_]:
    """Return categories and truth values as str objects, missing ones as `MISSING_CATEGORY`."""
    categories = np.empty(len(values), dtype=object)
    categories[:] = [_to_category(value) for value in values]
    return categories


def count_values(values: NDArray[Any]) -> dict[str, int]:
    """Return how often each category occurs, in alphabetical order."""
    names, counts = np.unique(values.astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def compute_losses(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's log-loss, shape [rows]; scores of 0 or 1 are clipped by one float64 epsilon."""
    epsilon = np.finfo(np.float64).eps
    p = np.clip(scores, epsilon, 1 - epsilon)
    losses: NDArray[np.float64] = -np.log(np.where(labels == 1, p, 1 - p))
    return losses


def _to_number(value: Any) -> float:
    if isinstance(value, int | float | np.integer | np.floating | np.bool_):
        return float(value)
    return MISSING_NUMBER


def _to_category(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    return MISSING_CATEGORY


def _name_labels(labels: NDArray[np.float64]) -> NDArray[np.object_]:
    names = np.empty(len(labels), dtype=object)
    names[:] = ["1" if label else "0" for label in labels]
    return names


def _check_labels(labels: ArrayLike, rows: int) -> NDArray[np.float64]:
    y = np.asarray(labels, dtype=np.float64)
    if y.shape != (rows,):
        raise DriftError(f"labels have shape {y.shape}, expected [{rows}]")
    if not ((y == 0) | (y == 1)).all():
        raise DriftError("labels must be 0 or 1: pass those of mature rows only")
    return y
