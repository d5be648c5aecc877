"""What one client takes does not keep the others out: a real Envoy, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from embedded.gateway import Endpoint, Routing, Service, limits
from embedded.ports import LOOPBACK

from .conftest import Envoy, Load, Servers, wait_until
from .test_envoy import HOST, ask, make_route, make_services

PATH = "/v2/models/telco/infer"
HEAD = f"POST {PATH} HTTP/1.1\r\nhost: {HOST}\r\n".encode()
MEBIBYTE = 1024 * 1024
Start = Callable[..., Envoy]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts an Envoy with some limits changed by name, so that no test waits long."""
    running: list[Envoy] = []

    def start(**changes: float) -> Envoy:
        for name, value in changes.items():
            monkeypatch.setattr(limits, name, value)
        envoy = Envoy(tmp_path / "envoy")
        running.append(envoy)
        envoy.start()
        return envoy

    yield start
    for envoy in running:
        envoy.stop()
        envoy.gateway.close()


def serve(envoy: Envoy, stable: Endpoint, canary: Endpoint | None = None, percent: int = 0) -> None:
    envoy.gateway.publish(Routing(make_services(stable, canary), [make_route(percent)]))


def connect(envoy: Envoy) -> socket.socket:
    return socket.create_connection((LOOPBACK, envoy.port), timeout=20)


