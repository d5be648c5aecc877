"""One-row predictions over V2 REST: our server beside a plain kserve Model that scores the same bundle.

    python benchmarks/predictor.py [--seconds 3] [--rounds 3]

Both score with the same code, in one process each, and take turns in every round, so that a busy machine
slows both. Trust CPU per request and the ratios; requests per second depend on the machine. The plain server
is measured twice: as kserve starts it (it logs four lines a request), and with its logs off.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
NAME = "telco"
CONNECTIONS = 8
DATATYPES = {"string": "BYTES", "float": "FP64", "integer": "INT64", "boolean": "BOOL"}


@dataclass(frozen=True)
class Load:
    """What one server did under load."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


@dataclass
class Server:
    """A running server and how long it took to become ready."""

    name: str
    process: psutil.Process
    port: int
    start_seconds: float


def train_bundle(directory: Path) -> bytes:
    """Train a small model of the Telco project; return the body of a one-row request."""
    from tenure.bundle import load_bundle, write_bundle
    from tenure.partition import assign_parts
    from tenure.project import load_project
    from tenure.snapshot import read_source
    from tenure.training import train
    from tenure.validation import validate_frame

    project = load_project(ROOT / "projects" / "telco.yaml")
    training = project.training.model_copy(update={"trials": 3})
    project = project.model_copy(update={"training": training})
    frame = validate_frame(
        read_source(Path(project.source.uri), None, project.contract), project.contract
    ).good
    frame = frame[assign_parts(frame, project.contract, project.split, project.name) == "train"]
    write_bundle(directory, train(frame, project), project=project, snapshot="0" * 64, code_version="bench")
    row = load_bundle(directory).probe()[0]
    inputs = [
        {"name": column.name, "shape": [1], "datatype": DATATYPES[column.type], "data": [row[column.name]]}
        for column in project.contract.features
    ]
    return json.dumps({"inputs": inputs}).encode()


def serve_plain(model_dir: str, port: int, quiet: bool) -> None:
    """Serve a bundle as kserve's documentation shows it: a Model whose predict reads an InferRequest."""
    import kserve
    from kserve import InferOutput, InferRequest, InferResponse, model_server
    from kserve.protocol.rest.server import RESTServer

    from tenure.bundle import load_bundle
    from tenure.scorer import Scorer

    bundle = load_bundle(Path(model_dir))
    scorer = Scorer(bundle)

    class Plain(kserve.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(NAME)
            self.ready = True

        def predict(self, payload: InferRequest, headers: Any = None) -> InferResponse:
            scores = scorer.score_columns({entry.name: entry.data for entry in payload.inputs})
            churn = scores >= bundle.threshold
            return InferResponse(
                response_id=payload.id or "",
                model_name=NAME,
                infer_outputs=[
                    InferOutput("churn_probability", [len(scores)], "FP64", scores.tolist()),
                    InferOutput("churn", [len(scores)], "BOOL", churn.tolist()),
                ],
            )

    class Loopback(RESTServer):  # type: ignore[misc]
        """kserve listens on every address of the machine, and has no setting for it."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.config.host = "127.0.0.1"
            if quiet:
                self.config.access_log = False

    model_server.RESTServer = Loopback
    if quiet:
        import logging

        logging.getLogger("kserve").addHandler(logging.NullHandler())
        logging.getLogger("kserve").setLevel(logging.WARNING)
        logging.getLogger("uvicorn.access").disabled = True
    kserve.ModelServer(http_port=port, enable_grpc=False, enable_latency_logging=not quiet).start([Plain()])


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run(name: str, command: list[str], port: int, log: Path) -> Iterator[Server]:
    """Start a server, wait until it is ready, stop it in the end."""
    started = time.perf_counter()
    environment = {**os.environ, "TENURE_HTTP_HOST": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None or time.perf_counter() - started > 60:
                    raise SystemExit(f"{name} did not start:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.01)
        yield Server(name, psutil.Process(process.pid), port, time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def ask(port: int, request: bytes, until: float, times: list[float]) -> None:
    """Send the request again and again over one connection; append the seconds of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        begin = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"unexpected answer: {head.decode()}")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        await reader.readexactly(length)
        times.append(time.perf_counter() - begin)
    writer.close()


