"""What the log of inferences costs a predictor, and whether the detector keeps up.

    python benchmarks/events.py [--seconds 60] [--rounds 3] [--detector-python .venv-detector/bin/python]

First part: predictors without a log, with one, and with one whose sink is dead take turns under the same load
(closed loop, 8 clients). Trust CPU per request and the ratios; requests per second depend on the machine.
Second part: a real detector with a real ledger (SQLite) behind one of them at full rate; in the end
answered = rows + dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from _load import Load, Order, drive
from _requests import build_request
from _servers import NAME, ROOT, Server, build_predictor_command, find_port, read_metric, run, train_bundle

from tenure.bundle import load_bundle

NOWHERE = "http://127.0.0.1:9"
ROUND_SECONDS = 4.0
CLIENTS = 8
PATIENCE = 120  # seconds in which the detector must have taken what waits


@contextlib.contextmanager
def start_detector(folder: Path, python: str) -> Iterator[tuple[psutil.Process, str]]:
    """Start a detector whose other addresses lead nowhere; yield its process and its address."""
    port = find_port()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": NOWHERE}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    own = {
        "ENV_FILE": str(folder / "none"),
        "KUBECONFIG": str(kubeconfig),
        "LEDGER_URL": f"sqlite:///{folder}/ledger.db",
        "DETECTOR_HOST": "127.0.0.1",
        "DETECTOR_PORT": str(port),
        **dict.fromkeys(["RUNS_URL", "S3_URL", "TRACKING_URL", "GATEWAY_URL"], NOWHERE),
        **dict.fromkeys(["S3_ACCESS_KEY", "S3_SECRET_KEY"], "none"),
    }
    environment = {**os.environ, **{f"TENURE_{name}": value for name, value in own.items()}}
    with (folder / "detector.log").open("wb") as output:
        command = [python, "-m", "serving.detector"]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"no detector:\n{(folder / 'detector.log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield psutil.Process(process.pid), url
    finally:
        process.terminate()
        process.wait(30)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def start_predictor(
    name: str, bundle: Path, folder: Path, sink: str | None
) -> contextlib.AbstractContextManager[Server]:
    """Start a predictor that logs to a sink, or nowhere."""
    port, grpc_port = find_port(), find_port()
    command = build_predictor_command(bundle, port, grpc_port, sink)
    return run(name, command, port, folder / f"{name.replace(' ', '-')}.log")


def measure(server: Server, request: Path, clients: int, seconds: float) -> Load:
    """Put a predictor under load."""
    return drive(Order("http", server.port, server.process.pid, str(request), clients, seconds))


def compare(servers: list[Server], request: Path, rounds: int) -> None:
    """Let the predictors take turns, and print what each did: alone with one client, and at full rate."""
    loads: dict[tuple[str, int], list[Load]] = {}
    for _ in range(rounds):
        for server in servers:
            for clients in (1, CLIENTS):
                load = measure(server, request, clients, ROUND_SECONDS)
                loads.setdefault((server.name, clients), []).append(load)
    print(f"{'':11}{'clients':>8}{'CPU us/request':>16}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for (name, clients), measured in loads.items():
        cpu, per_second, p50, p99 = (
            statistics.median(getattr(load, field) for load in measured)
            for field in ("cpu_us", "per_second", "p50_ms", "p99_ms")
        )
        print(f"{name:11}{clients:8}{cpu:16.0f}{per_second:12.0f}{p50:9.2f}{p99:9.2f}")


def fill(server: Server, detector: psutil.Process, url: str, request: Path, seconds: float) -> None:
    """Send at full rate, wait until the queue is empty, and print what became of the events."""
    predictor = f"http://127.0.0.1:{server.port}"
    before = [process.memory_info().rss for process in (server.process, detector)]
    start = read_metric(predictor, 'predictor_events_total{outcome="queued"}')
    rows_before = read_metric(url, "detector_predictions_total")
    cpu = detector.cpu_times()
    load = measure(server, request, CLIENTS, seconds)
    lag = read_metric(url, "detector_lag_seconds")
    peak = [process.memory_info().rss for process in (server.process, detector)]
    began = time.monotonic()
    while waiting := read_metric(predictor, "predictor_events_waiting"):
        if time.monotonic() - began > PATIENCE:
            raise SystemExit(f"{waiting:.0f} inferences still wait for the detector after {PATIENCE} s")
        time.sleep(0.1)
    drained = time.monotonic() - began
    counts = {
        outcome: read_metric(predictor, f'predictor_events_total{{outcome="{outcome}"}}')
        for outcome in ("queued", "sent", "dropped")
    }
    rows = read_metric(url, "detector_predictions_total")
    answered = read_metric(predictor, "churn_requests_total")
    print(
        f"{seconds:.0f} s at full rate: {load.per_second:.0f} requests/s, "
        f"{(counts['queued'] - start) / seconds:.0f} events/s queued, lag at the end {lag:.2f} s, "
        f"queue empty {drained:.1f} s later"
    )
    print(f"answered {answered:.0f} = rows {rows:.0f} + dropped {counts['dropped'] / 2:.0f}")
    after = detector.cpu_times()
    spent = after.user + after.system - cpu.user - cpu.system
    new = rows - rows_before
    print(f"{new / (seconds + drained):.0f} rows/s recorded, {1e6 * spent / new:.0f} us of CPU each")
    for name, low, high in zip(("predictor", "detector"), before, peak, strict=True):
        print(f"memory of the {name}: {low / 2**20:.0f} MiB before, {high / 2**20:.0f} MiB after")
    if answered != rows + counts["dropped"] / 2:
        raise SystemExit("events are missing that nobody has counted")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--detector-python", default=sys.executable)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        train_bundle(folder / "bundle")
        bundle = load_bundle(folder / "bundle")
        request = folder / "request"
        request.write_bytes(build_request("json", bundle.probe()[:1], bundle, NAME))
        detector, url = stack.enter_context(start_detector(folder, arguments.detector_python))
        sinks = {"no log": None, "log": f"{url}/events/{NAME}/v0", "dead sink": f"{NOWHERE}/"}
        servers = [
            stack.enter_context(start_predictor(label, folder / "bundle", folder, sink))
            for label, sink in sinks.items()
        ]
        compare(servers, request, arguments.rounds)
        fill(servers[1], detector, url, request, arguments.seconds)


if __name__ == "__main__":
    main()