def read_to_end(stream: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := stream.recv(65_536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("limit", "beginning"),
    [
        ("_HEADERS_SECONDS", HEAD + b"x-slow: "),
        ("_RECEIVED_SECONDS", HEAD + b"content-length: 1000000\r\n\r\n{"),
    ],
)
def test_a_request_that_never_ends_is_closed_and_others_do_not_notice(
    start: Start, servers: Servers, limit: str, beginning: bytes
) -> None:
    envoy = start(**{limit: 1})
    serve(envoy, servers.start("v1"))

    def dawdle() -> tuple[float, bytes]:
        """Send one byte after the other; return how long that went well, and the answer."""
        began = time.monotonic()
        with connect(envoy) as stream:
            stream.sendall(beginning)
            while not select.select([stream], [], [], 0.1)[0]:
                assert time.monotonic() - began < 15, "the gateway waits for ever"
                stream.sendall(b"x")
            return time.monotonic() - began, read_to_end(stream)

    async def run() -> tuple[list[tuple[float, bytes]], Load]:
        async with Load(f"{envoy.url}{PATH}", HOST, workers=4) as load:
            return await asyncio.gather(*(asyncio.to_thread(dawdle) for _ in range(8))), load

    closed, load = asyncio.run(run())
    for seconds, answer in closed:
        assert 0.5 < seconds < 10
        assert answer.startswith(b"HTTP/1.1 408 ")
    assert load.failures == []
    assert load.seen.get("v1", 0) > 50


def test_a_connection_without_requests_is_closed(start: Start, servers: Servers) -> None:
    envoy = start(_IDLE_SECONDS=1)
    serve(envoy, servers.start("v1"))
    with connect(envoy) as silent, connect(envoy) as served:
        served.sendall(b"GET / HTTP/1.1\r\nhost: " + HOST.encode() + b"\r\n\r\n")
        assert read_to_end(silent) == b""
        assert read_to_end(served).startswith(b"HTTP/1.1 200 ")


def test_headers_are_limited(start: Start, servers: Servers) -> None:
    envoy = start()
    serve(envoy, servers.start("v1"))
    assert ask(envoy, x_note="a" * 12 * 1024).status_code == 200
    assert ask(envoy, x_note="a" * 17 * 1024).status_code == 431
    assert ask(envoy, **{f"x-note-{number}": "a" for number in range(150)}).status_code == 431
    assert ask(envoy).status_code == 200


def test_http2_is_told_its_limits(start: Start) -> None:
    """RFC 9113, 6.5: the server's first frame is SETTINGS, pairs of a 16-bit name and a 32-bit value."""
    with connect(start()) as stream:
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        with stream.makefile("rb") as file:
            head = file.read(9)
            length, kind = int.from_bytes(head[:3], "big"), head[3]
            settings = dict(struct.iter_unpack(">HI", file.read(length)))
    assert kind == 4
    most_streams, first_window = settings[3], settings[4]
    assert (most_streams, first_window) == (limits._STREAMS, limits._STREAM_WINDOW)


def test_connections_beyond_the_limit_are_closed_and_those_that_are_there_go_on(
    start: Start, servers: Servers
) -> None:
    most = 300
    envoy = start(CONNECTIONS=most)
    serve(envoy, servers.start("v1"))

    async def run() -> tuple[Load, int]:
        async with Load(f"{envoy.url}{PATH}", HOST, workers=8) as load:
            while load.total < 100:
                await asyncio.sleep(0.005)
            with contextlib.ExitStack() as stack:
                flood = [stack.enter_context(connect(envoy)) for _ in range(most + 100)]
                refused = sum(await asyncio.to_thread(map_closed, flood))
                seen = load.total
                while load.total < seen + 500:
                    await asyncio.sleep(0.005)
                # Who watches the gateway still sees it.
                assert envoy.gateway.describe_problem() is None
            return load, refused

    load, refused = asyncio.run(run())
    assert load.failures == []
    assert 100 <= refused <= 110
    wait_until(lambda: is_answered(envoy), "the connections to be free again")


def map_closed(streams: list[socket.socket]) -> list[bool]:
    """Return of each connection whether the other side has closed it; waits a second for it in all."""
    time.sleep(1)  # a connection that stays open gives no sign
    closed = []
    for stream in streams:
        stream.setblocking(False)
        try:
            closed.append(stream.recv(1) == b"")
        except BlockingIOError:
            closed.append(False)
        except ConnectionResetError:
            closed.append(True)
    return closed


def is_answered(envoy: Envoy) -> bool:
    try:
        return ask(envoy).status_code == 200
    except httpx.TransportError:
        return False


def test_bodies_that_are_never_whole_fill_no_memory(start: Start, servers: Servers) -> None:
    envoy = start(_HEAP=96 * MEBIBYTE)
    serve(envoy, servers.start("v1"))
    assert envoy.process is not None
    process = psutil.Process(envoy.process.pid)
    most = 0
    with contextlib.ExitStack() as stack:
        sent = 0
        for _ in range(500):
            stream = stack.enter_context(connect(envoy))
            stream.settimeout(0.1)
            with contextlib.suppress(OSError):  # refused, or no longer read
                stream.sendall(HEAD + b"content-length: 9000000\r\n\r\n")
                stream.sendall(bytes(2 * MEBIBYTE))
                sent += 2 * MEBIBYTE
            most = max(most, process.memory_info().rss)
        print(f"at most {most // MEBIBYTE} MiB, {sent // MEBIBYTE} MiB taken")  # noqa: T201
        # A gigabyte was offered. The guard looks twenty times a second, and what comes in between is taken.
        assert most < 600 * MEBIBYTE
        # The senders are all still there; whoever stands still loses its memory to those who work.
        wait_until(lambda: is_answered(envoy), "an answer beside them", 10)
    assert int(envoy.get_stats(r"fixed_heap\.pressure").split(":")[1]) < 1000
    assert envoy.process.poll() is None


@pytest.mark.parametrize("size", [MEBIBYTE // 2, 4 * MEBIBYTE, 15 * MEBIBYTE])
def test_a_long_body_too_is_asked_again_when_its_process_fails(
    start: Start, servers: Servers, size: int
) -> None:
    envoy = start()
    serve(envoy, servers.start("v1"), servers.start("v2", manner="reset"), percent=100)
    response = httpx.post(
        f"{envoy.url}{PATH}", content=bytes(size), headers={"host": HOST}, trust_env=False, timeout=30
    )
    assert (response.status_code, response.json()["model_version"]) == (200, "v1")


def test_clients_cannot_ask_for_more_tries_or_another_timeout(start: Start, servers: Servers) -> None:
    envoy = start()
    failing = servers.start("v1", manner="500")
    services = make_services(failing, None)
    slow = Service("default", "slow-predictor", "slow", True, (servers.start("s1", manner="slow"),))
    services["default", "slow-predictor"] = slow
    other = make_route(0, name="slow")
    other["spec"]["rules"] = [{"backendRefs": [{"name": "slow-predictor", "port": 80}]}]
    envoy.gateway.publish(Routing(services, [make_route(0), other]))
    more = {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "20"}
    assert ask(envoy, PATH, **more).status_code == 500
    assert envoy.count().get("upstream_rq_total", "default/telco-predictor/http") == 1
    sooner = {"x-envoy-upstream-rq-timeout-ms": "1"}
    answer = ask(envoy, "/v2/models/slow/infer", host="slow-default.tenure.example.com", **sooner)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/ready", "/stats", "/stats/prometheus"])
def test_the_admin_port_tells_how_it_is(envoy: Envoy, path: str) -> None:
    assert httpx.get(f"http://{LOOPBACK}:{envoy.admin_port}{path}", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/config_dump", "/clusters", "/certs", "/reset_counters", "/quitquitquit", "/drain_listeners"),
        *("/logging?level=trace", "/healthcheck/fail", "/runtime_modify?a=b", "/cpuprofiler?enable=y"),
    ],
)
def test_the_admin_port_does_nothing_for_anybody(envoy: Envoy, path: str) -> None:
    for method in ("GET", "POST"):
        answer = httpx.request(method, f"http://{LOOPBACK}:{envoy.admin_port}{path}", trust_env=False)
        assert answer.status_code == 403, method
    assert envoy.process is not None
    assert envoy.process.poll() is None
