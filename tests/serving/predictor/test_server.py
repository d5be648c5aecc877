from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenure.bundle import Bundle

Rows = list[dict[str, Any]]
MakeBody = Callable[..., dict[str, Any]]
Start = Callable[..., Any]
DTYPES = {"BOOL": np.bool_, "INT64": np.int64, "FP64": np.float64, "BYTES": np.object_}


def test_answers_v2_and_v1_alike(
    server: Any,
    model_name: str,
    make_body: MakeBody,
    rows: Rows,
    score: Callable[[Rows], np.ndarray],
    bundle: Bundle,
) -> None:
    expected = score(rows[:70]).tolist()
    answer = server.infer(make_body(rows[:70]))
    assert answer.status_code == 200
    assert answer.json()["model_version"] == bundle.version
    assert answer.json()["outputs"][0]["data"] == expected
    event = {"ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-specversion": "1.0", "ce-contenttype": "x"}
    for headers in ({"content-type": "application/json"}, {}, event):
        answer = server.client.post(
            f"/v1/models/{model_name}:predict",
            content=json.dumps({"instances": rows[:70], "parameters": {"reasons": True}}),
            headers=headers,
        )
        assert answer.status_code == 200
        document = answer.json()
        assert document["model_version"] == bundle.version
        assert [row["churn_probability"] for row in document["predictions"]] == expected
        assert [row["churn"] for row in document["predictions"]] == [
            probability >= bundle.threshold for probability in expected
        ]
        assert document["predictions"][0]["reasons"][0].keys() == {"feature", "contribution"}


def test_tells_the_contracts_tensors(
    server: Any, model_name: str, datatypes: dict[str, str], bundle: Bundle
) -> None:
    document = server.client.get(f"/v2/models/{model_name}").json()
    assert document["name"] == model_name
    assert document["versions"] == [bundle.version]
    assert {entry["name"]: entry["datatype"] for entry in document["inputs"]} == {
        **datatypes,
        "client": "BYTES",
    }
    assert {entry["name"]: entry["datatype"] for entry in document["outputs"]} == {
        "churn_probability": "FP64",
        "churn": "BOOL",
    }
    assert all(entry["shape"] == [-1] for entry in [*document["inputs"], *document["outputs"]])


def test_is_live_and_ready(server: Any, model_name: str) -> None:
    for path in (
        "/",
        "/v2/health/live",
        "/v2/health/ready",
        f"/v2/models/{model_name}/ready",
        f"/v1/models/{model_name}",
    ):
        assert server.client.get(path).status_code == 200, path
    assert server.client.get("/v2/models/other/ready").status_code == 404
    assert server.client.get(f"/v2/models/{model_name}/infer").status_code == 405


def test_serves_the_version_that_it_announces_and_no_other(
    server: Any, model_name: str, bundle: Bundle
) -> None:
    get, path = server.client.get, f"/v2/models/{model_name}"
    (version,) = get(path).json()["versions"]
    assert version == bundle.version
    for ending in ("", "/ready"):
        answer = get(f"{path}/versions/{version}{ending}")
        assert answer.status_code == 200, answer.text
        assert answer.json() == get(path + ending).json()
        answer = get(f"{path}/versions/2{ending}")
        assert answer.status_code == 404
        assert answer.json() == {"error": f"version 2 of {model_name} is not served here, only {version} is"}
        answer = get(f"/v2/models/other/versions/{version}{ending}")
        assert answer.status_code == 404
        assert "other" in answer.json()["error"]


@pytest.mark.parametrize("binary", [True, False])
def test_serves_tritonclient(
    server: Any,
    model_name: str,
    datatypes: dict[str, str],
    rows: Rows,
    score: Callable[[Rows], np.ndarray],
    bundle: Bundle,
    binary: bool,
) -> None:
    full = [row for row in rows if None not in row.values()][:5]
    inputs = []
    for name, datatype in datatypes.items():
        array = np.array([row[name] for row in full], dtype=DTYPES[datatype])
        inputs.append(triton.InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    with triton.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model_name)
        assert client.get_model_metadata(model_name)["versions"] == [bundle.version]
        assert client.get_model_metadata(model_name, bundle.version)["versions"] == [bundle.version]
        assert client.is_model_ready(model_name, bundle.version)
        assert not client.is_model_ready(model_name, "2")
        result = client.infer(model_name, inputs, request_id="q")
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("reasons", "churn")]
        chosen = client.infer(model_name, inputs, outputs=outputs)
        with pytest.raises(triton.InferenceServerException, match="plan: missing"):
            client.infer(model_name, inputs[1:])
    assert (result.get_response()["id"], result.get_response()["model_version"]) == ("q", bundle.version)
    expected = score(full)
    np.testing.assert_array_equal(result.as_numpy("churn_probability"), expected)
    np.testing.assert_array_equal(result.as_numpy("churn"), expected >= bundle.threshold)
    assert result.as_numpy("reasons") is None
    assert [entry["name"] for entry in chosen.get_response()["outputs"]] == ["reasons", "churn"]
    assert len(chosen.as_numpy("reasons")) == 5


