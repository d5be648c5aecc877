"""Our predictor beside KServe's own server, MLServer and FastAPI: the same trees, requests and machine.

    python benchmarks/serving.py [--seconds 2.5] [--rounds 3] [--starts 3] [--json FILE] [--quick]

Needs `make environment-peers environment-predictor`: ours and KServe's run in the environment of our image,
without what only a developer's has. Ours validates and logs every inference to a sink, which takes them; the
peers do neither, and their own logs are off. The floor is no peer: gRPC's own server, which only remembers
its answers. Before anything is measured, each must give the scores of XGBoost
itself to 1e-6 for every request that it will be sent; only the usual pipeline, whose trees have one-hot
categories, cannot. The servers take turns in every round, one under load at a time. A client waits for its
answer, so there are as many requests under way as clients. Trust CPU per request and the ratios of a round;
requests per second depend on the machine, which should have nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from _load import Failure, Load, Order
from _report import FLOOR, Cell, Report, Start, judge, print_report
from _requests import ask, build_request, is_grpc
from _servers import (
    NAME,
    READY,
    ROOT,
    Server,
    build_predictor_command,
    find_port,
    read_metric,
    run,
    train_bundle,
)

from tenure.bundle import Bundle, load_bundle
from tenure.scorer import score_with_xgboost, to_columns

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PREDICTOR_PYTHON = ROOT / ".venv-predictor" / "bin" / "python"
CLIENTS = (1, 8, 32)
BUSY = (8,)
ROWS = (1, 100)
TOLERANCE = 1e-6
HEALTH = "/health"
EVENTS = "predictor_events_total"


@dataclass(frozen=True)
class Contender:
    """A server to measure.

    Attributes:
        name: As in the tables.
        kinds: Each kind of request that it takes, and with how many clients each is measured.
        module: The peer's module; None for ours.
        arguments: More of its arguments.
        python: Its interpreter.
        path: Answers 200 when it is ready.
        exact: Whether it has the same trees.
    """

    name: str
    kinds: dict[str, tuple[int, ...]]
    module: str | None = None
    arguments: tuple[str, ...] = ()
    python: Path = Path(sys.executable)
    path: str = READY
    exact: bool = True


def list_contenders(pipeline: Path) -> list[Contender]:
    every = {"json": CLIENTS, "binary": CLIENTS, "grpc": CLIENTS, "grpc raw": BUSY}
    kserve, mlserver = "benchmarks.peers.stock_kserve", "benchmarks.peers.mlserver"
    fastapi = "benchmarks.peers.fastapi_server"
    return [
        Contender("tenure", every, python=PREDICTOR_PYTHON),
        Contender("kserve", every, kserve, python=PREDICTOR_PYTHON),
        Contender("kserve, with its logs", {"json": BUSY}, kserve, ("--logs",), PREDICTOR_PYTHON),
        Contender(FLOOR, {"grpc": CLIENTS}, "benchmarks.peers.grpc_floor", python=PREDICTOR_PYTHON, path="/"),
        Contender(
            "mlserver",
            {"json": CLIENTS, "grpc": CLIENTS, "grpc raw": BUSY},
            mlserver,
            python=PEERS_PYTHON,
        ),
        Contender(
            "mlserver, in process",
            {"json": CLIENTS, "grpc": BUSY},
            mlserver,
            ("--workers", "0"),
            PEERS_PYTHON,
        ),
        Contender(
            "mlserver-xgboost, in process",
            {"codes": BUSY},
            mlserver,
            ("--runtime", "xgboost", "--workers", "0"),
            PEERS_PYTHON,
        ),
        Contender("fastapi, async, same trees", {"rows": CLIENTS}, fastapi, path=HEALTH),
        Contender(
            "fastapi, usual pipeline",
            {"rows": CLIENTS},
            fastapi,
            ("--pipeline", str(pipeline)),
            path=HEALTH,
            exact=False,
        ),
    ]


@dataclass
class Bench:
    """What is served and sent, and what runs."""

    home: Path
    bundle: Bundle
    sink: str
    contenders: list[Contender]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def start(self, contender: Contender) -> contextlib.AbstractContextManager[Server]:
        port, grpc_port = find_port(), find_port()
        directory = self.bundle.directory
        if contender.module is None:
            command = build_predictor_command(directory, port, grpc_port, self.sink, contender.python)
        else:
            command = [str(contender.python), "-m", contender.module, "--bundle", str(directory)]
            command += ["--port", str(port), *contender.arguments]
            if contender.path != HEALTH:  # FastAPI has no gRPC
                command += ["--grpc-port", str(grpc_port)]
        log = self.home / f"{contender.name.replace(' ', '-')}.log"
        return run(contender.name, command, port, log, grpc_port, contender.path)

    def write_request(self, kind: str, rows: int) -> Path:
        """Return the file with the bytes of a request."""
        file = self.home / f"{kind.replace(' ', '-')}-{rows}"
        if not file.exists():
            file.write_bytes(build_request(kind, self.rows[:rows], self.bundle, NAME))
        return file


def prepare(home: Path, sink: str) -> Bench:
    """Train the bundle, and the usual pipeline beside it."""
    import joblib
    from scoring import fit_pipeline

    project, frame = train_bundle(home / "bundle")
    bundle = load_bundle(home / "bundle")
    pipeline = home / "pipeline.joblib"
    joblib.dump(fit_pipeline(project.contract, frame, bundle), pipeline)
    rows = [row for row in bundle.probe() if None not in row.values()]  # gRPC has no null
    rows = [rows[place % len(rows)] for place in range(max(ROWS))]
    return Bench(home, bundle, sink, list_contenders(pipeline), rows)


def check(bench: Bench, contender: Contender, server: Server) -> None:
    """Refuse a server whose answers are not those of XGBoost itself."""
    columns = to_columns(bench.rows, bench.bundle.featuriser.names)
    expected = score_with_xgboost(bench.bundle, bench.bundle.featuriser.transform(columns))
    for kind in contender.kinds:
        port = server.grpc_port if is_grpc(kind) else server.port
        for rows in ROWS:
            try:
                scores = ask(kind, port, bench.write_request(kind, rows).read_bytes(), bench.bundle)
            except (ValueError, KeyError, OSError, http.client.HTTPException) as error:
                raise SystemExit(f"{contender.name}, {kind}, {rows} rows: no answer: {error}") from error
            if scores.shape != (rows,):
                raise SystemExit(f"{contender.name}, {kind}: {scores.shape} scores for {rows} rows")
            difference = float(np.abs(scores - expected[:rows]).max())
            if contender.exact and not difference <= TOLERANCE:
                raise SystemExit(
                    f"{contender.name}, {kind}, {rows} rows: scores differ from XGBoost's by {difference:.2g}"
                )


@contextlib.contextmanager
def start_generator() -> Iterator[subprocess.Popen[bytes]]:
    """Start the process that makes the load."""
    command = [sys.executable, str(Path(__file__).with_name("_load.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()


def measure(generator: subprocess.Popen[bytes], order: Order) -> Load | Failure:
    """Have a server put under load."""
    assert generator.stdin is not None
    assert generator.stdout is not None
    generator.stdin.write(msgspec.json.encode(order) + b"\n")
    generator.stdin.flush()
    line = generator.stdout.readline()
    if not line:
        raise SystemExit("the load generator has ended; its error is above")
    document = msgspec.json.decode(line)
    if "error" in document:
        return msgspec.convert(document, Failure)
    return msgspec.convert(document, Load)


def read_memory(server: Server) -> float:
    """Return the resident MiB of a server's processes; pages that they share count for each."""
    processes = [server.process, *server.process.children(recursive=True)]
    return sum(process.memory_info().rss for process in processes) / 2**20


