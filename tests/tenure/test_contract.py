"""The contract's own rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from tenure.contract import Column, Contract, Role, Type, Unseen

ID = {"name": "id", "role": "id", "type": "string"}
LABEL = {"name": "left", "role": "label", "type": "boolean"}
FEATURE = {"name": "x", "type": "float"}


def test_columns_are_found_by_role_and_name() -> None:
    time = {"name": "at", "role": "time", "type": "timestamp"}
    contract = Contract.model_validate({"columns": [FEATURE, LABEL, time, ID, FEATURE | {"name": "y"}]})
    assert contract.id.name == "id"
    assert contract.label.name == "left"
    assert contract.time is not None
    assert contract.time.name == "at"
    assert [column.name for column in contract.features] == ["x", "y"]
    assert contract["y"].type is Type.FLOAT
    with pytest.raises(KeyError):
        contract["z"]


def test_defaults_accept_what_training_never_saw(make_contract: Callable[..., Contract]) -> None:
    column = make_contract({"name": "plan", "type": "string"})["plan"]
    assert column.role is Role.FEATURE
    assert column.unseen is Unseen.ACCEPT
    assert not column.nullable


def test_a_contract_survives_json() -> None:
    contract = Contract.model_validate({"columns": [ID, LABEL, FEATURE | {"minimum": 0.1, "maximum": 1e300}]})
    assert Contract.model_validate_json(contract.model_dump_json()) == contract


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"name": "1x", "type": "float"}, "pattern"),
        ({"name": "x", "type": "text"}, "'string', 'float', 'integer', 'boolean' or 'timestamp'"),
        ({"name": "x", "type": "string", "minimum": 0}, "minimum/maximum belong"),
        ({"name": "x", "type": "float", "minimum": 2, "maximum": 1}, "above maximum"),
        ({"name": "x", "type": "float", "maximum": float("inf")}, "finite"),
        ({"name": "x", "type": "float", "categories": ["a"]}, "categories belong"),
        ({"name": "x", "type": "string", "categories": ["a", "b", "a"]}, "twice: 'a'"),
        ({"name": "x", "type": "string", "categories": []}, "at least 1"),
        ({"name": "x", "type": "string", "categories": ["a", " "]}, "blank"),
        ({"name": "x", "type": "string", "positive": "a"}, "belongs to the label"),
        ({"name": "x", "type": "timestamp"}, "time column"),
        ({"name": "x", "role": "time", "type": "string"}, "time column"),
        ({"name": "x", "role": "id", "type": "float"}, "string or integer"),
        ({"name": "x", "role": "id", "type": "string", "nullable": True}, "nullable"),
        ({"name": "x", "role": "id", "type": "integer", "from_row_order": True}, "from_row_order"),
        ({"name": "x", "type": "string", "from_row_order": True}, "from_row_order"),
        ({"name": "x", "role": "label", "type": "float"}, "label is of type"),
        ({"name": "x", "role": "label", "type": "string"}, "needs it"),
        ({"name": "x", "role": "label", "type": "boolean", "positive": "yes"}, "needs it"),
        (
            {"name": "x", "role": "label", "type": "string", "positive": "a", "categories": ["b"]},
            "not one of the categories",
        ),
    ],
)
def test_impossible_columns_are_refused(column: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Column.model_validate(column)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([], "at least 1"),
        ([LABEL, FEATURE], "role id, found 0"),
        ([ID, ID | {"name": "id2"}, LABEL, FEATURE], "role id, found 2"),
        ([ID, FEATURE], "role label, found 0"),
        ([ID, LABEL], "at least one column has role feature"),
        ([ID, LABEL, FEATURE, FEATURE], "named twice: x"),
        (
            [ID, LABEL, FEATURE]
            + [{"name": name, "role": "time", "type": "timestamp"} for name in ("t", "u")],
            "role time, found 2",
        ),
    ],
)
def test_impossible_contracts_are_refused(columns: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Contract.model_validate({"columns": columns})
