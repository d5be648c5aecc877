from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.predictor.conversion import convert_column, make_converters
from serving.predictor.decoding import COMPLETE, Decoder, Query, Wanted, list_inputs, list_outputs
from serving.predictor.errors import RequestError
from serving.predictor.tensors import parse_request
from tenure.contract import Column, Contract
from tenure.encoding import Feature
from tenure.featuriser import Featuriser

NAN = float("nan")
Rows = list[dict[str, Any]]
MakeBody = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(decoder: Decoder) -> Callable[[dict[str, Any]], Query]:
    return lambda body: decoder.read(parse_request(json.dumps(body).encode()))


@pytest.fixture
def body(make_body: MakeBody, row: dict[str, Any]) -> dict[str, Any]:
    return make_body([row, row])


def tensor(body: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in body["inputs"] if entry["name"] == name)
    return found


def test_reads_one_column_per_tensor(
    ask: Callable[..., Query], body: dict[str, Any], row: dict[str, Any]
) -> None:
    query = ask(body)
    assert query.rows == 2
    assert query.columns == {name: [value, value] for name, value in row.items()}
    assert query.wanted == (Wanted("churn_probability"), Wanted("churn"))
    assert not query.reasons


def test_takes_column_vectors_flat_or_nested(ask: Callable[..., Query], body: dict[str, Any]) -> None:
    tensor(body, "months").update(shape=[2, 1])
    tensor(body, "charge").update(shape=[2, 1], data=[[1.5], [2.5]])
    query = ask(body)
    assert query.columns["months"] == [12, 12]
    assert query.columns["charge"] == [1.5, 2.5]


def test_takes_the_id_and_checks_it(ask: Callable[..., Query], body: dict[str, Any]) -> None:
    entry = {"name": "client", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}
    assert ask({"inputs": [*body["inputs"], entry]}).rows == 2
    with pytest.raises(RequestError, match="client: row 1: None is not a string"):
        ask({"inputs": [*body["inputs"], {**entry, "data": ["a", None]}]})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("months", {"name": "monts"}, "^monts: is not an input of this model"),
        ("months", {"name": "left"}, "^left: is not an input"),
        ("months", {"name": "charge"}, "^charge: the tensor is there twice"),
        ("months", {"datatype": "BYTES"}, "^months: datatype 'BYTES', expected INT64 or "),
        ("months", {"datatype": "FP64"}, "^months: datatype 'FP64'"),
        ("months", {"datatype": "int64"}, "^months: datatype 'int64'"),
        ("active", {"datatype": "FP64", "data": [1.0, 0.0]}, "^active: datatype 'FP64', expected BOOL$"),
        ("charge", {"datatype": "BOOL"}, "^charge: datatype 'BOOL'"),
        ("months", {"shape": [1]}, r"^months: shape \[1\], but there are 2 values"),
        ("months", {"shape": [3]}, r"^months: shape \[3\], but there are 2 values"),
        ("months", {"shape": [3], "data": [1, 2, 3]}, r"^months: shape \[3\], but plan has 2 rows"),
        ("months", {"shape": [1, 2]}, r"^months: shape \[1, 2\], expected \[n\] or \[n, 1\]"),
        ("months", {"shape": []}, r"^months: shape \[\]"),
        ("months", {"shape": [2, 1, 1]}, r"^months: shape \[2, 1, 1\]"),
        ("plan", {"shape": [0], "data": []}, "^plan: has no rows"),
        ("plan", {"shape": [-1]}, "^plan: has no rows"),
        ("plan", {"shape": [10**30]}, "^plan: has 10+ rows, at most 50"),
        ("plan", {"shape": [51], "data": ["gold"] * 51}, "^plan: has 51 rows, at most 50"),
        ("months", {"data": None}, "^months: has no data"),
        ("months", {"shape": [2, 1], "data": [[1], [2, 3]]}, "^months: row 1: expected a list of one value"),
        ("months", {"shape": [2, 1], "data": [[1], 2]}, "^months: row 1: expected a list of one value"),
        ("calls", {"datatype": "UINT8", "data": [255, 256]}, "^calls: row 1: 256 does not fit UINT8"),
        ("calls", {"datatype": "INT16", "data": [-32769, 1]}, "^calls: row 0: -32769 does not fit INT16"),
        ("autopay", {"datatype": "FP64", "data": [1, 0.5]}, "^autopay: row 1: 0.5 is not 0, 1"),
        ("autopay", {"datatype": "FP64", "data": [True, 0]}, "^autopay: row 0: True is not 0, 1"),
    ],
)
def test_names_the_tensor_that_is_wrong(
    ask: Callable[..., Query], body: dict[str, Any], name: str, change: dict[str, Any], message: str
) -> None:
    tensor(body, name).update(change)
    with pytest.raises(RequestError, match=message):
        ask(body)


