from __future__ import annotations

import contextlib
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.detector.body import read_body
from serving.detector.errors import EventError
from serving.detector.event import Event, Kind
from serving.detector.records import Request, Response

ID = "customer_id"
names = st.text(min_size=1, max_size=8).filter(lambda name: name != ID)
plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
ids = st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)


def make_event(body: Any, kind: Kind = "request") -> Event:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Event("e", kind, "telco", "abc", 5, raw)


def ask(body: Any) -> Request:
    request = read_body(make_event(body), ID)
    assert isinstance(request, Request)
    return request


def answer(body: Any) -> Response:
    response = read_body(make_event(body, "response"), ID)
    assert isinstance(response, Response)
    return response


def tensor(name: str, data: list[Any], datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data, **more}


def make_answer(scores: list[Any], churn: list[Any], **more: Any) -> dict[str, Any]:
    return {"outputs": [tensor("churn_probability", scores), tensor("churn", churn, "BOOL")], **more}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str | None], list[dict[str, Any]]]:
    rows = draw(st.integers(1, 5))
    columns = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    texts = st.text(st.characters(codec="utf-8"), max_size=10)
    table = [{name: draw(plain | texts) for name in columns} for _ in range(rows)]
    return [draw(ids) for _ in range(rows)], table


@given(tables(), st.booleans())
def test_v2_and_v1_say_the_same(table: tuple[list[str | None], list[dict[str, Any]]], columns: bool) -> None:
    customers, features = table
    data = {ID: customers, **{name: [row[name] for row in features] for name in features[0]}}
    inputs = [tensor(name, values) for name, values in data.items()]
    if columns:
        for entry in inputs:
            entry |= {"shape": [len(features), 1], "data": [[value] for value in entry["data"]]}
    v2 = ask({"inputs": inputs, "parameters": {"unknown": 1}})
    v1 = ask({"instances": [{**row, ID: who} for who, row in zip(customers, features, strict=True)]})
    assert v2 == v1 == Request("e", "telco", "abc", 5, customers, features)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=6))
def test_answers_of_v2_and_v1_say_the_same(rows: list[tuple[float, bool]]) -> None:
    scores, churn = [score for score, _ in rows], [flag for _, flag in rows]
    v2 = answer(make_answer(scores, churn, model_version="def"))
    predictions = [{"churn_probability": score, "churn": flag, "reasons": []} for score, flag in rows]
    v1 = answer({"predictions": predictions, "model_version": "def"})
    assert v2 == v1 == Response("e", "telco", "def", 5, scores, churn)


def test_version_comes_from_the_answer_else_from_the_address() -> None:
    assert answer(make_answer([0.5], [True], model_version="def")).version == "def"
    assert answer(make_answer([0.5], [True], model_version=None)).version == "abc"


@given(
    st.lists(st.floats(width=64), min_size=1, max_size=5),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=5, max_size=5),
    st.booleans(),
)
def test_binary_tensors_behind_the_json(numbers: list[float], words: list[str], leading: bool) -> None:
    words = words[: len(numbers)]
    rows = len(numbers)
    raw = np.array(numbers).tobytes()
    strings = b"".join(struct.pack("<I", len(word.encode())) + word.encode() for word in words)
    document = {
        "inputs": [
            {"name": "x", "shape": [rows], "datatype": "FP64", "parameters": {"binary_data_size": len(raw)}},
            tensor("y", list(range(rows)), "INT64"),
            {
                "name": "s",
                "shape": [rows],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(strings)},
            },
        ],
        "ä": "Zürich }{",
    }
    body = json.dumps(document, ensure_ascii=False).encode() + raw + strings
    event = make_event(b" \n" + body if leading else body)
    if any(math.isinf(number) for number in numbers):
        with pytest.raises(EventError, match="infinite"):
            read_body(event, ID)
        return
    request = read_body(event, ID)
    assert isinstance(request, Request)
    wanted = [None if math.isnan(number) else number for number in numbers]
    assert [row["x"] for row in request.features] == wanted
    assert [row["s"] for row in request.features] == words
    assert [row["y"] for row in request.features] == list(range(rows))


