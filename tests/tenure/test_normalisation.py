from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.contract import Column
from tenure.encoding import Feature, ValueProblem
from tenure.normalisation import (
    drop_empties,
    normalise_columns,
    normalise_truth,
    read_boolean,
    takes_empty_for_missing,
)

NAN = float("nan")


def make_feature(name: str, kind: str, nullable: bool = True, categories: tuple[str, ...] = ()) -> Feature:
    column = Column.model_validate({"name": name, "type": kind, "nullable": nullable})
    return Feature(column, categories)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, False), (1.0, True), (-0.0, False), (None, None), (NAN, None)]
)
def test_numbers_say_truth_values(value: Any, expected: bool | None) -> None:
    assert read_boolean(value) is expected
    assert normalise_truth(value) is expected


@pytest.mark.parametrize("value", [2, 0.5, "1", True, [1], "x" * 100])
def test_anything_else_is_no_truth_value(value: Any) -> None:
    with pytest.raises(ValueProblem, match="is not 0, 1 or missing"):
        read_boolean(value)
    assert normalise_truth(value) is value


def test_empty_string_is_missing_unless_training_knew_it_or_nothing_may_be_missing() -> None:
    assert takes_empty_for_missing(make_feature("a", "string", categories=("x",)))
    assert not takes_empty_for_missing(make_feature("a", "string", categories=("", "x")))
    assert not takes_empty_for_missing(make_feature("a", "string", nullable=False))
    assert not takes_empty_for_missing(make_feature("a", "boolean"))
    values = ["a", None]
    assert drop_empties(values) is values
    assert drop_empties(["a", "", None]) == ["a", None, None]


def test_logged_columns_become_what_the_featuriser_reads() -> None:
    features = [
        make_feature("city", "string"),
        make_feature("plan", "string", nullable=False),
        make_feature("paid", "boolean"),
        make_feature("active", "boolean", nullable=False),
        make_feature("calls", "integer"),
    ]
    logged = {
        "city": ["", "Bern"],
        "plan": ["", "gold"],
        "paid": [1.0, None],
        "active": [1.0, True],
        "calls": [3.0, None],
        "other": [1, 2],
    }
    wanted = {**logged, "city": [None, "Bern"], "paid": [True, None]}
    assert normalise_columns(logged, features) == wanted
    assert logged["city"] == ["", "Bern"]


@given(st.lists(st.sampled_from(["", "x", None, 0, 1, 0.0, 1.0, True, False, 2, "0"]), max_size=6))
def test_what_is_normal_stays_so(values: list[Any]) -> None:
    features = [make_feature("a", "string"), make_feature("b", "boolean")]
    once = normalise_columns({"a": values, "b": values}, features)
    assert normalise_columns(once, features) == once
