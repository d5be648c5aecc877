"""REST requests that are wrong, in V2, V1 and with binary tensors, and what is said of each.

The message names the tensor and what was expected, and the server stays what it was.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

Rows = list[dict[str, Any]]
MakeBody = Callable[..., dict[str, Any]]
NAN, INF = float("nan"), float("inf")

pytestmark = pytest.mark.usefixtures("survives")


BINARY = {"months": ("<i8", 12), "charge": ("<f8", 30.5), "active": ("?", True)}


@dataclass(frozen=True)
class Case:
    """One wrong request.

    Attributes:
        name: What is wrong.
        message: Pieces of the answer, the tensor's name first.
        change: Changes a good request (or returns another one).
        status: The HTTP status.
    """

    name: str
    message: tuple[str, ...]
    change: Callable[..., Any] = field(repr=False)
    status: int = 400

    def __str__(self) -> str:
        return self.name


def put(tensor: str, /, **fields: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of one tensor; a field of None is taken out."""

    def change(body: dict[str, Any]) -> None:
        entry = next(entry for entry in body["inputs"] if entry["name"] == tensor)
        entry.update(fields)
        for key in [key for key, value in entry.items() if value is None]:
            del entry[key]

    return change


def text(old: str, new: str) -> Callable[[dict[str, Any]], bytes]:
    """Return a change of the text of a request."""

    def change(body: dict[str, Any]) -> bytes:
        sent = json.dumps(body)
        assert old in sent
        return sent.replace(old, new, 1).encode(errors="surrogateescape")

    return change


