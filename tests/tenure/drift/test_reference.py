"""Rows take one form, whatever they come from."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.bundle import Bundle
from tenure.contract import Contract
from tenure.drift.reference import (
    MISSING_CATEGORY,
    MISSING_NUMBER,
    Reference,
    Sample,
    make_sample,
    to_categories,
    to_numbers,
)
from tenure.errors import DriftError

MISSING = [None, float("nan"), pd.NA, pd.NaT]


def to_objects(values: list[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_missing_numbers_are_below_all_others() -> None:
    numbers = to_numbers(to_objects([*MISSING, 1, 2.5, np.int64(3), -1e300]))
    assert numbers.dtype == np.float64
    assert numbers.tolist() == [MISSING_NUMBER] * 4 + [1.0, 2.5, 3.0, -1e300]
    assert (numbers[:4] < -1.7e308).all()


def test_what_is_no_number_counts_as_missing() -> None:
    assert (to_numbers(to_objects(["5", [], {}, float("inf")])) == MISSING_NUMBER).all()


def test_arrays_of_numbers_are_taken_as_they_are() -> None:
    given_numbers = np.array([1.0, np.nan, 3.0])
    assert to_numbers(given_numbers).tolist() == [1.0, MISSING_NUMBER, 3.0]
    assert np.isnan(given_numbers[1])  # and not changed


def test_categories_are_texts() -> None:
    categories = to_categories(to_objects([*MISSING, "a", True, False, np.True_, 3, []]))
    assert categories.dtype == object
    assert categories.tolist() == [MISSING_CATEGORY] * 4 + [
        "a",
        "true",
        "false",
        "true",
        "3",
        MISSING_CATEGORY,
    ]


def test_a_reference_and_its_rows_as_a_window_are_alike(
    make_frame: Callable[..., pd.DataFrame], make_window: Callable[..., Sample], contract: Contract
) -> None:
    frame = make_frame(200)
    for family in ("inputs", "outcomes"):
        reference = Reference.from_frame(frame, contract, family)
        # As the ledger has it: plain JSON values.
        plain = frame.astype(object).where(frame.notna(), None)
        window = make_window(plain, family)
        assert list(window.columns) == list(reference.columns) == list(reference.kinds)
        for name, values in reference.columns.items():
            np.testing.assert_array_equal(values, window.columns[name])


def test_truth_values_that_were_logged_as_numbers_are_no_change() -> None:
    columns = [
        {"name": "id", "role": "id", "type": "string"},
        {"name": "left", "role": "label", "type": "boolean"},
        {"name": "paid", "type": "boolean", "nullable": True},
    ]
    contract = Contract.model_validate({"columns": columns})

    def read(*values: Any) -> list[Any]:
        sample = make_sample({"paid": to_objects([*values])}, [0.5] * len(values), None, contract, "inputs")
        return list(sample.columns["paid"])

    assert read(1.0, 0, None, float("nan")) == read(True, False, None, None)
    assert read(np.True_, pd.NA, 2) == ["true", MISSING_CATEGORY, "2"]


def test_kinds(make_reference: Callable[..., Reference]) -> None:
    inputs, outcomes = make_reference("inputs"), make_reference("outcomes")
    assert inputs.kinds == {
        "price": "covariate",
        "months": "covariate",
        "plan": "covariate",
        "senior": "covariate",
        "score": "score",
    }
    assert outcomes.kinds == {"label": "label", "performance": "performance"}
    assert set(inputs.sorted) == {"price", "months", "score"}
    assert set(inputs.counts["plan"]) == {MISSING_CATEGORY, "basic", "plus"}
    assert sum(outcomes.counts["label"].values()) == outcomes.rows == 2000


def test_performance_is_the_log_loss(contract: Contract) -> None:
    sample = make_sample({}, [0.9, 0.9, 0.0, 1.0], [1, 0, 0, 0], contract, "outcomes")
    losses = sample.columns["performance"]
    np.testing.assert_allclose(losses[:3], [-np.log(0.9), -np.log(0.1), 0.0], atol=1e-12)
    assert np.isfinite(losses).all()
    assert sample.columns["label"].tolist() == ["1", "0", "0", "0"]


def test_takes_a_real_bundles_reference(bundle: Bundle) -> None:
    frame = bundle.reference()
    inputs = Reference.from_frame(frame, bundle.contract, "inputs")
    assert list(inputs.columns) == [*(column.name for column in bundle.contract.features), "score"]
    assert inputs.sorted["total_charges"][0] == MISSING_NUMBER  # eleven customers have none
    assert set(inputs.counts["senior_citizen"]) == {"true", "false"}
    outcomes = Reference.from_frame(frame, bundle.contract, "outcomes")
    assert outcomes.sample.labels is not None
    assert outcomes.sample.labels.mean() == pytest.approx(frame["label"].mean())


@given(cut=st.lists(st.integers(0, 50), min_size=1, max_size=4))
def test_joining_undoes_cutting(
    make_frame: Callable[..., pd.DataFrame], make_window: Callable[..., Sample], cut: list[int]
) -> None:
    frame = make_frame(50)
    borders = [0, *sorted(cut), 50]
    parts = [make_window(frame.iloc[start:stop]) for start, stop in pairwise(borders)]
    joined, whole = Sample.join(parts), make_window(frame)
    assert joined.rows == 50
    for name, values in whole.columns.items():
        np.testing.assert_array_equal(joined.columns[name], values)
    np.testing.assert_array_equal(joined.scores, whole.scores)


def test_labels_are_joined_only_when_all_have_them(contract: Contract) -> None:
    features = {column.name: to_objects([None]) for column in contract.features}
    known = make_sample(features, [0.5], [1], contract, "inputs")
    unknown = make_sample(features, [0.5], None, contract, "inputs")
    assert Sample.join([known, unknown]).labels is None
    assert Sample.join([known, known]).labels is not None


def test_refuses_what_does_not_fit(contract: Contract, make_frame: Callable[..., pd.DataFrame]) -> None:
    features = {column.name: to_objects([None]) for column in contract.features}
    with pytest.raises(DriftError, match="lacks the feature 'price'"):
        make_sample({}, [0.5], None, contract, "inputs")
    with pytest.raises(DriftError, match="price: 1 values for 2 scores"):
        make_sample(features, [0.5, 0.5], None, contract, "inputs")
    for scores in ([1.5], [float("nan")], [-0.1], [[0.5]]):
        with pytest.raises(DriftError, match="probabilities"):
            make_sample(features, scores, None, contract, "inputs")
    with pytest.raises(DriftError, match="needs labels"):
        make_sample({}, [0.5], None, contract, "outcomes")
    for labels, message in (([0.5], "0 or 1"), ([float("nan")], "0 or 1"), ([1, 0], "shape")):
        with pytest.raises(DriftError, match=message):
            make_sample({}, [0.5], labels, contract, "outcomes")
    with pytest.raises(DriftError, match="lacks label, price"):
        Reference.from_frame(make_frame(3).drop(columns=["label", "price"]), contract, "inputs")
    with pytest.raises(DriftError, match="no rows"):
        Reference.from_frame(make_frame(0), contract, "inputs")
    with pytest.raises(DriftError, match="no sample"):
        Sample.join([])
