from __future__ import annotations

import base64
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from serving.predictor.channel import Channel
from serving.predictor.errors import StartError
from serving.predictor.events import Events, Inference

Answer = Callable[[int], int | None]
SECONDS = 30


class Sink(http.server.ThreadingHTTPServer):
    """A real sink. It answers what it is told to, None: nothing until the test ends."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Answer = lambda number: 200
        self.batches: list[tuple[str, list[dict[str, Any]]]] = []
        self.posts = 0
        self.authorization: str | None = None
        self.ending = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/events/telco/v1"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all batches that were answered with 200."""
        with self.lock:
            return [event for _, batch in self.batches for event in batch]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/cloudevents-batch+json"
        self.server.authorization = self.headers["authorization"]
        with self.server.lock:
            self.server.posts += 1
            number = self.server.posts
        status = self.server.answer(number)
        if status is None:
            self.server.ending.wait(SECONDS)
            self.close_connection = True
            return
        if status == 200:
            with self.server.lock:
                self.server.batches.append((self.path, json.loads(body)))
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.ending.set()
        server.shutdown()
        thread.join()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def make_events(url: str, **more: Any) -> tuple[Events, CollectorRegistry]:
    registry = CollectorRegistry()
    names = {"service": "telco", "namespace": "churn", "version": "v1", "source": "http://me/"}
    limits = {"capacity": 1000, "size": 1_000_000}
    events = Events(url, more.pop("mode", "all"), **names, **{**limits, **more}, registry=registry)
    events.start()
    return events, registry


def make_inference(events: Events, number: int, **more: Any) -> Inference:
    moment = 1_767_225_600_000_000_000 + number * 1000
    fields = {"request": b'{"n": %d}' % number, "is_json": True, "response": b'{"answer": %d}' % number}
    return Inference(events.make_id(None), moment, moment + 1_500_000, **{**fields, **more})


@pytest.mark.parametrize("token", [None, "secret"])
def test_batches_carry_the_token_that_the_sink_asks_for(sink: Sink, token: str | None) -> None:
    events, _ = make_events(sink.url, token=token)
    events.log(make_inference(events, 1))
    wait_until(lambda: events.sent == 2)
    events.close(SECONDS)
    assert sink.authorization == (f"Bearer {token}" if token else None)


def test_events_have_the_attributes_of_the_agents(sink: Sink) -> None:
    events, registry = make_events(sink.url)
    events.log(make_inference(events, 7))
    wait_until(lambda: events.sent == 2)
    request, response = sink.events
    assert request == {
        "id": response["id"],
        "type": "org.kubeflow.serving.inference.request",
        "specversion": "1.0",
        "source": "http://me/",
        "time": "2026-01-01T00:00:00.000007Z",
        "recordedtime": "2026-01-01T00:00:00.000007Z",
        "datacontenttype": "application/json",
        "inferenceservicename": "telco",
        "namespace": "churn",
        "version": "v1",
        "component": "predictor",
        "endpoint": "",
        "metadata": "{}",
        "data": {"n": 7},
    }
    assert response["type"] == "org.kubeflow.serving.inference.response"
    assert response["time"] == "2026-01-01T00:00:00.001507Z"
    assert response["data"] == {"answer": 7}
    text = generate_latest(registry).decode()
    assert 'predictor_events_total{outcome="sent"} 2.0' in text
    assert "predictor_events_waiting 0.0" in text
    events.close(5)


def test_refused_request_is_logged_without_a_response(sink: Sink) -> None:
    events, _ = make_events(sink.url)
    events.log(make_inference(events, 1, request=b"\xffnot JSON", is_json=False, response=None))
    wait_until(lambda: events.sent == 1)
    (event,) = sink.events
    assert base64.b64decode(event["data_base64"]) == b"\xffnot JSON"
    assert "data" not in event
    events.close(5)


@pytest.mark.parametrize("mode", ["request", "response"])
def test_mode_leaves_one_half_out(sink: Sink, mode: str) -> None:
    events, _ = make_events(sink.url, mode=mode)
    events.log(make_inference(events, 1))
    events.log(make_inference(events, 2, response=None))
    events.log(make_inference(events, 3))
    events.close(SECONDS)
    wanted = 3 if mode == "request" else 2
    assert [event["type"].rsplit(".")[-1] for event in sink.events] == [mode] * wanted
    assert (events.queued, events.sent, events.dropped) == (wanted, wanted, 0)


def test_ids_are_taken_over_or_unique() -> None:
    events, _ = make_events("http://127.0.0.1:9/")
    assert events.make_id("given") == "given"
    made = {events.make_id(given) for given in (None, "", "x" * 201, "a\nb", None)}
    assert len(made) == 5
    assert not made & {"", "x" * 201, "a\nb"}
    events.close(0)


