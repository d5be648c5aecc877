"""The predictor at its limit and at twice its limit: is every request answered, rightly, in bounded memory?

    python benchmarks/overload.py [--seconds 60]

Needs `make environment-predictor`. First, clients that wait for their answers find the limit. Then requests
come at that rate, and at twice that rate, whether those before are answered or not. Each is about one of a
hundred customers. A 200 must have the bundle's own score to 1e-6, a 503 must say when to come again, and
nothing else may happen. In the end the predictor must have counted each prediction, and have sent or counted
as dropped both events of each. Its memory must not grow over the second half of a load.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import msgspec
import uvloop
from _load import Order, drive, percentile
from _requests import build_request
from _servers import NAME, ROOT, Server, build_predictor_command, find_port, read_metric, run, train_bundle

from tenure.bundle import Bundle, load_bundle
from tenure.scorer import Scorer, to_columns

PREDICTOR_PYTHON = ROOT / ".venv-predictor" / "bin" / "python"
CLIENTS, PROBE_SECONDS = 32, 5.0  # that find the limit
CONNECTIONS = 600  # more than twice what the predictor lets in
TICK = 0.002
PATIENCE = 60.0  # seconds in which what was sent must be answered
CUSTOMERS = 100
TOLERANCE = 1e-6
GROWTH = 1.05  # between two looks at noise
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n")


class Output(msgspec.Struct):
    data: list[float | bool]


class Answer(msgspec.Struct):
    outputs: list[Output]


_decoder = msgspec.json.Decoder(Answer)


@dataclass
class Tally:
    """What became of the requests of one load; times in seconds."""

    sent: int = 0
    held_back: int = 0
    good: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # MiB, once a second

    @property
    def open(self) -> int:
        """How many are not answered."""
        return self.sent - len(self.good) - len(self.refused) - len(self.wrong)


class Connection(asyncio.Protocol):
    """One kept connection: a request under way at most."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._received = b""
        self._customer: int | None = None
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, customer: int) -> None:
        self._customer, self._began = customer, time.perf_counter()
        self._transport.write(self._fleet.requests[customer])

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        body = received.find(b"\r\n\r\n") + 4
        if body < 4:
            return
        length = _LENGTH.search(received, 0, body)
        if length is None or len(received) > body + int(length[1]) or self._customer is None:
            self._fleet.tally.wrong.append(f"no answer to what was asked: {received[:300]!r}")
            self._transport.close()
        elif len(received) == body + int(length[1]):
            seconds = time.perf_counter() - self._began
            customer, self._customer, self._received = self._customer, None, b""
            self._fleet.judge(customer, received[:body], received[body:], seconds)
            self._fleet.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._fleet.idle:
            self._fleet.idle.remove(self)
        if not self._fleet.closing:
            self._fleet.tally.wrong.append(f"the connection was closed: {error!r}")

    def close(self) -> None:
        self._transport.close()


class Fleet:
    """Connections that send at a rate of their own.

    Args:
        requests: One for each customer, all bytes.
        scores: The bundle's own for each.
    """

    def __init__(self, requests: list[bytes], scores: list[float]) -> None:
        self.requests = requests
        self.scores = scores
        self.tally = Tally()
        self.idle: deque[Connection] = deque()  # who has waited longest goes first: none is idle for long
        self.closing = False

    def judge(self, customer: int, head: bytes, body: bytes, seconds: float) -> None:
        """Note an answer."""
        tally = self.tally
        if head.startswith(b"HTTP/1.1 200 "):
            score = _decoder.decode(body).outputs[0].data[0]
            if abs(score - self.scores[customer]) <= TOLERANCE:
                tally.good.append(seconds)
            else:
                tally.wrong.append(f"customer {customer}: {score}, expected {self.scores[customer]}")
        elif head.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: " in head:
            tally.refused.append(seconds)
        else:
            tally.wrong.append((head + body)[:300].decode(errors="replace"))

    async def drive(self, server: Server, rate: float, seconds: float) -> Tally:
        """Send so many requests a second, and wait until all are answered."""
        tally = self.tally = Tally()
        loop = asyncio.get_running_loop()
        opened = [
            (await loop.create_connection(lambda: Connection(self), "127.0.0.1", server.port))[1]
            for _ in range(CONNECTIONS)
        ]
        self.idle, self.closing = deque(opened), False
        began = time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds and not tally.wrong:
            due = int(passed * rate) - tally.sent - tally.held_back
            for _ in range(min(due, len(self.idle))):
                self.idle.popleft().send(tally.sent % len(self.requests))
                tally.sent += 1
            tally.held_back += max(0, int(passed * rate) - tally.sent - tally.held_back)
            if passed >= len(tally.memory):
                tally.memory.append(server.process.memory_info().rss / 2**20)
            await asyncio.sleep(TICK)
        deadline = time.perf_counter() + PATIENCE
        while tally.open and time.perf_counter() < deadline:
            await asyncio.sleep(TICK)
        self.closing = True
        for connection in opened:
            connection.close()
        return tally


