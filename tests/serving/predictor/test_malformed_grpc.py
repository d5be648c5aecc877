"""Messages of gRPC that are wrong, with typed and with raw contents, and what is said of each.

The status blames the caller, its text names the tensor and what was expected, and the server stays as it was.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest

Rows = list[dict[str, Any]]
NAN, INF = float("nan"), float("inf")

pytestmark = pytest.mark.usefixtures("survives")

INVALID, MISSING, EXHAUSTED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@dataclass(frozen=True)
class Case:
    """One wrong message.

    Attributes:
        name: What is wrong.
        message: Pieces of the answer, the tensor's name first.
        change: Changes a good message, or returns bytes in its place.
        status: The status.
    """

    name: str
    message: tuple[str, ...]
    change: Callable[..., Any] = field(repr=False)
    status: grpc.StatusCode = INVALID

    def __str__(self) -> str:
        return self.name


def make_message(pb: Any, model: str, row: dict[str, Any], datatypes: dict[str, str]) -> Any:
    """Return a good request of two rows with typed contents."""
    fields = {"BYTES": "bytes", "INT64": "int64", "FP64": "fp64", "BOOL": "bool"}
    request = pb.ModelInferRequest(model_name=model)
    for name, datatype in datatypes.items():
        value = {"city": b"Bern", "calls": 1, "credit": 1.0, "autopay": True}.get(name, row[name])
        value = value.encode() if isinstance(value, str) else value
        entry = request.inputs.add(name=name, datatype=datatype, shape=[2])
        getattr(entry.contents, f"{fields[datatype]}_contents").extend([value, value])
    return request


def make_raw(request: Any) -> Any:
    """Move the values of a request to raw contents."""
    dtypes = {"INT64": "<i8", "FP64": "<f8", "BOOL": "?"}
    for entry in request.inputs:
        ((_, values),) = entry.contents.ListFields()
        if entry.datatype == "BYTES":
            raw = b"".join(struct.pack("<I", len(value)) + value for value in values)
        else:
            raw = np.array(list(values), dtype=dtypes[entry.datatype]).tobytes()
        request.raw_input_contents.append(raw)
        entry.ClearField("contents")
    return request


def at(name: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a change of one tensor of a message."""

    def run(request: Any) -> None:
        change(next(entry for entry in request.inputs if entry.name == name))

    return run


def fill(name: str, contents: str, values: list[Any]) -> Callable[[Any], None]:
    """Return a change of one tensor's contents."""

    def change(entry: Any) -> None:
        entry.ClearField("contents")
        getattr(entry.contents, contents).extend(values)

    return at(name, change)


def name_type(name: str, datatype: str) -> Callable[[Any], None]:
    """Return a change of one tensor's datatype."""
    return at(name, lambda entry: setattr(entry, "datatype", datatype))