def test_many_are_sent_in_batches_in_order(sink: Sink) -> None:
    events, _ = make_events(sink.url)
    for number in range(900):
        events.log(make_inference(events, number))
    events.close(SECONDS)
    assert [event["data"]["n"] for event in sink.events if "n" in event["data"]] == list(range(900))
    assert (events.queued, events.sent, events.dropped, events.waiting) == (1800, 1800, 0, 0)
    assert len(sink.batches) < 20
    assert sink.batches[0][0] == "/events/telco/v1"


def test_sink_that_comes_back_gets_what_waited(sink: Sink) -> None:
    sink.answer = lambda number: 503 if number < 4 else 200
    events, _ = make_events(sink.url)
    for number in range(10):
        events.log(make_inference(events, number))
    wait_until(lambda: events.sent == 20)
    assert events.dropped == 0
    events.close(5)


def test_sink_that_refuses_a_batch_is_not_asked_again(sink: Sink) -> None:
    sink.answer = lambda number: 400 if number == 1 else 200
    events, _ = make_events(sink.url)
    events.log(make_inference(events, 1))
    wait_until(lambda: events.dropped == 2)
    events.log(make_inference(events, 2))
    wait_until(lambda: events.sent == 2)
    assert sink.posts == 2
    events.close(5)


@pytest.mark.parametrize("limits", [{"capacity": 5}, {"size": 5 * 25}])
def test_full_queue_drops_and_counts(sink: Sink, limits: dict[str, int]) -> None:
    sink.answer = lambda number: None
    events, _ = make_events(sink.url, **limits)
    began = time.monotonic()
    for number in range(100, 200):
        events.log(make_inference(events, number))
    assert time.monotonic() - began < 5  # nothing waits for the sink
    assert events.queued + events.dropped == 200
    assert 0 < events.queued <= 10
    assert events.waiting <= 5
    events.close(0.2)
    assert (events.sent, events.dropped) == (0, 200)


def test_dead_sink_drops_at_the_end_what_it_could_not_take() -> None:
    events, _ = make_events("http://127.0.0.1:9/")
    for number in range(500):
        events.log(make_inference(events, number))
    events.close(0.3)
    assert (events.queued, events.sent, events.dropped, events.waiting) == (1000, 0, 1000, 0)


@pytest.mark.parametrize("url", ["", "sink:80", "ftp://sink/", "http:///path", "http://sink:port/"])
def test_address_must_be_one_of_http(url: str) -> None:
    with pytest.raises(StartError, match="TENURE_LOGGER_URL"):
        Channel(url)


def test_server_logs_every_way_in(
    start: Any, sink: Sink, make_body: Any, rows: list[dict[str, Any]], model_name: str, score: Any
) -> None:
    server = start(TENURE_LOGGER_URL=sink.url)
    server.wait_until_ready()
    client = {"name": "client", "shape": [2], "datatype": "BYTES", "data": ["c1", "c2"]}
    body = make_body(rows[:2])
    body["inputs"].append(client)
    answer = server.infer(body, headers={"ce-id": "plain"})
    assert answer.status_code == 200
    # Another answer was asked for than the ledger needs, and it may say the same otherwise.
    asked = {**body, "outputs": [{"name": "churn"}]}
    assert server.infer(asked, headers={"ce-id": "asked"}).status_code == 200
    empty = make_body([{**rows[0], "city": ""}])
    assert server.infer(empty, headers={"ce-id": "empty"}).status_code == 200
    assert server.infer({"inputs": []}, headers={"ce-id": "refused"}).status_code == 400
    instances = [{**rows[0], "city": "", "client": "c1"}]
    path = f"/v1/models/{model_name}:predict"
    v1 = server.client.post(path, json={"instances": instances}, headers={"ce-id": "v1"})
    assert v1.status_code == 200
    wrong = server.client.post(path, json={"instances": 7}, headers={"ce-id": "v1-refused"})
    assert wrong.status_code == 400
    raw = np.array([12], dtype="<i8").tobytes()
    binary = make_body([rows[0]])
    months = next(tensor for tensor in binary["inputs"] if tensor["name"] == "months")
    del months["data"]
    months["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({**binary, "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(text)), "ce-id": "binary"}
    path = f"/v2/models/{model_name}/infer"
    assert server.client.post(path, content=text + raw, headers=headers).status_code == 200
    assert server.client.get("/v2/health/live").status_code == 200
    wait_until(lambda: len(sink.events) == 12)

    halves = {(event["id"], event["type"].rsplit(".")[-1]): event for event in sink.events}
    assert len(halves) == 12
    data = {key: event.get("data") for key, event in halves.items()}
    assert data["plain", "request"] == body
    assert data["plain", "response"] == answer.json()
    assert data["asked", "request"] == asked
    assert data["asked", "response"]["outputs"] == answer.json()["outputs"]
    (city,) = [tensor for tensor in data["empty", "request"]["inputs"] if tensor["name"] == "city"]
    assert city["data"] == [None]
    assert json.loads(base64.b64decode(halves["refused", "request"]["data_base64"])) == {"inputs": []}
    assert data["v1", "request"] == {"instances": [{**instances[0], "city": None}]}
    assert data["v1", "response"] == v1.json()
    assert ("v1-refused", "request") in halves
    (months,) = [tensor for tensor in data["binary", "request"]["inputs"] if tensor["name"] == "months"]
    assert months["data"] == [12]
    (expected,) = score([{**rows[0], "months": 12}])
    outputs = {tensor["name"]: tensor["data"] for tensor in data["binary", "response"]["outputs"]}
    assert outputs["churn_probability"] == [pytest.approx(expected)]
    assert ("refused", "response") not in halves
    text = server.client.get("/metrics").text
    assert 'predictor_events_total{outcome="sent"} 12.0' in text
    assert 'predictor_events_total{outcome="dropped"} 0.0' in text