def describe(tally: Tally, rate: float, seconds: float) -> list[str]:
    """Print what happened; return what should not have."""
    good, refused = sorted(tally.good), sorted(tally.refused)
    print(
        f"{rate:.0f} requests/s for {seconds:.0f} s: {tally.sent} sent, {tally.held_back} held back for want "
        f"of a connection; {len(good)} answered ({len(good) / seconds:.0f}/s), {len(refused)} refused (503)"
    )
    for name, times in (("answered", good), ("refused", refused)):
        if times:
            p50, p99 = (1000 * percentile(times, share) for share in (0.5, 0.99))
            print(f"  {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {1000 * times[-1]:.1f} ms")
    half = len(tally.memory) // 2
    before, after = max(tally.memory[:half]), max(tally.memory[half:])
    first, last = tally.memory[0], tally.memory[-1]
    print(
        f"  MiB: {first:.0f} at first, at most {before:.0f} and {after:.0f} in the halves, {last:.0f} at last"
    )
    problems = [f"wrong: {text}" for text in tally.wrong[:5]]
    if tally.open:
        problems.append(f"{tally.open} requests were not answered in {PATIENCE:.0f} s")
    if after > before * GROWTH:
        problems.append(f"memory grows: {before:.0f} MiB, then {after:.0f} MiB")
    return problems


def check_counts(url: str, good: int, before: float) -> list[str]:
    """Wait until no event waits; return what was not counted."""
    deadline = time.monotonic() + PATIENCE
    while waiting := read_metric(url, "predictor_events_waiting"):
        if time.monotonic() > deadline:
            return [f"{waiting:.0f} inferences still wait for the sink after {PATIENCE:.0f} s"]
        time.sleep(0.1)
    predictions = read_metric(url, "churn_predictions_total") - before
    sent, dropped = (
        read_metric(url, f'predictor_events_total{{outcome="{kind}"}}') for kind in ("sent", "dropped")
    )
    total = read_metric(url, "churn_predictions_total")
    print(f"predictions counted: {predictions:.0f}; events: {sent:.0f} sent, {dropped:.0f} dropped")
    problems = []
    if predictions != good:
        problems.append(f"{good} answers came, {predictions:.0f} predictions were counted")
    if sent + dropped != 2 * total:
        problems.append(f"{2 * total:.0f} events, but {sent + dropped:.0f} were sent or counted as dropped")
    return problems


def prepare(bundle: Bundle) -> Fleet:
    """Return a fleet that asks about some customers of the bundle."""
    known = bundle.probe()
    rows = [known[place % len(known)] for place in range(CUSTOMERS)]
    requests = [build_request("json", [row], bundle, NAME) for row in rows]
    scores = Scorer(bundle).score_columns(to_columns(rows, bundle.featuriser.names))
    return Fleet(requests, scores.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each of the two loads")
    options = parser.parse_args()
    if not PREDICTOR_PYTHON.exists():
        sys.exit(f"there is no {PREDICTOR_PYTHON.relative_to(ROOT)}: run `make environment-predictor`")
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        train_bundle(folder / "bundle")
        fleet = prepare(load_bundle(folder / "bundle"))
        sink = find_port()
        command = [sys.executable, str(Path(__file__).with_name("_sink.py")), str(sink)]
        stack.enter_context(run("sink", command, sink, folder / "sink.log", path="/"))
        port, grpc_port = find_port(), find_port()
        where = f"http://127.0.0.1:{sink}/"
        command = build_predictor_command(folder / "bundle", port, grpc_port, where, PREDICTOR_PYTHON)
        url = f"http://127.0.0.1:{port}"
        server = stack.enter_context(run("predictor", command, port, folder / "predictor.log", grpc_port))
        request = folder / "request"
        request.write_bytes(fleet.requests[0])
        order = Order("http", port, server.process.pid, str(request), CLIENTS, PROBE_SECONDS)
        limit = drive(order).per_second
        print(f"limit: {limit:.0f} requests/s of {CLIENTS} clients that wait for their answers", flush=True)
        before = read_metric(url, "churn_predictions_total")
        problems, good = [], 0
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for rate in (limit, 2 * limit):
                tally = runner.run(fleet.drive(server, rate, options.seconds))
                good += len(tally.good)
                problems += describe(tally, rate, options.seconds)
        problems += check_counts(url, good, before)
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
