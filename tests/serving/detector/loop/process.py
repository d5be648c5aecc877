"""A process that leads a cause to its end, and may kill itself on the way: `process.py SETTINGS`.

SETTINGS is JSON: `ledger` (a file), `runs_url`, `runs_token`, `project`, `verdict`, and `kill`: which time
([when, method, count]) is the last moment of the process, or null.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from clients.ledger.engine import open_engine
from clients.ledger.reader import Ledger
from clients.notification import Notifier
from clients.runs import Runs
from clients.settings import Settings
from serving.detector import trigger as module
from serving.detector.champion import Champion
from serving.detector.metrics import Metrics
from serving.detector.trigger import Trigger
from serving.detector.writer import Writer
from tenure.drift.verdict import Verdict
from tenure.project import parse_project


class Mortal:
    """Passes calls on; the chosen one is the last thing that this process does."""

    def __init__(self, target: Any, kill: list[Any] | None, counts: dict[str, int]) -> None:
        self._target, self._kill, self._counts = target, kill, counts

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._counts[name] = self._counts.get(name, 0) + 1
            self._die("before", name)
            result = method(*arguments, **named)
            self._die("after", name)
            return result

        return call

    def _die(self, when: str, name: str) -> None:
        if self._kill == [when, name, self._counts[name]]:
            os.kill(os.getpid(), signal.SIGKILL)


def main(text: str) -> None:
    """Advance until no cause is open."""
    given = json.loads(text)
    kill, counts = given["kill"], dict[str, int]()
    url = f"sqlite:///{given['ledger']}"
    settings = Settings(
        _env_file=None,
        runs_url=given["runs_url"],
        runs_token=SecretStr(given["runs_token"]),
        s3_url="http://127.0.0.1:9",
        s3_access_key=SecretStr("a"),
        s3_secret_key=SecretStr("b"),
        tracking_url="http://127.0.0.1:9",
        gateway_url="http://127.0.0.1:9",
    )
    module.GRACE = timedelta(seconds=1)
    verdict = Verdict.model_validate_json(given["verdict"])
    bundle: Any = SimpleNamespace(version=verdict.version)
    champion = Champion("churn", bundle, parse_project(given["project"]))
    writer: Any = Mortal(Writer(open_engine(url)), kill, counts)
    runs: Any = Mortal(Runs.connect(settings), kill, counts)
    ledger = Ledger(url)
    clock = lambda: datetime.now(UTC)  # noqa: E731
    metrics = Metrics(CollectorRegistry())
    trigger = Trigger(ledger, writer, metrics, lambda: runs, Notifier.connect(settings), clock)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        trigger.open(verdict, champion)
        trigger.advance("churn", champion)
        states = [row["state"] for row in ledger.read_causes("churn")]
        if states and not set(states) & {"waiting", "submitting", "running"}:
            return
    raise SystemExit(f"no end: {states}")


if __name__ == "__main__":
    main(sys.argv[1])
