"""A real server of the runs API in a process of its own, and small compiled pipelines."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from embedded.home import Home

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kfp

BIN = Path(sys.executable).parent
FINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compiled pipelines by name."""
    folder = tmp_path_factory.mktemp("packages")
    source = Path(__file__).with_name("pipelines.py")
    subprocess.run([sys.executable, "-W", "ignore", source, folder], check=True, timeout=120)
    return {path.stem: path for path in folder.glob("*.yaml")}


class Server:
    """A runs server over a home, and ways to talk to it."""

    def __init__(self, path: Path) -> None:
        self.home = Home.open(path, create=True)
        self.url = f"http://127.0.0.1:{self.home.state.ports.runs}"
        self.token = self.home.secrets.runs_token.get_secret_value()
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, trust_env=False, timeout=10
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.home.logs / "runs.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "embedded.runs"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TENURE_HOME": str(self.home.path)},
            )
        wait_until(self.is_ready, 60, lambda: (self.home.logs / "runs.log").read_text())

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home.logs / "runs.log").read_text()
        try:
            return self.http.get("/apis/v2beta1/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def end(self, number: int) -> int:
        """Send a signal and wait for the end; return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def client(self) -> kfp.Client:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kfp.Client(host=self.url, existing_token=self.token)

    def run_cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the `kfp` command line against the server."""
        return subprocess.run(
            [BIN / "kfp", "--endpoint", self.url, "--existing-token", self.token, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def submit(self, package: Path, parameters: dict[str, Any] | None = None, name: str = "a run") -> str:
        """Submit a package to the default experiment; return the run's id."""
        import yaml

        # As kfp.Client does: both under their names when there is a platform's part.
        spec, *platform = yaml.load_all(package.read_text(), Loader=yaml.CSafeLoader)
        body = {
            "display_name": name,
            "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec,
            "runtime_config": {"parameters": parameters or {}},
        }
        response = self.http.post("/apis/v2beta1/runs", json=body)
        assert response.status_code == 200, response.text
        return str(response.json()["run_id"])

    def get(self, run_id: str) -> dict[str, Any]:
        response = self.http.get(f"/apis/v2beta1/runs/{run_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait(self, run_id: str, seconds: float = 90) -> dict[str, Any]:
        """Wait for a run's final state and return the run."""
        wait_until(lambda: self.get(run_id)["state"] in FINAL, seconds, lambda: self.log(run_id))
        return self.get(run_id)

    def list_steps(self, run_id: str) -> dict[str, str]:
        """Return the states of a run's steps by name."""
        tasks = self.get(run_id)["run_details"]["task_details"]
        return {task["display_name"]: task["state"] for task in tasks}

    def log(self, run_id: str, step: str | None = None) -> str:
        node = "" if step is None else f"/nodes/{step}"
        response = self.http.get(f"/apis/v1alpha1/runs/{run_id}{node}/log")
        assert response.status_code == 200, response.text
        return response.text


def wait_until(
    condition: Callable[[], bool], seconds: float, explain: Callable[[], str] = lambda: ""
) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain\n{explain()}")
        time.sleep(0.05)


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Start servers over one home; whatever they leave behind is ended."""
    started: list[Server] = []

    def make() -> Server:
        server = Server(tmp_path / "home")
        server.start()
        started.append(server)
        return server

    yield make
    for server in started:
        _end(server)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that leave it running."""
    server = Server(tmp_path_factory.mktemp("shared") / "home")
    server.start()
    yield server
    _end(server)


@pytest.fixture
def server(shared_server: Server) -> Server:
    return shared_server


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition, e.g. `until(lambda: ..., 10)`."""
    return wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for what steps note."""
    path = tmp_path / "notes"
    path.mkdir()
    return path


@pytest.fixture
def unique() -> str:
    """A name nobody else uses."""
    return uuid.uuid4().hex[:10]


@pytest.fixture
def read_pids(folder: Path) -> Callable[[], list[int]]:
    """Wait for the step of `waiting` and return the ids of its processes."""

    def read() -> list[int]:
        wait_until((folder / "pids").exists, 90)
        return [int(text) for text in (folder / "pids").read_text().split()]

    return read


@pytest.fixture
def are_gone() -> Callable[[list[int]], bool]:
    def check(pids: list[int]) -> bool:
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    return False
        return True

    return check


def _end(server: Server) -> None:
    server.http.close()
    if server.process is not None and server.process.poll() is None:
        server.end(signal.SIGTERM)
