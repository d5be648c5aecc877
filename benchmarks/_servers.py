"""Servers as processes for the benchmarks: free ports, start and stop, a small bundle to serve."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

if TYPE_CHECKING:
    import pandas as pd

    from tenure.project import Project

ROOT = Path(__file__).resolve().parents[1]
NAME = "telco"
READY = f"/v2/models/{NAME}/ready"
PATIENCE = 180.0  # seconds that a server may take to become ready


@dataclass(frozen=True)
class Server:
    """A running server, and how long it took from its launch until it was ready."""

    name: str
    process: psutil.Process
    port: int
    grpc_port: int
    start_seconds: float


def train_bundle(directory: Path) -> tuple[Project, pd.DataFrame]:
    """Train the Telco project's model in a short search; return the project and the rows it learned from."""
    from tenure.bundle import write_bundle
    from tenure.partition import Part, assign_parts
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
    frame = frame[assign_parts(frame, project.contract, project.split, project.name) == Part.TRAIN.value]
    write_bundle(directory, train(frame, project), project=project, snapshot="0" * 64, code_version="bench")
    return project, frame


def build_predictor_command(
    bundle: Path, port: int, grpc_port: int, sink: str | None, python: Path = Path(sys.executable)
) -> list[str]:
    """Return the command of our predictor; it logs to a sink, or nowhere."""
    command = [str(python), "-m", "serving.predictor", f"--model_name={NAME}", f"--model_dir={bundle}"]
    command += [f"--http_port={port}", f"--grpc_port={grpc_port}"]
    return [*command, f"--logger_url={sink}"] if sink else command


def read_metric(url: str, name: str) -> float:
    """Return a metric's value, summed over its labels; `name` may hold the beginning of these."""
    lines = httpx.get(f"{url}/metrics", trust_env=False, timeout=30).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run(
    name: str, command: list[str], port: int, log: Path, grpc_port: int = 0, path: str = READY
) -> Iterator[Server]:
    """Start a server, wait until `path` answers, stop it in the end, and all that it has started."""
    own = {"TENURE_HTTP_HOST": "127.0.0.1", "PYTHONPATH": str(ROOT), "TMPDIR": str(log.parent)}
    environment = {**os.environ, **own}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start would compile it all again
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        while not is_ready(port, path):
            if process.poll() is not None or time.perf_counter() - started > PATIENCE:
                raise SystemExit(f"{name} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        yield Server(name, psutil.Process(process.pid), port, grpc_port, seconds)
    finally:
        stop(process)


def is_ready(port: int, path: str) -> bool:
    """Whether the server answers that all is well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, and what it has left behind."""
    below: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(below, timeout=5)