def test_refuses_with_the_right_status(server: Any, model_name: str, make_body: MakeBody, rows: Rows) -> None:
    post = server.client.post
    wrong = {**rows[0], "months": -1}
    predict, infer = f"/v1/models/{model_name}:predict", f"/v2/models/{model_name}/infer"
    answers = [
        (server.infer(make_body([wrong])), 400, "months: row 0: -1 is below"),
        (post(predict, json={"instances": [wrong]}), 400, "months: row 0: -1 is below"),
        (post(predict, json={"instances": 5}), 400, "instances"),
        (post(predict, json=[1]), 400, "instances"),
        (post(predict, content=b"{", headers={"content-type": "application/json"}), 400, "not JSON"),
        (post(predict, content=b"NaN"), 400, "not JSON"),
        (post(predict, content=b"[" * 90_000), 400, "not JSON"),
        (post("/v1/models/other:predict", json={"instances": rows[:1]}), 404, "other"),
        (post("/v2/models/other/infer", json=make_body(rows[:1])), 404, "other"),
        (server.infer(make_body(rows * 2)), 400, "plan: has 400 rows, at most 300"),
        (post(infer, content=b" " * 200_001), 413, "more than 200000 bytes"),
        (post(predict, content=iter([b" " * 150_000] * 2)), 413, "more than 200000 bytes"),
        (post(f"/v2/repository/models/{model_name}/unload"), 403, "InferenceService"),
        (post(f"/v2/repository/models/{model_name}/load"), 403, "InferenceService"),
    ]
    for answer, status, message in answers:
        assert answer.status_code == status, answer.text
        assert message in answer.json()["error"]
    assert server.infer(make_body(rows[:1])).status_code == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data(), document=JSON)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_v1_json_is_refused_or_scored_right(
    server: Any,
    model_name: str,
    rows: Rows,
    score: Callable[[Rows], np.ndarray],
    data: st.DataObject,
    document: Any,
) -> None:
    sent = data.draw(
        st.sampled_from(
            [
                document,
                {"instances": document},
                {"instances": [{**rows[0], data.draw(st.sampled_from(sorted(rows[0]))): document}]},
                {"instances": rows[:2], "parameters": document},
            ]
        )
    )
    answer = server.client.post(
        f"/v1/models/{model_name}:predict",
        content=json.dumps(sent),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        found = [row["churn_probability"] for row in answer.json()["predictions"]]
        assert found == score(sent["instances"]).tolist()


def test_counts_what_it_answers(start: Start, make_body: MakeBody, rows: Rows, bundle: Bundle) -> None:
    server = start()
    server.wait_until_ready()
    churn = server.infer(make_body(rows[:100])).json()["outputs"][1]["data"]
    server.infer({"inputs": []})
    lines = dict(
        line.rsplit(" ", 1)
        for line in server.client.get("/metrics").text.splitlines()
        if line.startswith("churn_")
    )
    version = f'version="{bundle.version}"'
    assert float(lines[f'churn_predictions_total{{outcome="churn",{version}}}']) == sum(churn)
    assert float(lines[f'churn_predictions_total{{outcome="stay",{version}}}']) == 100 - sum(churn)
    assert float(lines[f"churn_score_count{{{version}}}"]) == 100
    assert float(lines[f'churn_request_seconds_count{{protocol="v2",{version}}}']) == 2
    assert float(lines[f'churn_requests_total{{protocol="v2",status="refused",{version}}}']) == 1
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "xgboost" not in maps, "XGBoost is only for reasons"
    server.infer(make_body(rows[:1], parameters={"reasons": True}))
    assert "xgboost" in Path(f"/proc/{server.process.pid}/maps").read_text()
    server.close()
    assert server.process.returncode == 0
    (line,) = server.log.read_text().splitlines()
    assert f"version {bundle.version} is ready" in line


def test_listens_where_it_is_told(server: Any) -> None:
    listening = {
        (entry.laddr.ip.removeprefix("::ffff:"), entry.laddr.port)
        for entry in psutil.net_connections()
        if entry.pid == server.process.pid and entry.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", server.http_port), ("127.0.0.1", server.grpc_port)}


def test_finishes_requests_in_flight_before_it_ends(
    start: Start, model_name: str, make_body: MakeBody, rows: Rows
) -> None:
    server = start()
    server.wait_until_ready()
    body = json.dumps(make_body(rows[:1])).encode()
    head = f"POST /v2/models/{model_name}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
        connection.sendall(head.encode() + body[:50])
        server.client.get("/v2/health/live")  # by now the server has read the first half
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", server.http_port)) != 0:
                    break
        assert server.process.poll() is None
        connection.sendall(body[50:])
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"churn_probability" in answer
    assert server.process.wait(20) == 0


def test_refuses_an_altered_bundle(start: Start, bundle_dir: Path, tmp_path: Path) -> None:
    altered = tmp_path / "bundle"
    shutil.copytree(bundle_dir, altered)
    model = altered / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    server = start(model_dir=altered)
    assert server.process.wait(60) == 1
    (line,) = server.log.read_text().splitlines()
    assert line.startswith("predictor: the bundle cannot be served: ")
    assert "model.onnx" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_dir=/nowhere"], "/nowhere"),
        (["--digest=" + "0" * 64], "expected 0000"),
        (["--max_rows=none"], "--max_rows"),
    ],
)
def test_says_in_one_line_why_it_does_not_start(start: Start, flags: list[str], message: str) -> None:
    server = start(*flags)
    assert server.process.wait(60) == 1
    (line,) = server.log.read_text().splitlines()
    assert message in line


@pytest.mark.parametrize("flag", ["http_port", "grpc_port"])
def test_does_not_share_a_port(start: Start, server: Any, flag: str) -> None:
    other = start(f"--{flag}={getattr(server, flag)}")
    assert other.process.wait(60) == 1
    (line,) = other.log.read_text().splitlines()
    assert "cannot listen on" in line
