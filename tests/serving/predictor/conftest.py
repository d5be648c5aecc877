"""A small contract with every kind of column, a bundle trained on it once, and real servers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest

from serving.predictor.decoding import Decoder
from tenure.bundle import Bundle, load_bundle, write_bundle
from tenure.contract import Contract
from tenure.featuriser import Featuriser
from tenure.project import Project
from tenure.scorer import Scorer
from tenure.training import train
from tenure.validation import validate_frame

NAME = "clients-of-test"
# Bytes that a server may keep of a hundred refused requests, some of them of its longest.
GROWTH = 48 * 2**20
DATATYPES = {
    "plan": "BYTES",
    "city": "BYTES",
    "months": "INT64",
    "calls": "INT64",
    "charge": "FP64",
    "credit": "FP64",
    "active": "BOOL",
    "autopay": "BOOL",
}
ROW: dict[str, Any] = {
    "plan": "gold",
    "city": None,
    "months": 12,
    "calls": None,
    "charge": 30.5,
    "credit": None,
    "active": True,
    "autopay": None,
}


@pytest.fixture(scope="session")
def project() -> Project:
    columns = [
        {"name": "client", "role": "id", "type": "string"},
        {"name": "left", "role": "label", "type": "boolean"},
        {"name": "plan", "type": "string", "categories": ["silver", "gold"], "unseen": "reject"},
        {"name": "city", "type": "string", "nullable": True},
        {"name": "months", "type": "integer", "minimum": 0, "maximum": 1000, "unseen": "reject"},
        {"name": "calls", "type": "integer", "nullable": True},
        {"name": "charge", "type": "float", "minimum": 0},
        {"name": "credit", "type": "float", "nullable": True},
        {"name": "active", "type": "boolean"},
        {"name": "autopay", "type": "boolean", "nullable": True},
    ]
    return Project.model_validate(
        {
            "name": "tested",
            "source": {"uri": "nowhere.csv"},
            "contract": {"columns": columns},
            "training": {"trials": 1, "folds": 2, "max_rounds": 30},
            "rollout": {"service": NAME},
        }
    )


@pytest.fixture(scope="session")
def contract(project: Project) -> Contract:
    return project.contract


@pytest.fixture(scope="session")
def frame(contract: Contract) -> pd.DataFrame:
    """600 customers whose leaving follows from months, charge and plan."""
    chance = np.random.default_rng(5)
    n = 600

    def maybe(values: Any, share: float = 0.2) -> list[Any]:
        return [None if chance.random() < share else value for value in values]

    months = chance.integers(0, 72, n)
    charge = chance.uniform(5, 100, n).round(2)
    plan = chance.choice(["silver", "gold"], n)
    leaning = 0.02 * charge - 0.06 * months + (plan == "silver") + chance.normal(0, 0.5, n)
    raw = pd.DataFrame(
        {
            "client": [f"c{number}" for number in range(n)],
            "left": leaning > np.quantile(leaning, 0.7),
            "plan": plan,
            "city": maybe(chance.choice(["Basel", "Bern", "Zürich"], n)),
            "months": months,
            "calls": maybe(chance.integers(0, 9, n).tolist()),
            "charge": charge,
            "credit": maybe(chance.normal(0, 10, n).tolist()),
            "active": chance.random(n) < 0.5,
            "autopay": maybe((chance.random(n) < 0.5).tolist()),
        }
    )
    return validate_frame(raw, contract).good


@pytest.fixture(scope="session")
def featuriser(frame: pd.DataFrame, contract: Contract) -> Featuriser:
    return Featuriser.fit(frame, contract)


@pytest.fixture(scope="session")
def decoder(contract: Contract, featuriser: Featuriser) -> Decoder:
    return Decoder(contract, featuriser, max_rows=50)


@pytest.fixture(scope="session")
def bundle_dir(frame: pd.DataFrame, project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(directory, train(frame, project), project=project, snapshot="0" * 64, code_version="test")
    return directory


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    return load_bundle(bundle_dir)


@pytest.fixture(scope="session")
def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Some customers as JSON values."""
    return [
        {
            name: None if pd.isna(value) else getattr(value, "item", lambda v=value: v)()
            for name, value in row.items()
        }
        for row in frame[list(DATATYPES)].head(200).to_dict("records")
    ]


@pytest.fixture(scope="session")
def score(bundle: Bundle) -> Callable[[list[dict[str, Any]]], np.ndarray]:
    """The scores that the bundle itself gives."""
    scorer = Scorer(bundle)

    def ask(wanted: list[dict[str, Any]]) -> np.ndarray:
        columns = {name: [row[name] for row in wanted] for name in DATATYPES}
        return scorer.score_matrix(bundle.featuriser.transform(columns))

    return ask


MakeBody = Callable[..., dict[str, Any]]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def make_body() -> MakeBody:
    """Return a function that makes the V2 request for some rows."""

    def make(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        inputs = [
            {"name": name, "shape": [len(rows)], "datatype": datatype, "data": [row[name] for row in rows]}
            for name, datatype in DATATYPES.items()
        ]
        return {"inputs": inputs, **more}

    return make


@pytest.fixture
def row() -> dict[str, Any]:
    """A good row with everything missing that may be."""
    return dict(ROW)


@pytest.fixture(scope="session")
def datatypes() -> dict[str, str]:
    """The features' V2 datatypes."""
    return dict(DATATYPES)


@pytest.fixture(scope="session")
def model_name() -> str:
    return NAME


def find_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


@dataclass
class Server:
    """A predictor process of ours."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", trust_env=False, timeout=60)

    def wait_until_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/v2/health/ready").status_code == 200:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the predictor is not ready:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def infer(self, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(f"/v2/models/{NAME}/infer", json=body, **more)

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)


Start = Callable[..., Server]


@pytest.fixture(scope="session")
def start(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start predictors; those still running at the end are stopped."""
    servers: list[Server] = []

    def run(*flags: str, model_dir: Path = bundle_dir, **environment: str) -> Server:
        http_port, grpc_port = find_ports(2)
        log = tmp_path_factory.mktemp("predictor") / "log"
        command = [
            sys.executable,
            "-m",
            "serving.predictor",
            f"--model_name={NAME}",
            f"--model_dir={model_dir}",
        ]
        command += [f"--http_port={http_port}", f"--grpc_port={grpc_port}", *flags]
        environment = {**os.environ, "TENURE_HTTP_HOST": "127.0.0.1", **environment}
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        server = Server(process, http_port, grpc_port, log)
        servers.append(server)
        return server

    yield run
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def server(start: Start) -> Server:
    """One predictor that all tests of this process share."""
    server = start(TENURE_MAX_ROWS="300", TENURE_MAX_BODY_BYTES="200000")
    server.wait_until_ready()
    return server


@pytest.fixture(scope="module")
def survives(
    server: Any, make_body: MakeBody, rows: Rows, score: Callable[[Rows], np.ndarray]
) -> Iterator[None]:
    """Around all tests of a module the server answers as before, and has not grown."""
    process = psutil.Process(server.process.pid)
    for _ in range(20):
        assert server.infer(make_body(rows[:300])).status_code == 200
    before = process.memory_info().rss
    yield
    answer = server.infer(make_body(rows[:3]))
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["data"] == score(rows[:3]).tolist()
    assert process.memory_info().rss - before < GROWTH