def both(*changes: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a change that is several."""

    def run(request: Any) -> None:
        for change in changes:
            change(request)

    return run


def reshape(*shape: int) -> Callable[[Any], None]:
    return at("months", lambda entry: entry.shape.__setitem__(slice(None), shape))


CONTENTS_CASES = [
    Case("missing tensor", ("months", "missing"), lambda r: r.inputs.pop(2)),
    Case("doubled tensor", ("months", "twice"), lambda r: r.inputs.add().CopyFrom(r.inputs[2])),
    Case("misnamed tensor", ("monts", "not an input"), at("months", lambda e: setattr(e, "name", "monts"))),
    Case(
        "name of 100,000 letters",
        ("aaa", "not an input"),
        at("months", lambda e: setattr(e, "name", "a" * 100_000)),
    ),
    Case(
        "name that is not UTF-8",
        ("ModelInferRequest",),
        lambda r: r.SerializeToString().replace(b"months", b"\xff\xffnths"),
    ),
    Case("half of it", ("ModelInferRequest",), lambda r: r.SerializeToString()[:-3]),
    Case(
        "wrong datatype",
        ("months", "'FP64'", "INT64"),
        both(fill("months", "fp64_contents", [1, 1]), name_type("months", "FP64")),
    ),
    Case("unknown datatype", ("months", "'WORDS'", "FP64"), name_type("months", "WORDS")),
    Case("FP16 contents", ("charge", "'FP16'", "raw_input_contents"), name_type("charge", "FP16")),
    Case(
        "wrong field",
        ("months", "fp64_contents", "expected int64_contents"),
        fill("months", "fp64_contents", [1, 1]),
    ),
    Case(
        "two fields",
        ("months", "uint_contents", "expected int64_contents"),
        at("months", lambda e: e.contents.uint_contents.extend([1, 1])),
    ),
    Case(
        "no contents",
        ("months", "0 values, expected 2"),
        at("months", lambda e: e.ClearField("contents")),
    ),
    Case(
        "one value too many",
        ("months", "3 values, expected 2"),
        at("months", lambda e: e.contents.int64_contents.append(1)),
    ),
    Case("no shape", ("months", "shape []", "[n] or [n, 1]"), reshape()),
    Case("matrix", ("months", "shape [2, 2]", "[n] or [n, 1]"), reshape(2, 2)),
    Case("negative dimension", ("months", "-1", "1 to 300"), reshape(-1)),
    Case("dimension of -2**63", ("months", "no rows", "1 to 300"), reshape(-(2**63))),
    Case("dimension of 2**63-1", ("months", "9223372036854775807 rows", "300"), reshape(2**63 - 1)),
    Case("product overflows", ("months", "[n] or [n, 1]"), reshape(2**32, 2**32)),
    Case("NaN", ("charge", "row 0", "missing"), fill("charge", "fp64_contents", [NAN, 1])),
    Case("Infinity", ("charge", "row 1", "finite"), fill("charge", "fp64_contents", [1, INF])),
    Case("below minimum", ("months", "row 0", "minimum 0"), fill("months", "int64_contents", [-1, 1])),
    Case(
        "beyond INT8",
        ("calls", "row 1", "-128 to 127"),
        both(fill("calls", "int_contents", [1, 128]), name_type("calls", "INT8")),
    ),
    Case(
        "text that is not UTF-8",
        ("city", "row 1", "UTF-8"),
        fill("city", "bytes_contents", [b"a", b"\xff"]),
    ),
    Case("unknown output", ("score", "churn_probability"), lambda r: r.outputs.add(name="score")),
    Case("doubled output", ("churn", "twice"), lambda r: r.outputs.extend([r.outputs.add(name="churn")])),
    Case(
        "too many reasons",
        ("reasons is 9", "1 to 8"),
        lambda r: setattr(r.parameters["reasons"], "int64_param", 9),
    ),
    Case(
        "reasons in words",
        ("reasons is 'all'", "1 to 8"),
        lambda r: setattr(r.parameters["reasons"], "string_param", "all"),
    ),
    Case(
        "both contents",
        ("plan", "expected none beside raw"),
        lambda r: r.raw_input_contents.extend([b""] * len(r.inputs)),
    ),
    Case(
        "too few raw contents",
        ("raw_input_contents", "1 entries", "8 inputs"),
        lambda r: r.raw_input_contents.append(b"x"),
    ),
    Case(
        "another model", ("other", "not served"), lambda r: setattr(r, "model_name", "other"), status=MISSING
    ),
    Case("no model", ("''", "not served"), lambda r: r.ClearField("model_name"), status=MISSING),
    Case("another version", ("version 7",), lambda r: setattr(r, "model_version", "7"), status=MISSING),
    Case("too many bytes", ("200000",), lambda r: setattr(r, "id", "x" * 200_001), status=EXHAUSTED),
]


def swap(place: int, raw: bytes) -> Callable[[Any], None]:
    return lambda request: request.raw_input_contents.__setitem__(place, raw)


RAW_CASES = [
    Case("half a value", ("months", "15 bytes", "8 bytes each"), swap(2, b"x" * 15)),
    Case("one value too few", ("months", "1 values, expected 2"), swap(2, b"\0" * 8)),
    Case("empty", ("months", "0 values, expected 2"), swap(2, b"")),
    Case("string cut short", ("plan", "row 1", "four bytes of length"), swap(0, b"\4\0\0\0gold\4\0\0\0go")),
    Case("length of 4 GiB", ("plan", "row 0", "inside of a string"), swap(0, b"\xff\xff\xff\xffgold")),
    Case("text that is not UTF-8", ("city", "row 0", "UTF-8"), swap(1, b"\1\0\0\0\xff\0\0\0\0")),
    Case("BOOL of 2", ("active", "neither 0 nor 1"), swap(6, b"\1\2")),
    Case("NaN", ("charge", "row 0", "missing"), swap(4, struct.pack("<2d", NAN, 1))),
    Case("Infinity", ("charge", "row 1", "finite"), swap(4, struct.pack("<2d", 1, -INF))),
    Case("unknown datatype", ("months", "'WORDS'", "FP64"), name_type("months", "WORDS")),
    Case("UINT64", ("calls", "'UINT64'", "expected INT64"), name_type("calls", "UINT64")),
    Case(
        "too many raw contents",
        ("raw_input_contents", "9 entries", "8 inputs"),
        lambda r: r.raw_input_contents.append(b""),
    ),
    Case(
        "contents as well",
        ("months", "none beside raw"),
        at("months", lambda e: e.contents.int64_contents.append(1)),
    ),
    Case("negative dimension", ("months", "-2", "1 to 300"), reshape(-2)),
]


@pytest.fixture(scope="module")
def ask(server: Any) -> Iterator[Callable[[bytes], bytes]]:
    """Return a function that sends bytes to ModelInfer, whatever they are."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        yield lambda message: call(message, timeout=20)


@pytest.fixture(scope="module")
def pb() -> Any:
    from kserve.protocol.grpc import grpc_predict_v2_pb2

    return grpc_predict_v2_pb2


def refuse(ask: Callable[[bytes], bytes], request: Any, case: Case) -> None:
    sent = case.change(request)
    with pytest.raises(grpc.RpcError) as caught:
        ask(sent if isinstance(sent, bytes) else request.SerializeToString())
    error: Any = caught.value
    assert error.code() is case.status, error.details()
    for piece in case.message:
        assert piece in error.details()
    assert len(error.details()) < 600


@pytest.fixture
def message(pb: Any, model_name: str, row: dict[str, Any], datatypes: dict[str, str]) -> Any:
    """A good message of two rows with typed contents."""
    return make_message(pb, model_name, row, datatypes)


@pytest.mark.parametrize("case", CONTENTS_CASES, ids=str)
def test_contents(ask: Any, message: Any, case: Case) -> None:
    refuse(ask, message, case)


@pytest.mark.parametrize("case", RAW_CASES, ids=str)
def test_raw_contents(ask: Any, message: Any, case: Case) -> None:
    refuse(ask, make_raw(message), case)


@pytest.mark.parametrize("raw", [False, True])
def test_a_good_message_is_answered(
    ask: Any, pb: Any, message: Any, row: dict[str, Any], raw: bool, score: Callable[[Rows], np.ndarray]
) -> None:
    answer = pb.ModelInferResponse.FromString(
        ask((make_raw(message) if raw else message).SerializeToString())
    )
    sent = {**row, "city": "Bern", "calls": 1, "credit": 1.0, "autopay": True}
    expected = score([sent, sent]).tolist()
    if raw:
        found = np.frombuffer(answer.raw_output_contents[0], dtype="<f8").tolist()
    else:
        found = list(answer.outputs[0].contents.fp64_contents)
    assert found == expected
