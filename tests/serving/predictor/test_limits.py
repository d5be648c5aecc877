"""Clients that are slow, too many, or send too much: real sockets against a real server."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psutil
import pytest

Rows = list[dict[str, Any]]
MakeBody = Callable[..., dict[str, Any]]
Start = Callable[..., Any]


@pytest.fixture(scope="module")
def strict(start: Start) -> Any:
    """A server with narrow limits."""
    server = start(
        "--header_seconds=1", "--body_seconds=2", "--max_header_bytes=2000", TENURE_KEEP_ALIVE_SECONDS="1"
    )
    server.wait_until_ready()
    return server


@pytest.fixture
def connection(strict: Any) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", strict.http_port), timeout=15) as opened:
        yield opened


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def test_a_slow_header_is_given_up(connection: socket.socket) -> None:
    connection.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n")
    began = time.monotonic()
    answer = read_all(connection)
    assert 0.5 < time.monotonic() - began < 10
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert (
        json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        == "the request's header was not complete in time"
    )


def test_a_header_that_comes_byte_by_byte_is_given_up(connection: socket.socket) -> None:
    began = time.monotonic()
    connection.sendall(b"GET /")
    with contextlib.suppress(OSError):  # reset or broken pipe, as it happens
        while time.monotonic() - began < 15:
            connection.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() - began < 10


def test_a_slow_body_is_given_up(connection: socket.socket, model_name: str) -> None:
    head = f"POST /v2/models/{model_name}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{"
    connection.sendall(head.encode())
    began = time.monotonic()
    answer = read_all(connection)
    assert 1 < time.monotonic() - began < 12
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the request's body was not complete in time" in answer


@pytest.mark.parametrize("first", [b"", b"\r\n\r\n"])
def test_a_connection_that_says_nothing_is_closed(connection: socket.socket, first: bytes) -> None:
    connection.sendall(first)
    assert read_all(connection) == b""


def test_an_idle_connection_is_closed(connection: socket.socket) -> None:
    connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    began = time.monotonic()
    assert read_all(connection).startswith(b"HTTP/1.1 200 ")
    assert 0.5 < time.monotonic() - began < 10


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nX: " + b"a" * 3000,  # never ends
        b"GET / HTTP/1.1\r\nX: " + b"a" * 3000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 1000 + b"\r\n",
        b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_long_headers_are_refused(connection: socket.socket, sent: bytes) -> None:
    for start in range(0, len(sent), 1400):
        try:
            connection.sendall(sent[start : start + 1400])
        except OSError:
            break
    answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"more than 2000 bytes" in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\1\2\3\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    assert read_all(connection)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404")


def test_a_body_that_is_too_long_is_refused_before_it_comes(
    connection: socket.socket, model_name: str
) -> None:
    head = f"POST /v2/models/{model_name}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n"
    connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 413"


def test_pipelined_requests_are_answered_in_order(
    connection: socket.socket, model_name: str, make_body: MakeBody, rows: Rows
) -> None:
    sent = b""
    for number in range(5):
        body = json.dumps(make_body(rows[:1], id=str(number))).encode()
        head = (
            f"POST /v2/models/{model_name}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        sent += head.encode() + body
    connection.sendall(sent)
    answer = read_all(connection)
    places = [answer.index(b'"id":"%d"' % number) for number in range(5)]
    assert places == sorted(places)


def test_slow_clients_cost_nobody_else_an_answer(strict: Any, make_body: MakeBody, rows: Rows) -> None:
    memory = psutil.Process(strict.process.pid).memory_info().rss
    slow = [socket.create_connection(("127.0.0.1", strict.http_port)) for _ in range(400)]
    try:
        for number, opened in enumerate(slow):
            opened.sendall(
                b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"
                if number % 2
                else b"POST"
            )
        assert all(strict.infer(make_body(rows[:1])).status_code == 200 for _ in range(20))
        for opened in slow:
            opened.settimeout(15)
            read_all(opened)
    finally:
        for opened in slow:
            opened.close()
    assert psutil.Process(strict.process.pid).memory_info().rss - memory < 40 * 2**20


def test_what_is_too_much_at_a_time_is_refused_at_once(
    start: Start, model_name: str, make_body: MakeBody, rows: Rows
) -> None:
    server = start("--max_concurrent=1")
    server.wait_until_ready()
    slow = make_body(rows[:200], parameters={"reasons": True})  # XGBoost has to be loaded for it
    refused: Any = None
    with (
        ThreadPoolExecutor(1) as pool,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        first = pool.submit(server.infer, slow)
        status = None
        while not first.done() and (refused is None or status is None):
            answer = server.infer(make_body(rows[:1]))
            if answer.status_code == 503:
                refused = answer
                assert server.client.get("/v2/health/ready").status_code == 200
                try:
                    call(b"", timeout=10)
                except grpc.RpcError as error:
                    status = error.code()  # type: ignore[attr-defined]
        assert first.result().status_code == 200
    assert refused.headers["retry-after"] == "1"
    assert "at most 1 requests at a time" in refused.json()["error"]
    assert refused.elapsed.total_seconds() < 1
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.infer(make_body(rows[:1])).status_code == 200


def test_many_pipelined_requests_are_each_answered_when_the_gate_is_shut(
    start: Start, model_name: str, make_body: MakeBody, rows: Rows
) -> None:
    """They are refused one after the other, not one within the other."""
    server = start("--max_concurrent=1")
    server.wait_until_ready()

    def render(body: dict[str, Any]) -> bytes:
        text = json.dumps(body).encode()
        head = (
            f"POST /v2/models/{model_name}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        return head.encode() + text

    slow = make_body(rows[:200], parameters={"reasons": True})
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=30) as connection:
        connection.sendall(render(slow) + 1500 * render({}))
        answer = b""
        while answer.count(b"HTTP/1.1 ") < 1501:
            part = connection.recv(65536)
            assert part, f"closed after {answer.count(b'HTTP/1.1 ')} answers"
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 503 ") + answer.count(b"HTTP/1.1 400 ") == 1500
    assert server.infer(make_body(rows[:1])).status_code == 200
