from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import Engine, select

from clients.ledger.engine import open_engine
from clients.ledger.schema import dead_letters, labels, predictions, transitions
from serving.detector.errors import LedgerError
from serving.detector.event import KINDS
from serving.detector.metrics import Metrics
from serving.detector.migration import migrate
from serving.detector.server import Application, Limits
from serving.detector.sink import Sink
from serving.detector.writer import Writer

Ask = Callable[[Callable[[httpx.AsyncClient], Awaitable[None]]], None]

REQUEST, RESPONSE = KINDS
BATCH = {"content-type": "application/cloudevents-batch+json"}
LIMIT = 100_000


class Watching:
    """Stands for the watcher."""

    def __init__(self) -> None:
        self.uris: list[str] = []

    def notify(self, uri: str) -> None:
        self.uris.append(uri)

    def status(self) -> dict[str, Any]:
        return {"services": {}}

    def find_problem(self, service: str, outcome: str) -> str | None:
        return None if outcome in ("Yes", "No") else "unknown"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/ledger.db")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def watching() -> Watching:
    return Watching()


@pytest.fixture
def broken() -> list[str]:
    """Why the ledger cannot be written, if it is to be so."""
    return []


@pytest.fixture
def token() -> str | None:
    """What those who post must know, if anything."""
    return None


@pytest.fixture
def open_events() -> bool:
    """Whether those who post events must not."""
    return False


@pytest.fixture
def ask(
    engine: Engine, watching: Watching, broken: list[str], token: str | None, open_events: bool
) -> Iterator[Ask]:
    """Return a function that lets a client talk to the application."""
    metrics = Metrics(CollectorRegistry())
    sink = Sink(Writer(engine), metrics, items=1000, size=2 * LIMIT)
    sink.start()

    def check() -> None:
        if broken:
            raise LedgerError(broken[0])

    given = SecretStr(token) if token else None
    limits = Limits(LIMIT, "customer_id")
    application = Application(sink, metrics, watching, check, limits, given, open_events=open_events)

    def run(talk: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        async def main() -> None:
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://detector") as client:
                await talk(client)

        asyncio.run(asyncio.wait_for(main(), 30))

    yield run
    sink.close()


def make_events(event_id: str = "e1", score: float = 0.25) -> list[dict[str, Any]]:
    """Both halves of a prediction."""
    shared = {"id": event_id, "specversion": "1.0", "source": "here"}
    inputs = [{"name": "x", "shape": [1], "datatype": "FP64", "data": [2.5]}]
    inputs.append({"name": "customer_id", "shape": [1], "datatype": "BYTES", "data": ["c7"]})
    outputs = [{"name": "churn_probability", "shape": [1], "datatype": "FP64", "data": [score]}]
    outputs.append({"name": "churn", "shape": [1], "datatype": "BOOL", "data": [score > 0.5]})
    answer = {"model_version": "v1", "outputs": outputs}
    return [
        {**shared, "type": REQUEST, "time": "2026-01-01T00:00:00Z", "data": {"inputs": inputs}},
        {**shared, "type": RESPONSE, "time": "2026-01-01T00:00:00.002Z", "data": answer},
    ]


def read(engine: Engine, table: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(table)))


@pytest.mark.parametrize("token", ["secret"])
def test_who_posts_must_know_the_token(ask: Ask, engine: Engine) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        content = json.dumps(make_events())
        for path in ("/events", "/events/telco/v0", "/labels", "/transitions", "/notifications"):
            for said in ({}, {"authorization": "Bearer secre"}, {"authorization": "Basic secret"}):
                answer = await client.post(path, content=content, headers={**BATCH, **said})
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
                assert "TENURE_DETECTOR_TOKEN" in answer.json()["error"]
        for path in ("/healthz", "/readyz", "/metrics", "/status"):
            assert (await client.get(path)).status_code == 200, path
        known = {**BATCH, "authorization": "Bearer secret"}
        answer = await client.post("/events/telco/v0", content=content, headers=known)
        assert (answer.status_code, answer.json()["events"]) == (200, 2)
        answer = await client.post("/events", content=b"no event", headers=known)
        assert (answer.status_code, answer.json()["dead_letters"]) == (200, 1)

    ask(talk)
    assert len(read(engine, predictions)) == 1
    (letter,) = read(engine, dead_letters)
    assert "secret" not in str(letter)


