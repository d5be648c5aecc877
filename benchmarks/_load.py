"""The load: clients that each send the same request over a kept connection, again as soon as it is answered.

`drive` does it here. As a program, in a process of its own, it reads one order a line from standard input and
writes one load a line, both JSON. The clients must cost far less than the servers, so each load says what
they did cost.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import uvloop
from _clients import LoadError, open_client

PATIENCE = 60.0  # seconds that answers may take beyond the time of the load


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
        for client in clients:
            client.close()
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
