"""The V2 client against a small HTTP server of the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.errors import NotFoundError, RefusedError, UnreachableError
from clients.inference import InferenceClient, build_request
from tenure.contract import Contract

CONTRACT = Contract.model_validate(
    {
        "columns": [
            {"name": "customer", "role": "id", "type": "string"},
            {"name": "churn", "role": "label", "type": "boolean"},
            {"name": "months", "type": "integer"},
            {"name": "charges", "type": "float", "nullable": True},
            {"name": "plan", "type": "string"},
            {"name": "partner", "type": "boolean"},
        ]
    }
)
ROW = {"months": 3, "charges": 1.5, "plan": "DSL", "partner": True}


@dataclass
class Server:
    url: str = ""
    status: int = 200
    answer: Any = None
    seen: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.seen.append((self.path, headers, body))
            data = state.answer if isinstance(state.answer, bytes) else json.dumps(state.answer).encode()
            self.send_response(state.status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}"
    yield state
    http.shutdown()
    http.server_close()
    thread.join(10)


@pytest.fixture
def client(server: Server) -> Iterator[InferenceClient]:
    with InferenceClient(server.url, "telco-default.tenure.example.com") as client:
        yield client


def answer(rows: int, **extra: Any) -> dict[str, Any]:
    outputs = [
        {"name": "churn_probability", "datatype": "FP64", "shape": [rows], "data": [0.25] * rows},
        {"name": "churn", "datatype": "BOOL", "shape": [rows], "data": [False] * rows},
        *({"name": name, "datatype": "BYTES", "shape": [rows], "data": data} for name, data in extra.items()),
    ]
    return {"model_name": "telco", "model_version": "abc", "outputs": outputs}


def test_asks_and_reads(server: Server, client: InferenceClient) -> None:
    server.answer = answer(2)
    found = client.predict("telco", [ROW, {**ROW, "charges": None}], CONTRACT, customer_ids=["a", "b"])
    assert (found.version, found.probabilities, found.churn) == ("abc", [0.25, 0.25], [False, False])
    assert found.reasons is None
    path, headers, body = server.seen[0]
    assert path == "/v2/models/telco/infer"
    assert headers["host"] == "telco-default.tenure.example.com"
    assert "x-customer-id" not in headers
    assert body == {
        "inputs": [
            {"name": "months", "shape": [2], "datatype": "INT64", "data": [3, 3]},
            {"name": "charges", "shape": [2], "datatype": "FP64", "data": [1.5, None]},
            {"name": "plan", "shape": [2], "datatype": "BYTES", "data": ["DSL", "DSL"]},
            {"name": "partner", "shape": [2], "datatype": "BOOL", "data": [True, True]},
            {"name": "customer", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
        ]
    }


def test_variant_customer_and_reasons_are_asked_for(server: Server, client: InferenceClient) -> None:
    server.answer = answer(1, reasons=['[["months", 0.5]]'])
    found = client.predict("t", [ROW], CONTRACT, customer_ids=["a"], variant="b01", reasons=True)
    assert found.reasons == ['[["months", 0.5]]']
    _, headers, body = server.seen[0]
    assert (headers["x-tenure-variant"], headers["x-customer-id"]) == ("b01", "a")
    assert [output["name"] for output in body["outputs"]] == ["churn_probability", "churn", "reasons"]


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, {"error": "months: datatype FP64"}, RefusedError, "months: datatype FP64"),
        (404, {"error": "model nope not found"}, NotFoundError, "nope"),
        (503, b"no healthy upstream", UnreachableError, "no healthy upstream"),
        (200, b"<html>", RefusedError, "not JSON"),
        (200, [], RefusedError, "not a JSON object"),
        (200, {"outputs": []}, RefusedError, "churn_probability"),
    ],
)
def test_other_answers_are_told(
    server: Server, client: InferenceClient, status: int, body: Any, error: type[Exception], message: str
) -> None:
    server.status, server.answer = status, body
    with pytest.raises(error, match=message):
        client.predict("telco", [ROW], CONTRACT)


def test_metadata_and_readiness(server: Server, client: InferenceClient) -> None:
    server.answer = {"name": "telco", "ready": True}
    assert client.metadata("telco", variant="b01") == {"name": "telco", "ready": True}
    assert server.seen[0][1]["x-tenure-variant"] == "b01"
    assert client.ready("telco")
    server.answer = {"name": "telco", "ready": False}
    assert not client.ready("telco")
    server.status = 503
    assert not client.ready("telco")


def test_silent_address_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with InferenceClient("http://127.0.0.1:9", None) as client:
        assert not client.ready("telco")
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
            client.metadata("telco")


@pytest.mark.parametrize(
    ("rows", "ids", "message"),
    [
        ([], None, "no row"),
        ([ROW], ["a", "b"], "2 customer ids for 1 rows"),
        ([{**ROW, "charges": float("inf")}], None, "charges: inf"),
        ([{**ROW, "plan": ["DSL"]}], None, "plan: a list"),
    ],
)
def test_impossible_requests_are_refused(rows: Any, ids: Any, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        build_request(rows, CONTRACT, customer_ids=ids)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "months": st.none() | st.integers(-(2**62), 2**62).map(np.int64),
                "charges": st.sampled_from([pd.NA, pd.NaT, None])
                | st.floats(allow_infinity=False).map(np.float64),
                "plan": st.none() | st.text(),
                "partner": st.booleans().map(np.bool_) | st.just(pd.NA),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_request_survives_json(rows: list[dict[str, Any]]) -> None:
    request = build_request(rows, CONTRACT)
    assert json.loads(json.dumps(request, allow_nan=False)) == request
    for tensor in request["inputs"]:
        assert tensor["shape"] == [len(rows)]
        for row, value in zip(rows, tensor["data"], strict=True):
            given = row[tensor["name"]]
            assert (value is None) if pd.isna(given) else value == given