@pytest.mark.parametrize(("token", "open_events"), [("secret", True)])
def test_where_an_agent_posts_events_outcomes_still_need_the_token(ask: Ask, engine: Engine) -> None:
    label = {"service": "telco", "customer_id": "c7", "outcome": "Yes", "true_at": "2026-02-01T00:00:00Z"}
    known = {"authorization": "Bearer secret"}

    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post("/events/telco/v0", content=json.dumps(make_events()), headers=BATCH)
        assert (answer.status_code, answer.json()["events"]) == (200, 2)
        for path in ("/labels", "/transitions", "/notifications"):
            answer = await client.post(path, json=[label])
            assert (answer.status_code, path in answer.json()["error"]) == (401, True)
        # No spelling of an address of events is one of outcomes: the one that is taken is a dead letter.
        spelled = {"/events/../labels": 401, "/events//labels": 200, "//labels": 404, "/labels/": 404}
        for path, status in spelled.items():
            assert (await client.post(path, json=[label])).status_code == status, path
        assert len(read(engine, dead_letters)) == 1
        assert read(engine, labels) == []
        answer = await client.post("/labels", json=[label], headers=known)
        assert (answer.status_code, answer.json()["accepted"]) == (200, 1)

    ask(talk)
    assert len(read(engine, predictions)) == len(read(engine, labels)) == 1


def test_batch_is_recorded(ask: Ask, engine: Engine) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for _ in range(2):  # a sender that did not hear the answer comes again
            answer = await client.post("/events/telco/v0", content=json.dumps(make_events()), headers=BATCH)
            assert (answer.status_code, answer.json()) == (200, {"events": 2, "dead_letters": 0})
        text = (await client.get("/metrics")).text
        assert 'detector_events_total{kind="request",outcome="recorded"} 2.0' in text
        assert 'detector_predictions_total{service="telco",version="v1"} 1.0' in text
        assert "detector_duplicates_total 2.0" in text
        assert "detector_queue_depth 0.0" in text
        assert "detector_lag_seconds " in text

    ask(talk)
    (row,) = read(engine, predictions)
    assert (row.service, row.version, row.customer_id, row.score, row.latency_ms) == (
        "telco",
        "v1",
        "c7",
        0.25,
        2,
    )
    assert json.loads(row.features) == {"x": 2.5}


def test_halves_in_binary_mode_as_the_agent_posts_them(ask: Ask, engine: Engine) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for event in reversed(make_events()):
            headers = {f"ce-{name}": value for name, value in event.items() if name != "data"}
            headers["content-type"] = "application/json"
            answer = await client.post("/events/telco/v0", json=event["data"], headers=headers)
            assert answer.json() == {"events": 1, "dead_letters": 0}

    ask(talk)
    assert len(read(engine, predictions)) == 1


def test_what_cannot_be_understood_is_kept(ask: Ask, engine: Engine) -> None:
    events = make_events()
    events[0]["data"] = {"inputs": "none"}

    async def talk(client: httpx.AsyncClient) -> None:
        headers = {**BATCH, "authorization": "Bearer secret"}
        answer = await client.post("/events/telco/v0", content=json.dumps(events), headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"events": 1, "dead_letters": 1})
        answer = await client.post("/events/telco", content=b"what?")
        assert (answer.status_code, answer.json()) == (200, {"events": 0, "dead_letters": 1})
        text = (await client.get("/metrics")).text
        assert 'detector_events_total{kind="unknown",outcome="dead_letter"} 1.0' in text
        assert "detector_dead_letters_total 2.0" in text

    ask(talk)
    first, second = read(engine, dead_letters)
    assert "request e1" in first.reason
    assert json.loads(first.body) == {"inputs": "none"}
    assert "secret" not in first.headers
    assert "/events/SERVICE/VERSION" in second.reason
    assert second.body == b"what?"


