"""A detector as a process of its own, for tests that kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from clients.ledger.engine import open_engine
from clients.ledger.schema import labels, predictions
from embedded.ports import find_free_port

SECONDS = 60
NOWHERE = "http://127.0.0.1:9"
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": NOWHERE}}],
    "users": [{"name": "u", "user": {}}],
}


@dataclass
class Detector:
    """A detector process, whose other addresses lead nowhere."""

    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    database: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ledger(self) -> str:
        return self.database or f"sqlite:///{self.home}/ledger.db"

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def launch(self, **changes: str) -> subprocess.Popen[bytes]:
        (self.home / "kubeconfig").write_text(json.dumps(KUBECONFIG))
        own = {
            "ENV_FILE": str(self.home / "none"),
            "KUBECONFIG": str(self.home / "kubeconfig"),
            "RUNS_URL": NOWHERE,
            "S3_URL": NOWHERE,
            "S3_ACCESS_KEY": "a",
            "S3_SECRET_KEY": "very-secret",
            "TRACKING_URL": NOWHERE,
            "GATEWAY_URL": NOWHERE,
            "LEDGER_URL": self.ledger,
            "DETECTOR_HOST": "127.0.0.1",
            "DETECTOR_PORT": str(self.port),
            "GRACE_SECONDS": "5",
            **changes,
        }
        environment = {**os.environ, **{f"TENURE_{name}": value for name, value in own.items()}}
        with (self.home / "log").open("ab") as output:
            command = [sys.executable, "-m", "serving.detector"]
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        return self.process

    def start(self) -> None:
        self.launch()
        deadline = time.monotonic() + SECONDS
        while not self.is_ready():
            assert self.process is not None
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            threading.Event().wait(0.05)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def count(self, table: Any) -> int:
        engine = open_engine(self.ledger, read_only=True)
        with engine.connect() as connection:
            number = connection.execute(select(func.count()).select_from(table)).scalar_one()
        engine.dispose()
        return int(number)

    def read_ids(self) -> list[str]:
        return self._read(predictions.c.event_id)

    def read_customers(self) -> list[str]:
        """Return the customers of all labels."""
        return self._read(labels.c.customer_id)

    def _read(self, column: Any) -> list[str]:
        engine = open_engine(self.ledger, read_only=True)
        with engine.connect() as connection:
            values = list(connection.execute(select(column)).scalars())
        engine.dispose()
        return values


@pytest.fixture
def detector(tmp_path: Path) -> Iterator[Detector]:
    detector = Detector(tmp_path, find_free_port())
    yield detector
    if detector.process is not None and detector.process.poll() is None:
        detector.kill()