def test_names_the_missing_tensors(ask: Callable[..., Query], body: dict[str, Any]) -> None:
    body["inputs"] = body["inputs"][2:]
    with pytest.raises(RequestError, match=r"^plan, city: missing"):
        ask(body)
    with pytest.raises(RequestError, match=r"^plan, city, months, .*: missing"):
        ask({"inputs": []})


@pytest.mark.parametrize(
    ("name", "datatype", "data", "expected"),
    [
        ("charge", "FP32", [1.5, 2], [1.5, 2]),
        ("charge", "INT64", [1, 2], [1, 2]),
        ("charge", "UINT8", [1, 255], [1, 255]),
        ("months", "INT32", [1, 2], [1, 2]),
        ("calls", "FP64", [1.0, None], [1.0, None]),
        ("autopay", "FP64", [1.0, 0], [True, False]),
        ("autopay", "FP64", [None, 1], [None, True]),
        ("city", "BYTES", ["", "Bern"], [None, "Bern"]),
        ("plan", "BYTES", ["", "gold"], ["", "gold"]),
    ],
)
def test_widens_without_loss(
    ask: Callable[..., Query],
    body: dict[str, Any],
    name: str,
    datatype: str,
    data: list[Any],
    expected: list[Any],
) -> None:
    tensor(body, name).update(datatype=datatype, data=data)
    assert ask(body).columns[name] == expected


def test_nan_is_missing_in_a_nullable_boolean(decoder: Decoder, body: dict[str, Any]) -> None:
    request = parse_request(json.dumps(body).encode())
    entry = next(entry for entry in request.inputs if entry.name == "autopay")
    entry.datatype, entry.data = "FP64", [NAN, 0.0]
    assert decoder.read(request).columns["autopay"] == [None, False]


@given(st.lists(st.sampled_from([0.0, 1.0, -0.0, NAN, 0.5, 2.0]), min_size=1, max_size=30))
def test_an_array_of_numbers_is_the_truth_values_of_its_list(numbers: list[float]) -> None:
    feature = Feature(Column.model_validate({"name": "autopay", "type": "boolean", "nullable": True}))
    convert = make_converters(feature)["FP64"]
    assert convert is not None

    def attempt(values: Any) -> Any:
        try:
            return list(convert_column("autopay", convert, values))
        except RequestError as error:
            return str(error)

    assert attempt(np.array(numbers)) == attempt(numbers)