@pytest.mark.parametrize("logged", ["all", "direct"])
def test_grpc_is_logged_as_rest_would_say_it(
    start: Any,
    sink: Sink,
    rows: list[dict[str, Any]],
    model_name: str,
    datatypes: dict[str, str],
    logged: str,
    make_body: Any,
) -> None:
    """With `direct` the agent has logged what comes from here; the address may leave the version open."""
    server = start(TENURE_LOGGER_URL=f"{sink.url}/{{version}}", TENURE_LOGGER_SCOPE=logged)
    server.wait_until_ready()
    if logged == "direct":
        # As an agent says it: the peer counts, not whom it speaks of.
        told = server.infer(make_body([rows[0]]), headers={"x-forwarded-for": "192.0.2.7"})
        assert told.status_code == 200
    full = [row for row in rows if row["calls"] is not None and row["autopay"] is not None][:2]
    columns = {name: [row[name] for row in full] for name in full[0]}
    columns["city"] = ["", "Bern"]
    jobs = [
        {"kind": kind, "columns": {**columns, "client": ["c1", "c2"]}, "outputs": ["churn"]}
        for kind in ("raw", "typed")
    ]
    address = f"127.0.0.1:{server.grpc_port}"
    order = {"address": address, "model": model_name, "datatypes": datatypes, "jobs": jobs}
    script = Path(__file__).with_name("triton_grpc.py")
    subprocess.run([sys.executable, str(script)], input=json.dumps(order).encode(), check=True, timeout=60)
    wait_until(lambda: len(sink.events) == 4)
    version = sink.events[0]["version"]
    assert {path for path, _ in sink.batches} == {f"/events/telco/v1/{version}"}
    pairs = list(zip(sink.events[::2], sink.events[1::2], strict=True))
    assert len({request["id"] for request, _ in pairs}) == 2
    for request, response in pairs:
        assert request["id"] == response["id"]
        data = {tensor["name"]: tensor["data"] for tensor in request["data"]["inputs"]}
        assert data == {**columns, "city": [None, "Bern"], "client": ["c1", "c2"]}
        names = [tensor["name"] for tensor in response["data"]["outputs"]]
        assert names == ["churn_probability", "churn"]


def test_end_sends_what_waits(start: Any, sink: Sink, make_body: Any, row: dict[str, Any]) -> None:
    """SIGTERM comes while the sink is away; what it gets in the grace time is everything."""
    back = threading.Event()
    sink.answer = lambda number: 200 if back.is_set() else 503
    server = start(TENURE_LOGGER_URL=sink.url, TENURE_GRACE_SECONDS="20")
    server.wait_until_ready()
    for _ in range(300):
        assert server.infer(make_body([row])).status_code == 200
    wait_until(lambda: sink.posts > 0)
    server.process.terminate()
    posts = sink.posts
    wait_until(lambda: sink.posts > posts)
    back.set()
    assert server.process.wait(SECONDS) == 0
    assert len(sink.events) == 600
    assert len({event["id"] for event in sink.events}) == 300


@pytest.mark.parametrize("alive", [True, False])
def test_sink_without_an_answer_slows_nobody(
    start: Any, sink: Sink, make_body: Any, row: dict[str, Any], alive: bool
) -> None:
    sink.answer = lambda number: None
    url = sink.url if alive else "http://127.0.0.1:9/"
    server = start(TENURE_LOGGER_URL=url, TENURE_LOGGER_QUEUE="10", TENURE_GRACE_SECONDS="0")
    server.wait_until_ready()
    statuses = [server.infer(make_body([row])).status_code for _ in range(100)]
    assert statuses == [200] * 100
    text = server.client.get("/metrics").text
    assert 'predictor_events_total{outcome="dropped"} 180.0' in text
    assert 'predictor_events_total{outcome="queued"} 20.0' in text
    server.process.terminate()
    assert server.process.wait(SECONDS) == 0


def test_server_does_not_start_with_a_wrong_address(start: Any) -> None:
    server = start(TENURE_LOGGER_URL="nowhere")
    assert server.process.wait(SECONDS) == 1
    assert "TENURE_LOGGER_URL" in server.log.read_text()