def read_events(server: Server) -> dict[str, float]:
    """Return what became of our events."""
    url = f"http://127.0.0.1:{server.port}"
    outcomes = ("dropped", "queued", "sent")
    return {one: read_metric(url, f'{EVENTS}{{outcome="{one}"}}') for one in outcomes}


def measure_starts(bench: Bench, report: Report, starts: int) -> None:
    """Start each server some times by itself, and stop it again."""
    for number in range(starts):
        print(f"start {number + 1} of {starts}", file=sys.stderr, flush=True)
        for contender in bench.contenders:
            with bench.start(contender) as server:
                start = report.starts.setdefault(contender.name, Start())
                start.seconds.append(server.start_seconds)
                start.ready_mib.append(read_memory(server))


def measure_loads(bench: Bench, report: Report, servers: dict[str, Server], options: Any) -> None:
    """Put each server under each load, in turns."""
    cells = {
        (contender.name, kind, rows, clients): Cell(contender.name, kind, rows, clients)
        for rows in ROWS
        for clients in CLIENTS
        for contender in bench.contenders
        for kind, counts in contender.kinds.items()
        if clients in counts
    }
    report.cells.extend(cells.values())
    with start_generator() as generator:
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for cell in cells.values():
                server = servers[cell.server]
                port = server.grpc_port if is_grpc(cell.kind) else server.port
                order = Order(
                    "grpc" if is_grpc(cell.kind) else "http",
                    port,
                    server.process.pid,
                    str(bench.write_request(cell.kind, cell.rows)),
                    cell.clients,
                    options.seconds,
                    min(0.3, options.seconds),
                )
                result = measure(generator, order)
                if isinstance(result, Failure):
                    cell.errors.append(result.error)
                cell.loads.append(None if isinstance(result, Failure) else result)


def describe(bench: Bench, options: Any) -> dict[str, Any]:
    """Say what was measured, and where."""
    metadata = bench.bundle.metadata
    return {
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "trees": metadata.rounds,
        "depth": metadata.params["max_depth"],
        "features": len(bench.bundle.featuriser.names),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "starts": options.starts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=3, help="of each server, to see how long one takes")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file, too")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that all of it works")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds, options.starts = 0.3, 1, 1
    for python, group in ((PEERS_PYTHON, "peers"), (PREDICTOR_PYTHON, "predictor")):
        if not python.exists():
            raise SystemExit(f"there is no {python.relative_to(ROOT)}: run `make environment-{group}`")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no server is left behind
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder, contextlib.ExitStack() as stack:
        home, port = Path(folder), find_port()
        sink = [sys.executable, str(Path(__file__).with_name("_sink.py")), str(port)]
        stack.enter_context(run("sink", sink, port, home / "sink.log", path="/"))
        bench = prepare(home, f"http://127.0.0.1:{port}/")
        report = Report(describe(bench, options))
        measure_starts(bench, report, options.starts)
        servers: dict[str, Server] = {}
        for contender in bench.contenders:
            server = servers[contender.name] = stack.enter_context(bench.start(contender))
            check(bench, contender, server)
        measure_loads(bench, report, servers, options)
        for name, server in servers.items():
            if server.process.is_running():
                report.starts[name].loaded_mib = read_memory(server)
        report.events = read_events(servers["tenure"])
    report.goals = judge(report)
    report.machine["minutes"] = round((time.monotonic() - began) / 60, 1)
    if options.json:
        options.json.write_text(json.dumps(report.to_document(), indent=1) + "\n", encoding="utf-8")
    print_report(report)


if __name__ == "__main__":
    main()