def add(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body.update(fields)


MONTHS = '"name": "months", "shape": [2]'
JSON_CASES = [
    Case("missing tensor", ("months", "missing", "every feature"), lambda b: b["inputs"].pop(2)),
    Case("no tensors", ("plan", "missing"), add(inputs=[])),
    Case(
        "doubled tensor", ("months", "twice", "expected once"), lambda b: b["inputs"].append(b["inputs"][2])
    ),
    Case("misnamed tensor", ("monts", "not an input", "months"), put("months", name="monts")),
    Case("label as tensor", ("left", "not an input"), put("months", name="left")),
    Case("name of 10,000 letters", ("aaaa", "not an input"), put("months", name="a" * 10_000)),
    Case("name that is a number", ("inputs[2]", "expected `str`"), put("months", name=5)),
    Case("name that is not UTF-8", ("JSON",), text("months", "\udcff")),
    Case("lone surrogate in a name", ("JSON",), text("months", "\\ud800")),
    Case("NUL in a name", ("months\x00", "not an input"), put("months", name="months\x00")),
    Case("no datatype", ("months", "datatype"), put("months", datatype=None)),
    Case("unknown datatype", ("months", "'WORDS'", "expected INT64"), put("months", datatype="WORDS")),
    Case(
        "datatype in small letters", ("months", "'int64'", "expected INT64"), put("months", datatype="int64")
    ),
    Case("float for a whole number", ("months", "'FP64'", "expected INT64"), put("months", datatype="FP64")),
    Case("strings for a number", ("charge", "'BYTES'", "expected FP64"), put("charge", datatype="BYTES")),
    Case("datatype of another kind", ("months", "expected `str`"), put("months", datatype=["INT64"])),
    Case("no shape", ("months", "shape"), put("months", shape=None)),
    Case("empty shape", ("months", "shape []", "expected [n] or [n, 1]"), put("months", shape=[])),
    Case("matrix", ("months", "shape [2, 2]", "expected [n] or [n, 1]"), put("months", shape=[2, 2])),
    Case("second dimension 0", ("months", "shape [2, 0]", "expected [n] or"), put("months", shape=[2, 0])),
    Case("1,000 dimensions", ("months", "expected [n] or [n, 1]"), put("months", shape=[1] * 1000)),
    Case("negative dimension", ("months", "-1", "expected 1 to 300"), put("months", shape=[-1])),
    Case("no rows", ("months", "no rows", "expected 1 to 300"), put("months", shape=[0], data=[])),
    Case("dimension of 2**63", ("months", "9223372036854775808 rows", "300"), put("months", shape=[2**63])),
    Case("dimension of 2**64+2", ("months", "18446744073709551618 rows"), put("months", shape=[2**64 + 2])),
    Case(
        "dimension of 5,000 digits", ("months", "out of range"), text(MONTHS, MONTHS.replace("2", "9" * 5000))
    ),
    Case("fraction in a dimension", ("months", "expected `int`"), put("months", shape=[2.5])),
    Case("string in a dimension", ("months", "expected `int`"), put("months", shape=["2"])),
    Case("truth in a dimension", ("months", "expected `int`"), put("months", shape=[True])),
    Case("shape beside data", ("months", "shape [3]", "2 values, expected 3"), put("months", shape=[3])),
    Case("fewer rows than others", ("months", "plan has 2 rows"), put("months", shape=[1], data=[1])),
    Case("too many rows", ("plan", "301 rows", "at most 300"), put("plan", shape=[301], data=["gold"] * 301)),
    Case("no data", ("months", "no data", "expected one value per row"), put("months", data=None)),
    Case("data that is a number", ("months", "expected `array"), put("months", data=5)),
    Case("data that is an object", ("months", "expected `array"), put("months", data={"0": 1})),
    Case(
        "string in numbers",
        ("months", "row 1", "'12'", "expected a whole number"),
        put("months", data=[1, "12"]),
    ),
    Case("truth in numbers", ("months", "row 0", "bool", "expected a whole"), put("months", data=[True, 1])),
    Case("list in numbers", ("months", "row 0", "list", "expected a whole"), put("months", data=[[1], [2]])),
    Case("object in strings", ("city", "row 1", "dict", "expected a string"), put("city", data=["a", {}])),
    Case("number in truths", ("active", "row 0", "expected true or false"), put("active", data=[1, 0])),
    Case(
        "fraction in whole numbers", ("months", "row 0", "1.5", "whole number"), put("months", data=[1.5, 2])
    ),
    Case("null in a column that has none", ("months", "row 1", "missing"), put("months", data=[1, None])),
    Case(
        "ragged rows", ("charge", "row 1", "one value"), put("charge", shape=[2, 1], data=[[1.0], [1.0, 2.0]])
    ),
    Case(
        "900 lists deep",
        ("charge", "row 0", "list"),
        text('"data": [30.5', f'"data": [{"[" * 900}{"]" * 900}'),
    ),
    Case("NaN", ("charge", "row 0", "NaN", "expected a finite number"), put("charge", data=[NAN, 1.0])),
    Case("Infinity", ("charge", "row 1", "Infinity", "finite number"), put("charge", data=[1.0, INF])),
    Case("1e400", ("charge", "row 0", "1e400", "finite number"), text('"data": [30.5', '"data": [1e400')),
    Case(
        "a number of 5,000 digits",
        ("charge", "out of range"),
        text('"data": [30.5', f'"data": [{"9" * 5000}'),
    ),
    Case("beyond FP32", ("charge", "row 0", "too large"), put("charge", datatype="FP32", data=[1e39, 1.0])),
    Case(
        "beyond INT8", ("calls", "row 0", "128", "-128 to 127"), put("calls", datatype="INT8", data=[128, 1])
    ),
    Case(
        "below UINT16", ("calls", "row 0", "-1", "0 to 65535"), put("calls", datatype="UINT16", data=[-1, 1])
    ),
    Case("below minimum", ("months", "row 1", "-5", "minimum 0"), put("months", data=[1, -5])),
    Case("above maximum", ("months", "row 1", "1001", "maximum 1000"), put("months", data=[1, 1001])),
    Case("beyond training", ("months", "row 0", "training range"), put("months", data=[999, 1])),
    Case(
        "unseen category", ("plan", "row 0", "'iron'", "'silver', 'gold'"), put("plan", data=["iron", "gold"])
    ),
    Case(
        "id of another kind",
        ("client", "row 0", "not a string"),
        lambda b: b["inputs"].append({"name": "client", "shape": [2], "datatype": "BYTES", "data": [1, "b"]}),
    ),
    Case("doubled key", ("inputs", "twice"), text('{"inputs"', '{"inputs": [], "inputs"')),
    Case("doubled shape", ("months", "'shape'", "twice"), text(MONTHS, MONTHS + ', "shape": [1]')),
    Case(
        "doubled data",
        ("charge", "'data'", "expected once"),
        text('"data": [30.5', '"data": [1.0, 2.0], "data": [30.5'),
    ),
    Case(
        "doubled name, escaped",
        ("name", "twice"),
        text('"name": "months"', '"name": "months", "n\\u0061me": "x"'),
    ),
    Case("object as a parameter", ("the request", "object"), add(parameters={"deep": {"er": 1}})),
    Case(
        "deep parameter",
        ("months", "object"),
        put("months", parameters=json.loads('{"a":' * 500 + "1" + "}" * 500)),
    ),
    Case("deep unknown key", ("too deeply",), lambda b: b'{"later": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    Case("unknown output", ("score", "churn_probability, churn, reasons"), add(outputs=[{"name": "score"}])),
    Case("doubled output", ("churn", "twice", "expected once"), add(outputs=[{"name": "churn"}] * 2)),
    Case("5,000 outputs", ("churn", "twice"), add(outputs=[{"name": "churn"}] * 5000)),
    Case("output without a name", ("outputs", "name"), add(outputs=[{}])),
    Case("no reasons", ("reasons is 0", "1 to 8"), add(parameters={"reasons": 0})),
    Case("fewer than no reasons", ("reasons is -3", "1 to 8"), add(parameters={"reasons": -3})),
    Case("too many reasons", ("reasons is 9", "1 to 8"), add(parameters={"reasons": 9})),
    Case("id that is a number", ("id", "expected `str"), add(id=5)),
    Case("no object", ("expected `object`",), lambda b: b"[]"),
    Case("nothing", ("JSON",), lambda b: b""),
    Case("half of it", ("JSON",), lambda b: json.dumps(b).encode()[:400]),
    Case("two of it", ("JSON",), lambda b: json.dumps(b).encode() * 2),
    Case("UTF-16", ("JSON",), lambda b: json.dumps(b).encode("utf-16")),
    Case("unknown key that is not UTF-8", ("JSON", "utf-8"), text('{"inputs"', '{"\udcff": 1, "inputs"')),
    Case("unknown text that is not UTF-8", ("JSON", "utf-8"), text("{", '{"comment": "a: \udcff", ')),
    Case("unknown text with a control character", ("JSON",), text("{", '{"comment": "\1", ')),
    Case(
        "surrogate in the name of a wrong tensor",
        ("\\ud800", "expected `int`"),
        text('{"inputs": [', '{"inputs": [{"shape": [1.5], "name": "\\ud800"}, '),
    ),
    Case("too many bytes", ("200000 bytes",), lambda b: b" " * 200_001, 413),
    Case("a body of brackets", ("JSON",), lambda b: b'{"inputs": [{"data": [' + b"[]," * 60_000),
]


def whole(fields: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    return {"instances": [{**row, **fields}]}


def note(member: bytes, row: dict[str, Any]) -> bytes:
    """Return a V1 request with a member that it does not have."""
    return b"{" + member + b", " + json.dumps(whole({}, row)).encode()[1:]


V1_CASES = [
    Case(
        "missing feature",
        ("months", "row 0", "not there"),
        lambda r: {"instances": [{k: v for k, v in r.items() if k != "months"}]},
    ),
    Case("extra feature", ("left", "row 0", "not an input"), lambda r: whole({"left": 1}, r)),
    Case(
        "string in numbers",
        ("months", "row 0", "expected a whole number"),
        lambda r: whole({"months": "1"}, r),
    ),
    Case("NaN", ("charge", "row 0", "NaN", "expected a finite"), lambda r: whole({"charge": NAN}, r)),
    Case(
        "1e400",
        ("charge", "row 0", "1e400", "finite"),
        lambda r: json.dumps(whole({}, r)).replace("30.5", "1e400").encode(),
    ),
    Case("below minimum", ("months", "row 0", "minimum 0"), lambda r: whole({"months": -1}, r)),
    Case("unseen category", ("plan", "row 0", "'silver', 'gold'"), lambda r: whole({"plan": "iron"}, r)),
    Case(
        "null in a column that has none", ("active", "row 0", "missing"), lambda r: whole({"active": None}, r)
    ),
    Case(
        "doubled feature",
        ("months", "twice", "once"),
        lambda r: json.dumps(whole({}, r)).replace('"months"', '"months": 1, "months"').encode(),
    ),
    Case("doubled instances", ("instances", "twice"), lambda r: b'{"instances": [], "instances": []}'),
    Case("no rows", ("instances", "no rows", "1 to 300"), lambda r: {"instances": []}),
    Case("too many rows", ("instances", "301 rows", "300"), lambda r: {"instances": [r] * 301}),
    Case("row that is none", ("instances", "row 1", "expected an object"), lambda r: {"instances": [r, 5]}),
    Case("lists of values", ("instances", "row 0", "expected an object"), lambda r: {"instances": [[1, 2]]}),
    Case("V2 request", ("instances", "expected a list"), lambda r: {"inputs": []}),
    Case(
        "deep value",
        ("charge", "row 0", "list"),
        lambda r: whole({"charge": json.loads("[" * 400 + "]" * 400)}, r),
    ),
    Case("too deep", ("too deeply",), lambda r: b'{"instances": ' + b"[" * 90_000),
    Case("not JSON", ("JSON",), lambda r: b"{"),
    Case("unknown text that is not UTF-8", ("JSON", "utf-8"), lambda r: note(b'"comment": "a: \xff"', r)),
    Case("unknown key that is not UTF-8", ("JSON", "utf-8"), lambda r: note(b'"\xff": 1', r)),
    Case("surrogate in a key", ("JSON",), lambda r: note(b'"\\ud800": 1', r)),
    Case(
        "too many reasons",
        ("reasons is 99", "1 to 8"),
        lambda r: {**whole({}, r), "parameters": {"reasons": 99}},
    ),
    Case("too many bytes", ("200000 bytes",), lambda r: b" " * 200_001, 413),
]


def split(
    *, drop: int = 0, extra: bytes = b"", **changes: Any
) -> Callable[[dict[str, Any]], tuple[bytes, int]]:
    """Return a change that makes three tensors binary; NAME_size is another size, NAME_raw other bytes."""

    def change(body: dict[str, Any]) -> tuple[bytes, int]:
        tail = b""
        for entry in body["inputs"]:
            name = entry["name"]
            if name in BINARY:
                dtype, value = BINARY[name]
                raw = changes.get(f"{name}_raw", np.array([value, value], dtype=dtype).tobytes())
                entry["parameters"] = {"binary_data_size": changes.get(f"{name}_size", len(raw))}
                if f"{name}_data" not in changes:
                    del entry["data"]
                if f"{name}_datatype" in changes:
                    entry["datatype"] = changes[f"{name}_datatype"]
                tail += raw
        sent = json.dumps(body).encode()
        return sent + tail[: len(tail) - drop] + extra, len(sent)

    return change


BINARY_CASES = [
    Case("truncated", ("active", "beyond the end", "at most 1"), split(drop=1)),
    Case("bytes left over", ("belong to no tensor",), split(extra=b"x")),
    Case("size too large", ("active", "beyond the end"), split(active_size=2000)),
    Case("negative size", ("months", "binary_data_size is -8", "number of bytes"), split(months_size=-8)),
    Case("size of 2**70", ("months", "beyond the end"), split(months_size=2**70)),
    Case("size that is a string", ("months", "'16'", "number of bytes"), split(months_size="16")),
    Case("size that is true", ("months", "True", "number of bytes"), split(months_size=True)),
    Case("half a value", ("months", "15 bytes", "8 bytes each"), split(months_raw=b"x" * 15)),
    Case("one value too few", ("months", "1 values, expected 2"), split(months_raw=b"\0" * 8)),
    Case("both data and binary", ("months", "both", "one of them"), split(months_data=True)),
    Case("BOOL of 2", ("active", "neither 0 nor 1"), split(active_raw=b"\1\2")),
    Case("NaN", ("charge", "row 1", "missing"), split(charge_raw=struct.pack("<2d", 1, NAN))),
    Case("Infinity", ("charge", "row 0", "finite"), split(charge_raw=struct.pack("<2d", INF, 1))),
    Case("1e300", ("charge", "row 0", "too large"), split(charge_raw=struct.pack("<2d", 1e300, 1))),
    Case(
        "below minimum", ("months", "row 1", "minimum 0"), split(months_raw=struct.pack("<2q", 1, -(2**63)))
    ),
    Case("wrong datatype", ("months", "'FP64'", "expected INT64"), split(months_datatype="FP64")),
    Case("unknown datatype", ("months", "'BF16'", "FP64"), split(months_datatype="BF16")),
    Case("header beyond the body", ("Inference-Header-Content-Length", "bytes"), lambda b: (b"{}", 5000)),
    Case("header inside of the JSON", ("JSON",), lambda b: (json.dumps(b).encode(), 20)),
]


@pytest.fixture
def good(row: dict[str, Any], make_body: MakeBody) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(json.dumps(make_body([row, row])))
    return body


def check(answer: Any, case: Case) -> None:
    assert answer.status_code == case.status, answer.text
    error = answer.json()["error"]
    for piece in case.message:
        assert piece in error
    assert len(error) < 600


@pytest.mark.parametrize("case", JSON_CASES, ids=str)
def test_json(server: Any, model_name: str, good: dict[str, Any], case: Case) -> None:
    sent = case.change(good)
    content = sent if isinstance(sent, bytes) else json.dumps(good).encode()
    check(server.client.post(f"/v2/models/{model_name}/infer", content=content), case)


@pytest.mark.parametrize("case", V1_CASES, ids=str)
def test_v1(server: Any, model_name: str, row: dict[str, Any], case: Case) -> None:
    sent = case.change(row)
    content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    check(server.client.post(f"/v1/models/{model_name}:predict", content=content), case)


@pytest.mark.parametrize("case", BINARY_CASES, ids=str)
def test_binary(server: Any, model_name: str, good: dict[str, Any], case: Case) -> None:
    content, length = case.change(good)
    headers = {"inference-header-content-length": str(length), "content-type": "application/octet-stream"}
    check(server.client.post(f"/v2/models/{model_name}/infer", content=content, headers=headers), case)


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"content-type": "text/plain"}, 415, "expected application/json"),
        ({"content-type": "multipart/form-data; boundary=x"}, 415, "expected application/json"),
        ({"content-encoding": "gzip"}, 415, "'gzip', expected none"),
        ({"inference-header-content-length": "ten"}, 400, "expected a number of bytes"),
        ({"inference-header-content-length": "9" * 5000}, 400, "expected a number of bytes"),
        ({"x-long": "a" * 40_000}, 431, "32768 bytes"),
    ],
)
@pytest.mark.parametrize("path", ["/v2/models/{}/infer", "/v1/models/{}:predict"])
def test_headers(
    server: Any,
    model_name: str,
    good: dict[str, Any],
    path: str,
    headers: dict[str, str],
    status: int,
    message: str,
) -> None:
    answer = server.client.post(path.format(model_name), content=json.dumps(good).encode(), headers=headers)
    assert answer.status_code == status
    assert message in answer.json()["error"]
