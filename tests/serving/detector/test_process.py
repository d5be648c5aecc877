from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from clients.ledger.engine import open_engine
from clients.ledger.schema import dead_letters, halves, predictions
from embedded.ports import find_free_port
from serving.detector.event import KINDS
from serving.predictor.events import Events, Inference

SECONDS = 60
BATCH = {"content-type": "application/cloudevents-batch+json"}
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

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ledger(self) -> str:
        return f"sqlite:///{self.home}/ledger.db"

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
        engine = open_engine(self.ledger, read_only=True)
        with engine.connect() as connection:
            ids = list(connection.execute(select(predictions.c.event_id)).scalars())
        engine.dispose()
        return ids


@pytest.fixture
def detector(tmp_path: Path) -> Iterator[Detector]:
    detector = Detector(tmp_path, find_free_port())
    yield detector
    if detector.process is not None and detector.process.poll() is None:
        detector.kill()


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


REQUEST_BODY = json.dumps(
    {
        "inputs": [
            {"name": "customer_id", "shape": [1], "datatype": "BYTES", "data": ["c1"]},
            {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]},
        ]
    }
).encode()
RESPONSE_BODY = json.dumps(
    {
        "model_version": "v1",
        "outputs": [
            {"name": "churn_probability", "shape": [1], "datatype": "FP64", "data": [0.5]},
            {"name": "churn", "shape": [1], "datatype": "BOOL", "data": [True]},
        ],
    }
).encode()


def make_batch(ids: list[str]) -> bytes:
    return json.dumps(
        [
            {"id": event_id, "type": kind, "specversion": "1.0", "data": json.loads(body)}
            for event_id in ids
            for kind, body in zip(KINDS, (REQUEST_BODY, RESPONSE_BODY), strict=True)
        ]
    ).encode()


def test_no_acknowledged_event_is_lost_when_killed_under_load(detector: Detector) -> None:
    detector.start()
    acknowledged: list[str] = []
    refused: list[int] = []
    done = threading.Event()

    def send(sender: int) -> None:
        number = 0
        with httpx.Client(trust_env=False, timeout=10) as client:
            while not done.is_set():
                ids = [f"{sender}-{number}-{place}" for place in range(5)]
                number += 1
                while not done.is_set():
                    try:
                        answer = client.post(
                            f"{detector.url}/events/telco/v0", content=make_batch(ids), headers=BATCH
                        )
                    except httpx.TransportError:
                        done.wait(0.02)
                        continue
                    if answer.status_code == 200:
                        acknowledged.extend(ids)
                        break
                    refused.append(answer.status_code)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            before = len(acknowledged)
            wait_until(lambda before=before: len(acknowledged) > before + 200)
            detector.kill()
            kept = list(acknowledged)
            assert set(kept) <= set(detector.read_ids())
            detector.start()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    ids = detector.read_ids()
    assert len(ids) == len(set(ids))
    assert set(acknowledged) <= set(ids)
    assert len(acknowledged) == len(set(acknowledged)) > 600
    assert set(refused) <= {503}
    assert detector.count(dead_letters) == 0
    assert detector.stop() == 0


def test_predictors_log_loses_nothing_but_what_it_counts(detector: Detector) -> None:
    """Answered = rows + dropped, though the detector is killed twice while the log fills."""
    detector.start()
    events = Events(
        f"{detector.url}/events/telco/v0",
        "all",
        service="telco",
        namespace="default",
        version="v0",
        source="http://test/",
        capacity=200,  # too few for the time that a restart takes: some are dropped
        size=10_000_000,
        registry=CollectorRegistry(),
    )
    events.start()
    done = threading.Event()
    answered = 0

    def answer() -> None:
        nonlocal answered
        while not done.is_set():
            moment = time.time_ns()
            number = events.make_id(None)
            events.log(Inference(number, moment, moment, REQUEST_BODY, True, RESPONSE_BODY))
            answered += 1
            done.wait(0.002)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        for _ in range(2):
            sent = events.sent
            wait_until(lambda sent=sent: events.sent > sent + 100)
            detector.kill()
            dropped = events.dropped
            wait_until(lambda dropped=dropped: events.dropped > dropped)
            detector.start()
        sent = events.sent
        wait_until(lambda: events.sent > sent + 100)
    finally:
        done.set()
        thread.join()
        events.close(SECONDS)
    assert events.dropped > 0
    assert 2 * answered == events.sent + events.dropped
    assert detector.count(predictions) == events.sent // 2
    assert (detector.count(halves), detector.count(dead_letters)) == (0, 0)


def test_term_answers_what_is_in_flight(detector: Detector) -> None:
    detector.start()
    content = make_batch(["late"])
    started, release = threading.Event(), threading.Event()
    answers: list[int] = []

    def drip() -> Iterator[bytes]:
        yield content[:10]
        started.set()
        release.wait(SECONDS)
        yield content[10:]

    def send() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            path = f"{detector.url}/events/telco/v0"
            answers.append(client.post(path, content=drip(), headers=BATCH).status_code)

    thread = threading.Thread(target=send)
    thread.start()
    assert started.wait(SECONDS)
    assert detector.process is not None
    detector.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not detector.is_ready())
    release.set()
    thread.join()
    assert answers == [200]
    assert detector.process.wait(SECONDS) == 0
    assert detector.read_ids() == ["late"]


def test_says_why_it_cannot_start(detector: Detector) -> None:
    assert detector.launch(LEDGER_URL="mysql://u:very-secret@h/d").wait(SECONDS) == 1
    assert "TENURE_LEDGER_URL" in detector.log
    assert detector.launch(DETECTOR_PORT="0").wait(SECONDS) == 1
    assert "TENURE_DETECTOR_PORT" in detector.log
    detector.start()
    other = Detector(detector.home / "other", detector.port)
    other.home.mkdir()
    assert other.launch().wait(SECONDS) == 1
    assert f"cannot listen on 127.0.0.1:{detector.port}" in other.log
    assert detector.stop() == 0
    assert "very-secret" not in detector.log + other.log
    assert "Traceback" not in detector.log + other.log
