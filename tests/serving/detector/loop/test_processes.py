"""Real deaths: processes of the trigger and the server of runs get SIGKILL; the ledger is a real file."""

# No `from __future__ import annotations`: kfp reads the annotations as objects.
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from clients.ledger.instant import to_us
from clients.runs import PIPELINE, Runs
from clients.settings import Settings
from embedded.home import Home
from serving.detector.records import Label, Request, Response
from tenure.drift.verdict import Finding, Verdict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kfp import compiler, dsl

PROCESS = Path(__file__).with_name("process.py")
ROOT = Path(__file__).resolve().parents[4]


def tell(reason: str) -> str:
    return reason


class Server:
    """The laptop platform's real server of runs."""

    def __init__(self, directory: Path) -> None:
        self.home = Home.open(directory / "home", create=True)
        self.url = f"http://127.0.0.1:{self.home.state.ports.runs}"
        self.log = directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "embedded.runs"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TENURE_HOME": str(self.home.path)},
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                httpx.get(f"{self.url}/apis/v2beta1/healthz", trust_env=False)
            except httpx.TransportError:
                continue
            return

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def runs(server: Server, tmp_path: Path) -> Runs:
    """The runs API with a pipeline that takes what ours takes, and ends soon."""
    component = dsl.component(base_image="none", install_kfp_package=False)(tell)

    def pipeline(project: str, source: str = "", reason: str = "") -> None:
        component(reason=reason)

    package = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(dsl.pipeline(name=PIPELINE)(pipeline), str(package))
    settings = Settings(
        _env_file=None,
        runs_url=server.url,
        runs_token=server.home.secrets.runs_token,
        s3_url="http://127.0.0.1:9",
        s3_access_key=SecretStr("a"),
        s3_secret_key=SecretStr("b"),
        tracking_url="http://127.0.0.1:9",
        gateway_url="http://127.0.0.1:9",
    )
    runs = Runs.connect(settings)
    runs.upload(package)
    return runs


KILLS = (
    ["after", "save_cause", 1],
    ["before", "update_cause", 2],  # behind the note that it is submitted
    ["before", "start", 1],
    ["after", "start", 1],
    ["before", "update_cause", 1],  # the run is found, and not noted
    ["after", "update_cause", 1],
)


def record_customers(world: Any, version: str) -> datetime:
    """Record 300 labelled customers of this minute; returns since when."""
    now = to_us(datetime.now(UTC)) - 60_000_000
    items: list[Any] = []
    for number in range(300):
        event, customer = f"e{number}", f"c{number}"
        items.append(Request(event, "churn", version, now + number, [customer], [{"months": 1}]))
        items.append(Response(event, "churn", version, now + number + 1, [0.5], [True]))
        items.append(Label("churn", customer, "Yes", now + 1000, now + 2000))
    world.writer.write(items)
    return datetime.fromtimestamp(now / 1e6, UTC)


@pytest.mark.timeout(240)
def test_killed_processes_and_server_start_one_run(world: Any, server: Server, runs: Runs) -> None:
    since = record_customers(world, "abc")
    finding = Finding(
        column="months",
        kind="covariate",
        p_value=0.0,
        level=1e-5,
        effect=0.5,
        measure="psi",
        threshold=0.1,
        scale=1,
        since=since,
        significant=True,
        material=True,
    )
    verdict = Verdict(
        service="churn",
        version="abc",
        family="inputs",
        number=1,
        rows=300,
        since=since,
        until=since,
        findings=(finding,),
    )
    given = {
        "ledger": str(world.path),
        "runs_url": server.url,
        "runs_token": server.home.secrets.runs_token.get_secret_value(),
        "project": world.champion.project.model_dump_json(),
        "verdict": verdict.model_dump_json(),
    }
    for kill in [*KILLS, None]:
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", str(PROCESS), json.dumps({**given, "kill": kill})],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        expected = 0 if kill is None else -signal.SIGKILL
        assert ended.returncode == expected, (kill, ended.stdout, ended.stderr)
        if kill == ["after", "start", 1]:
            # The server dies as well, with the run in its hands.
            server.stop(signal.SIGKILL)
            server.start()
    [cause] = world.read()
    assert cause["state"] == "succeeded", cause["note"]
    [run] = runs.list()
    assert run.id == cause["run_id"]
    assert cause["id"] in run.name