def test_labels(ask: Ask, engine: Engine) -> None:
    good = {"service": "telco", "customer_id": "c7", "outcome": "Yes", "true_at": "2026-01-05T00:00:00Z"}

    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post("/labels", json=[good, {**good, "outcome": "Perhaps"}])
        refusal = {"row": 1, "field": "outcome", "message": "unknown"}
        assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "refused": [refusal]})
        answer = await client.post("/labels", content=b"{")
        assert answer.status_code == 400
        assert "not JSON" in answer.json()["error"]

    ask(talk)
    assert [(row.customer_id, row.outcome) for row in read(engine, labels)] == [("c7", "Yes")]


def test_transitions_all_or_none(ask: Ask, engine: Engine) -> None:
    good = {
        "id": "a" * 64,
        "service": "telco",
        "at": 5,
        "outcome": "stepped",
        "shares": {"v1": 100},
        "evidence": {},
    }

    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post("/transitions", json=[{**good, "id": "b"}, {**good, "at": None}])
        assert answer.status_code == 400
        assert answer.json()["refused"][0]["row"] == 1
        for _ in range(2):
            answer = await client.post("/transitions", json=[good])
            assert (answer.status_code, answer.json()["accepted"]) == (200, 1)

    ask(talk)
    assert [row.id for row in read(engine, transitions)] == ["a" * 64]


def test_notices_reach_the_watcher(ask: Ask, watching: Watching) -> None:
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "k.csv"}}}

    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post("/notifications", json={"Records": [record]})
        assert answer.json() == {"notified": ["s3://b/k.csv"]}
        assert (await client.post("/notifications", content=b"7")).status_code == 400

    ask(talk)
    assert watching.uris == ["s3://b/k.csv"]


def test_health_readiness_status(ask: Ask, broken: list[str]) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        broken.append("the disk is full")
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "the disk is full"}
        assert (await client.get("/healthz")).status_code == 200
        status = (await client.get("/status")).json()
        assert status["sink"] == {"waiting": 0, "failure": None, "lag_seconds": None}
        assert status["watcher"] == {"services": {}}

    ask(talk)


def test_ledger_without_tables_acknowledges_nothing(ask: Ask, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE predictions")

    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post("/events/telco/v0", content=json.dumps(make_events()), headers=BATCH)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert 'kind="request",outcome="refused"} 1.0' in (await client.get("/metrics")).text

    ask(talk)


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status"),
    [
        ("GET", "/", b"", {}, 404),
        ("GET", "/labels", b"", {}, 405),
        ("DELETE", "/events/a/b", b"", {}, 405),
        ("POST", "/nowhere", b"", {}, 404),
        ("POST", "/labels", b" " * (LIMIT + 1), {}, 413),
        ("POST", "/labels", b"[]", {"content-encoding": "gzip"}, 415),
        ("POST", "/labels", b"[]", {"origin": "https://example.com"}, 403),
        ("POST", "/events", b"[]", {"origin": "null"}, 403),
    ],
)
def test_what_is_not_here(
    ask: Ask, method: str, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.request(method, path, content=content, headers=headers)
        assert answer.status_code == status
        assert answer.json()["error"]

    ask(talk)


def test_bodies_that_are_read_at_once_are_bounded(ask: Ask) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        async def drip() -> Any:
            yield b" " * LIMIT
            hanging.set()
            await release.wait()
            yield b""

        hanging, release = asyncio.Event(), asyncio.Event()
        slow = [asyncio.create_task(client.post("/labels", content=drip()))]
        await hanging.wait()
        hanging.clear()
        slow.append(asyncio.create_task(client.post("/labels", content=drip())))
        await hanging.wait()
        assert (await client.post("/labels", content=b"[]")).status_code == 503
        release.set()
        assert {answer.status_code for answer in await asyncio.gather(*slow)} == {400}
        assert (await client.post("/labels", content=b"[]")).status_code == 200

    ask(talk)