def test_selects_outputs(ask: Callable[..., Query], body: dict[str, Any]) -> None:
    def select(**more: Any) -> list[tuple[str, bool]]:
        return [(wanted.name, wanted.binary) for wanted in ask({**body, **more}).wanted]

    both = [("churn_probability", False), ("churn", False)]
    assert select(outputs=[]) == both
    assert select(parameters={"reasons": False, "priority": 3}) == both
    assert select(parameters={"reasons": True}) == [*both, ("reasons", False)]
    assert select(parameters={"binary_data_output": True})[0] == ("churn_probability", True)
    assert select(outputs=[{"name": "churn"}]) == [("churn", False)]
    assert select(outputs=[{"name": "reasons"}, {"name": "churn"}])[0] == ("reasons", False)
    assert select(outputs=[{"name": "churn"}], parameters={"reasons": True}) == [
        ("churn", False),
        ("reasons", False),
    ]
    mixed = [{"name": "churn", "parameters": {"binary_data": False}}, {"name": "reasons"}]
    assert select(outputs=mixed, parameters={"binary_data_output": True}) == [
        ("churn", False),
        ("reasons", True),
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"outputs": [{"name": "score"}]}, "^score: is not an output; those are churn_probability"),
        ({"outputs": [{"name": "churn"}, {"name": "churn"}]}, "^churn: this output is asked for twice"),
        ({"outputs": [{"name": "churn", "parameters": {"binary_data": 1}}]}, "^churn: binary_data is 1"),
        ({"outputs": [{"name": "churn", "parameters": {"classification": 2}}]}, "classification"),
        (
            {"parameters": {"reasons": "yes"}},
            "^parameters: reasons is 'yes', expected true, false, or how many",
        ),
        ({"parameters": {"reasons": 0}}, "^parameters: reasons is 0, expected .* from 1 to 8"),
        ({"parameters": {"reasons": -1}}, "^parameters: reasons is -1, expected .* from 1 to 8"),
        ({"parameters": {"reasons": 9}}, "^parameters: reasons is 9, expected .* from 1 to 8"),
        ({"parameters": {"reasons": 3.0}}, r"^parameters: reasons is 3\.0, expected .* from 1 to 8"),
        ({"parameters": {"reasons": 10**30}}, "^parameters: reasons is 10+, expected .* from 1 to 8"),
        ({"parameters": {"binary_data_output": 1}}, "^parameters: binary_data_output is 1"),
    ],
)
def test_refuses_outputs_that_are_none(
    ask: Callable[..., Query], body: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        ask({**body, **more})


def test_reads_how_many_reasons_are_wanted(ask: Callable[..., Query], body: dict[str, Any]) -> None:
    def count(**more: Any) -> int:
        return ask({**body, **more}).reasons

    assert count() == count(parameters={"reasons": False}) == 0
    assert count(parameters={"reasons": True}) == count(outputs=[{"name": "reasons"}]) == 5
    assert count(parameters={"reasons": 1}) == 1
    assert count(parameters={"reasons": 8}, outputs=[{"name": "reasons"}]) == 8


def test_reads_instances(decoder: Decoder, row: dict[str, Any]) -> None:
    query = decoder.read_instances({"instances": [row, {**row, "client": "c7", "city": ""}]})
    assert query.rows == 2
    assert query.columns["city"] == [None, None]
    assert query.columns["months"] == [12, 12]
    assert decoder.read_instances({"instances": [row], "parameters": {"reasons": True}}).reasons == 5
    assert decoder.read_instances({"instances": [row], "parameters": {"reasons": 2}}).reasons == 2


def test_refuses_wrong_instances(decoder: Decoder, row: dict[str, Any]) -> None:
    without = {name: value for name, value in row.items() if name != "months"}
    cases: list[tuple[Any, str]] = [
        ([], "not a JSON object"),
        ({}, "^instances: expected a list"),
        ({"instances": row}, "^instances: expected a list"),
        ({"instances": []}, "^instances: has no rows"),
        ({"instances": [row] * 51}, "^instances: has 51 rows"),
        ({"instances": [row, 5]}, "^instances: row 1: expected an object"),
        ({"instances": [row, without]}, "^months: row 1: is not there"),
        ({"instances": [{**row, "left": True}]}, "^left: row 0: is not an input"),
        ({"instances": [{**row, "client": 1.5}]}, "^client: row 0: 1.5 is not an id"),
        ({"instances": [row], "parameters": 5}, "^parameters: expected an object"),
        ({"instances": [row], "parameters": {"reasons": 9}}, "^parameters: reasons is 9"),
    ]
    for document, message in cases:
        with pytest.raises(RequestError, match=message):
            decoder.read_instances(document)


def test_metadata_lists_the_outputs_that_come_unasked() -> None:
    assert [entry["name"] for entry in list_outputs()] == [wanted.name for wanted in COMPLETE]


def test_metadata_lists_features_and_the_id(
    contract: Contract, featuriser: Featuriser, datatypes: dict[str, str]
) -> None:
    inputs = list_inputs(contract, featuriser.names)
    assert {entry["name"]: entry["datatype"] for entry in inputs} == {**datatypes, "client": "BYTES"}
    assert all(entry["shape"] == [-1] for entry in inputs)
