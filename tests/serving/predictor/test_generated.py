"""Generated requests, good and spoiled, over REST and gRPC: no 5xx, and each answer is the bundle's own."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Rows = list[dict[str, Any]]
Score = Callable[[Rows], np.ndarray]
NAN = float("nan")
REFUSED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}

shared = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FIELDS = {"BYTES": "bytes", "INT64": "int64", "FP64": "fp64", "BOOL": "bool"}
PACKED = {"INT64": "<i8", "FP64": "<f8", "BOOL": "?"}
ROW = st.fixed_dictionaries(
    {
        "plan": st.sampled_from(["gold", "silver"]),
        "city": st.sampled_from(["Bern", "Zürich", ""]) | st.text(max_size=4),
        "months": st.integers(0, 71),
        "calls": st.integers(-(2**53), 2**53),
        "charge": st.floats(0, 3e38, allow_subnormal=True),
        "credit": st.floats(-3e38, 3e38) | st.just(NAN),
        "active": st.booleans(),
        "autopay": st.booleans(),
    }
)
TABLE = st.lists(ROW, min_size=1, max_size=4)


def expect(rows: Rows, score: Score) -> np.ndarray:
    """Return what the bundle says of rows in which NaN and the empty string stand for what is missing."""
    plain = [
        {
            **row,
            "city": row["city"] or None,
            "credit": None if row["credit"] != row["credit"] else row["credit"],
        }
        for row in rows
    ]
    return score(plain)


@pytest.fixture(scope="module")
def ask(server: Any) -> Iterator[Callable[[bytes], Any]]:
    """Return a function that sends bytes to ModelInfer, and returns bytes or the status."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def run(message: bytes) -> Any:
            try:
                return call(message, timeout=30)
            except grpc.RpcError as error:
                return error.code()  # type: ignore[attr-defined]

        yield run


def make_message(rows: Rows, model: str, datatypes: dict[str, str], raw: bool) -> Any:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    request = pb.ModelInferRequest(model_name=model)
    for name, datatype in datatypes.items():
        values = [row[name] for row in rows]
        if datatype == "BYTES":
            values = [value.encode(errors="replace") for value in values]
        entry = request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
        if not raw:
            getattr(entry.contents, f"{FIELDS[datatype]}_contents").extend(values)
        elif datatype == "BYTES":
            request.raw_input_contents.append(
                b"".join(struct.pack("<I", len(value)) + value for value in values)
            )
        else:
            request.raw_input_contents.append(np.array(values, dtype=PACKED[datatype]).tobytes())
    return request


def read_scores(answer: bytes) -> list[float]:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    response = pb.ModelInferResponse.FromString(answer)
    if response.raw_output_contents:
        scores: list[float] = np.frombuffer(response.raw_output_contents[0], dtype="<f8").tolist()
        return scores
    return list(response.outputs[0].contents.fp64_contents)


@given(rows=TABLE, raw=st.booleans())
@shared
def test_good_grpc_requests_are_scored(
    ask: Any, model_name: str, datatypes: dict[str, str], score: Score, rows: Rows, raw: bool
) -> None:
    answer = ask(make_message(rows, model_name, datatypes, raw).SerializeToString())
    assert isinstance(answer, bytes), answer
    np.testing.assert_allclose(read_scores(answer), expect(rows, score), rtol=0, atol=1e-6)


@given(rows=TABLE, raw=st.booleans(), data=st.data())
@shared
def test_spoiled_grpc_messages_are_refused_or_scored_right(
    ask: Any,
    model_name: str,
    datatypes: dict[str, str],
    score: Score,
    rows: Rows,
    raw: bool,
    data: st.DataObject,
) -> None:
    message = bytearray(make_message(rows, model_name, datatypes, raw).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(message) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                message[place] = data.draw(st.integers(0, 255))
            case 1:
                del message[place : place + data.draw(st.integers(1, 8))]
            case _:
                message[place:place] = data.draw(st.binary(max_size=8))
        if not message:
            break
    answer = ask(bytes(message))
    if not isinstance(answer, bytes):
        assert answer in REFUSED
        return
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    request = pb.ModelInferRequest.FromString(bytes(message))  # what was read, if it was scored
    columns: dict[str, list[Any]] = {}
    for place, entry in enumerate(request.inputs):
        if request.raw_input_contents:
            columns[entry.name] = read_raw(entry.datatype, request.raw_input_contents[place])
        else:
            ((_, values),) = entry.contents.ListFields()
            columns[entry.name] = [value.decode() if isinstance(value, bytes) else value for value in values]
    if any(entry.datatype != datatypes.get(entry.name) for entry in request.inputs):
        return  # another datatype that the column takes, too
    columns = {name: columns[name] for name in datatypes}
    sent = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if request.outputs and request.outputs[0].name != "churn_probability":
        return
    np.testing.assert_allclose(read_scores(answer), expect(sent, score), rtol=0, atol=1e-6)


def read_raw(datatype: str, raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, dtype=PACKED.get(datatype, "u1")).tolist()  # type: ignore[no-any-return]
    values, position = [], 0
    while position < len(raw):
        end = position + 4 + int.from_bytes(raw[position : position + 4], "little")
        values.append(raw[position + 4 : end].decode())
        position = end
    return values


@given(rows=TABLE, binary=st.booleans(), data=st.data())
@shared
def test_spoiled_rest_bodies_are_refused_or_scored_right(
    server: Any,
    model_name: str,
    datatypes: dict[str, str],
    score: Score,
    rows: Rows,
    binary: bool,
    data: st.DataObject,
) -> None:
    """Whole or with a few bytes changed: an answer of 200 to a whole one is the bundle's; none is a 5xx."""
    inputs, tail = [], b""
    for name, datatype in datatypes.items():
        values = [row[name] for row in rows]
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(rows)]}
        if binary and datatype != "BYTES":
            raw = np.array(values, dtype=PACKED[datatype]).tobytes()
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            entry["data"] = [None if value != value else value for value in values]
        inputs.append(entry)
    text = json.dumps({"inputs": inputs}, ensure_ascii=data.draw(st.booleans())).encode(errors="replace")
    body = bytearray(text + tail)
    changes = data.draw(st.integers(0, 3))
    for _ in range(changes):
        place = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[place] = data.draw(st.integers(0, 255))
        else:
            body[place : place + 1] = data.draw(
                st.sampled_from([b"", b'"', b"1", b"[", b"{", b"e9", b"null", b",:"])
            )
    headers = {"inference-header-content-length": str(len(text))} if tail else {}
    answer = server.client.post(f"/v2/models/{model_name}/infer", content=bytes(body), headers=headers)
    assert 200 <= answer.status_code < 500, answer.text
    if changes:
        if answer.status_code != 200:
            assert answer.json()["error"]
            return
        if tail:
            return  # which bytes are values now?
        columns = {entry["name"]: entry["data"] for entry in json.loads(bytes(body))["inputs"]}
        rows = [{name: columns[name][row] for name in datatypes} for row in range(len(columns["months"]))]
    assert answer.status_code == 200, answer.text
    sent = [{**row, "city": row["city"].encode(errors="replace").decode()} for row in rows]
    np.testing.assert_allclose(answer.json()["outputs"][0]["data"], expect(sent, score), rtol=0, atol=1e-6)
