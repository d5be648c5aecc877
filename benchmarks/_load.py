"""The load: clients that each send the same request over a kept connection, again as soon as it is answered.

`drive` does it here. As a program, in a process of its own, it reads one order a line from standard input and
writes one load a line, both JSON. HTTP goes over bare asyncio protocols on uvloop, gRPC over grpc.aio with
bytes that are ready made: both must cost far less than the servers do, so each load says what they cost.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import psutil
import uvloop

HOST = "127.0.0.1"
INFER = "/inference.GRPCInferenceService/ModelInfer"
PATIENCE = 60.0  # seconds that answers may take beyond the time of the load
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Order(msgspec.Struct):
    """What to send: to which port of which process, by how many clients, for how long after a warm-up.

    `request` is the file with the bytes: of the whole HTTP request with its head, or of the gRPC message.
    """

    wire: str  # http or grpc
    port: int
    pid: int
    request: str
    clients: int
    seconds: float
    warm_up: float = 0.3


class Load(msgspec.Struct):
    """What one server did under load. CPU is that of its process and all processes below it."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    requests: int
    client_cpu_us: float


class Failure(msgspec.Struct):
    """Why there is no load."""

    error: str


class LoadError(Exception):
    """A server answered with an error, or not at all."""


class Client(Protocol):
    """One connection."""

    async def run(self, until: float, times: list[float]) -> None:
        """Send requests until then; append the seconds that each took."""

    async def close(self) -> None: ...


def find_end(received: bytes, body: int) -> int:
    """Return where a chunked answer whose body begins at `body` ends; 0 if it has not arrived as a whole."""
    while True:
        line = received.find(b"\r\n", body)
        if line < 0:
            return 0
        size = int(received[body:line], 16)
        body = line + size + 4
        if body > len(received):
            return 0
        if not size:
            return body


class HttpClient(asyncio.Protocol):
    """One HTTP/1.1 connection; takes answers of status 200 only."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = b""
        self._end = 0
        self._begin = self._until = 0.0
        self._times: list[float] = []
        self._done: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are of no such class

    async def run(self, until: float, times: list[float]) -> None:
        self._until, self._times = until, times
        self._done = asyncio.get_running_loop().create_future()
        self._send()
        await self._done

    async def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def _send(self) -> None:
        assert self._transport is not None
        self._begin = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        if not self._end:
            body = received.find(b"\r\n\r\n") + 4
            if body < 4:
                return
            length = _LENGTH.search(received, 0, body)
            if not received.startswith(b"HTTP/1.1 200 "):
                self._fail(f"unexpected answer: {received[:500].decode(errors='replace')}")
                return
            self._end = body + int(length[1]) if length else find_end(received, body)
        if not self._end or len(received) < self._end:
            return
        now = time.perf_counter()
        self._times.append(now - self._begin)
        self._received, self._end = b"", 0
        if now < self._until:
            self._send()
        elif self._done is not None and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        self._fail("the server closed the connection")

    def _fail(self, problem: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(LoadError(problem))


class GrpcClient:
    """One gRPC channel with a connection of its own."""

    def __init__(self, port: int, request: bytes) -> None:
        import grpc

        self._error = grpc.RpcError
        self._request = request
        self._channel = grpc.aio.insecure_channel(
            f"{HOST}:{port}", options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        )
        self._call = self._channel.unary_unary(INFER)

    async def run(self, until: float, times: list[float]) -> None:
        call, request = self._call, self._request
        now = time.perf_counter()
        while now < until:
            begin = now
            try:
                await call(request)
            except self._error as error:
                raise LoadError(f"unexpected answer: {error}") from error
            now = time.perf_counter()
            times.append(now - begin)

    async def close(self) -> None:
        await self._channel.close()


async def open_client(wire: str, port: int, request: bytes) -> Client:
    if wire == "grpc":
        return GrpcClient(port, request)
    _, client = await asyncio.get_running_loop().create_connection(lambda: HttpClient(request), HOST, port)
    return client


def read_cpu(processes: Sequence[psutil.Process]) -> float:
    """Return the CPU seconds that processes have used."""
    return sum(spent.user + spent.system for spent in (process.cpu_times() for process in processes))


async def _drive(order: Order) -> Load:
    request = await asyncio.to_thread(Path(order.request).read_bytes)
    server = psutil.Process(order.pid)
    processes = [server, *server.children(recursive=True)]
    clients = [await open_client(order.wire, order.port, request) for _ in range(order.clients)]

    async def run(seconds: float) -> tuple[list[float], float]:
        times: list[float] = []
        begin = time.perf_counter()
        until = begin + seconds
        async with asyncio.timeout(seconds + PATIENCE):
            await asyncio.gather(*(client.run(until, times) for client in clients))
        return times, time.perf_counter() - begin

    try:
        await run(order.warm_up)
        before, own = read_cpu(processes), time.process_time()
        times, seconds = await run(order.seconds)
        own = time.process_time() - own
        cpu = read_cpu(processes) - before
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    times.sort()
    return Load(
        per_second=len(times) / seconds,
        cpu_us=1e6 * cpu / len(times),
        p50_ms=1000 * percentile(times, 0.5),
        p99_ms=1000 * percentile(times, 0.99),
        requests=len(times),
        client_cpu_us=1e6 * own / len(times),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def drive(order: Order) -> Load:
    """Put a server under load.

    Raises:
        LoadError: It answered with an error, or not in time.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_drive(order))
        except (OSError, TimeoutError, psutil.Error) as error:
            raise LoadError(f"no answer: {error!r}") from error


def main() -> None:
    for line in sys.stdin.buffer:
        answer: Any
        try:
            answer = drive(msgspec.json.decode(line, type=Order))
        except LoadError as error:
            answer = Failure(str(error))
        print(msgspec.json.encode(answer).decode(), flush=True)


if __name__ == "__main__":
    main()