def measure(server: Server, body: bytes, connections: int, seconds: float) -> Load:
    """Put a server under load."""
    import uvloop

    head = (
        f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    times: list[float] = []

    async def load() -> float:
        warm: list[float] = []
        await ask(server.port, request, time.perf_counter() + 0.3, warm)
        before = server.process.cpu_times()
        until = time.perf_counter() + seconds
        await asyncio.gather(*(ask(server.port, request, until, times) for _ in range(connections)))
        after = server.process.cpu_times()
        return float(after.user + after.system - before.user - before.system)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        cpu = runner.run(load())
    times.sort()
    return Load(
        len(times) / seconds,
        1e6 * cpu / len(times),
        1000 * times[len(times) // 2],
        1000 * times[int(len(times) * 0.99)],
    )


def middle(loads: list[Load], field: str) -> float:
    """Return the median of one measure."""
    return statistics.median(getattr(load, field) for load in loads)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3, help="of load per server, concurrency and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve-plain", nargs=3, metavar=("DIR", "PORT", "QUIET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_plain:
        directory, port, quiet = arguments.serve_plain
        sys.argv = sys.argv[:1]  # kserve reads flags of its own
        serve_plain(directory, int(port), quiet == "yes")
        return
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        bundle = home / "bundle"
        body = train_bundle(bundle)
        port = find_port()
        ours = [sys.executable, "-m", "serving.predictor", f"--model_name={NAME}", f"--model_dir={bundle}"]
        ours += [f"--http_port={port}", f"--grpc_port={find_port()}"]
        servers = [stack.enter_context(run("tenure", ours, port, home / "tenure.log"))]
        for name, quiet in (("kserve, quiet", "yes"), ("kserve, as it comes", "no")):
            port = find_port()
            plain = [sys.executable, __file__, "--serve-plain", str(bundle), str(port), quiet]
            servers.append(stack.enter_context(run(name, plain, port, home / f"{quiet}.log")))
        alone: dict[str, list[Load]] = {server.name: [] for server in servers}
        busy: dict[str, list[Load]] = {server.name: [] for server in servers}
        for _ in range(arguments.rounds):
            for server in servers:
                alone[server.name].append(measure(server, body, 1, arguments.seconds))
                busy[server.name].append(measure(server, body, CONNECTIONS, arguments.seconds))
        print(
            f"One row, V2 REST; median of {arguments.rounds} rounds of {arguments.seconds:g} s on "
            f"{psutil.cpu_count()} cores\n"
        )
        titles = f"p50 ms, c=1 | p99 ms, c=1 | requests/s, c={CONNECTIONS} | CPU us/request | MB | start s"
        print(f"| server | {titles} |")
        print("|---|---|---|---|---|---|---|")
        for server in servers:
            single, many = alone[server.name], busy[server.name]
            print(
                f"| {server.name} | {middle(single, 'p50_ms'):.2f} | {middle(single, 'p99_ms'):.2f} "
                f"| {middle(many, 'per_second'):,.0f} | {middle(many, 'cpu_us'):.0f} "
                f"| {server.process.memory_info().rss / 2**20:.0f} | {server.start_seconds:.2f} |"
            )
        print()
        for server in servers[1:]:
            pairs = list(zip(busy["tenure"], busy[server.name], strict=True))
            speed = statistics.median(ours.per_second / theirs.per_second for ours, theirs in pairs)
            cpu = statistics.median(theirs.cpu_us / ours.cpu_us for ours, theirs in pairs)
            print(f"tenure against {server.name}: {speed:.1f} x the requests, 1/{cpu:.1f} of the CPU")


if __name__ == "__main__":
    main()