def test_binary_answer() -> None:
    document = {
        "outputs": [
            {"name": name, "shape": [2], "datatype": kind, "parameters": {"binary_data_size": size}}
            for name, kind, size in [("churn_probability", "FP64", 16), ("churn", "BOOL", 2)]
        ]
    }
    body = json.dumps(document).encode() + np.array([0.25, 0.75]).tobytes() + b"\0\1"
    response = answer(body)
    assert (response.scores, response.churn) == ([0.25, 0.75], [False, True])


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"x": ' + b"[" * 100_000, "not JSON"),
        (b'{"instances": [{"x": NaN}]}', "not JSON"),
        ([1], "neither V2 nor V1"),
        ({}, 'neither "inputs"'),
        ({"inputs": []}, "no rows"),
        ({"inputs": [tensor("x", [])]}, "no rows"),
        ({"inputs": [{"name": "x", "shape": [1]}]}, "no data"),
        ({"inputs": [tensor("x", [1.0]), tensor("x", [1.0])]}, "twice"),
        ({"inputs": [tensor("x", [1.0]), tensor("y", [1.0, 2.0])]}, "2 rows"),
        ({"inputs": [tensor("x", [1.0], shape=[3])]}, "does not fit"),
        ({"inputs": [tensor("x", [1.0], shape=[1, 1, 1])]}, "does not fit"),
        ({"inputs": [tensor("x", [{"a": 1}])]}, "not one value"),
        ({"inputs": [tensor("x", [[1.0], 2.0], shape=[2, 1])]}, "a list of one value"),
        ({"inputs": [tensor(ID, ["a"])]}, "no tensor but"),
        ({"inputs": [tensor(ID, [1.5]), tensor("x", [1.0])]}, "the id in row 0"),
        ({"inputs": [tensor(ID, ["a\0"]), tensor("x", [1.0])]}, "NUL"),
        ({"inputs": [tensor(ID, ["a" * 401]), tensor("x", [1.0])]}, "401 characters"),
        ({"inputs": [tensor("x", [1.0], parameters={"binary_data_size": 8})]}, "not in the body"),
        ({"instances": []}, "no rows"),
        ({"instances": [1]}, "neither V2 nor V1"),
        ({"instances": [{"x": [1]}]}, "not one value"),
    ],
)
def test_bad_request_says_what_is_wrong(body: Any, part: str) -> None:
    with pytest.raises(EventError, match=part):
        ask(body)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"outputs": [tensor("churn", [True])]}, "not asked for"),
        ({"outputs": []}, "not asked for"),
        (make_answer([1.5], [True]), "no probability"),
        (make_answer([True], [True]), "no probability"),
        (make_answer([0.5], [1]), "neither true nor false"),
        (make_answer([0.5, 0.5], [True]), "1 rows"),
        ({"predictions": []}, 'neither "outputs"'),
        ({"predictions": [{"churn": True}]}, "lacks 'churn_probability'"),
        ({"error": "the server is down"}, 'neither "outputs"'),
    ],
)
def test_bad_answer_says_what_is_wrong(body: Any, part: str) -> None:
    with pytest.raises(EventError, match=part):
        answer(body)


@given(st.binary(max_size=200), st.sampled_from(["request", "response"]))
def test_any_bytes_are_understood_or_refused(body: bytes, kind: Kind) -> None:
    with pytest.raises(EventError):
        read_body(make_event(body, kind), ID)


documents = st.recursive(
    plain | st.text(max_size=5) | st.just("BYTES"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "outputs", "instances", "predictions", "name", "shape", "data", "datatype"]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(st.sampled_from(["inputs", "outputs", "instances", "predictions"]), documents),
    st.booleans(),
)
def test_any_document_is_understood_or_refused(document: dict[str, Any], asks: bool) -> None:
    with contextlib.suppress(EventError):
        read_body(make_event(document, "request" if asks else "response"), ID)
