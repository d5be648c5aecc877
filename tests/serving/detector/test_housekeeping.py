"""Housekeeping: what leaves the ledger is in the store exactly once, whenever it is interrupted."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pandas as pd
import psycopg
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, func, select

from clients.errors import UnreachableError
from clients.ledger.schema import dead_letters, exports, halves, labels, losses, metadata, predictions
from clients.store import Store
from serving.detector import export, housekeeping
from serving.detector.housekeeping import Housekeeper
from serving.detector.records import DeadLetter, Label, Record, Request, Response
from serving.detector.writer import Writer

MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE
NOON = 20_000 * DAY + DAY // 2


@dataclass(frozen=True)
class Settings:
    ledger_url: SecretStr
    retention_days: int = 30
    dead_letter_days: int = 14
    export_minutes: int = 60
    pairing_minutes: int = 10


class Broken(Store):
    """A store that fails at the n-th object, before or after it is stored."""

    def __init__(self, store: Store, bucket: str, at: int, late: bool) -> None:
        super().__init__(store._client, store._url, bucket)
        self._left, self._late = at, late

    def put_bytes(self, data: bytes, uri: str, content_type: str = "application/octet-stream") -> str:
        self._left -= 1
        if self._left == 0 and not self._late:
            raise UnreachableError("down")
        super().put_bytes(data, uri, content_type)
        if self._left == 0:
            raise UnreachableError("down")
        return uri


class Clock:
    now = NOON

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(ledger_engine: Engine, clock: Clock) -> Writer:
    return Writer(ledger_engine, clock=clock)


@pytest.fixture
def bucket(store: Store) -> Store:
    """A store in which everything lies below a folder of this test's own."""
    return Store(store._client, store._url, f"{store.bucket}/{uuid4().hex}")


@pytest.fixture
def make(
    ledger_engine: Engine, ledger_url: str, writer: Writer, bucket: Store, clock: Clock
) -> Iterator[Callable[..., Housekeeper]]:
    made: list[Housekeeper] = []

    def make(store: Store | None = None, **changes: Any) -> Housekeeper:
        settings = replace(Settings(SecretStr(ledger_url)), **changes)
        made.append(Housekeeper(settings, ledger_engine, writer, store or bucket, clock))
        return made[-1]

    yield make
    for keeper in made:
        keeper.close()


def predict(writer: Writer, first: int, count: int, moment: int = NOON) -> None:
    items: list[Record] = []
    for number in range(first, first + count):
        event = (f"e{number}", "s", "v", moment)
        items.append(Request(*event, [f"c{number}", None], [{"x": number}, {"x": None}]))
        items.append(Response(*event, [0.25, 0.75], [False, True]))
    writer.write(items)


def read_store(store: Store, kind: str) -> pd.DataFrame:
    frames = []
    for stored in store.list(f"s3://{store.bucket}/ledger/{kind}"):
        frame = pq.read_table(io.BytesIO(store.get_bytes(stored.uri))).to_pandas()
        day = stored.uri.split("/day=")[1].split("/")[0]
        column = "time" if kind == "predictions" else "known_at"
        assert {str(moment.date()) for moment in frame[column]} == {day}
        frames.append(frame)
    return pd.concat(frames).sort_values("seq", ignore_index=True) if frames else pd.DataFrame()


def count(engine: Engine, table: Any) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_rows_are_stored_by_day(
    make: Callable[..., Housekeeper], writer: Writer, bucket: Store, ledger_engine: Engine
) -> None:
    predict(writer, 0, 3, NOON - DAY)
    predict(writer, 3, 2, NOON)
    predict(writer, 5, 1, NOON - DAY)
    writer.write([Label("s", "c0", "Yes", NOON + DAY, NOON)])
    keeper = make()
    assert keeper.export() == 13
    assert keeper.export() == 0
    frame = read_store(bucket, "predictions")
    assert frame["seq"].tolist() == list(range(1, 13))
    assert frame["event_id"].tolist() == [f"e{number}" for number in range(6) for _ in range(2)]
    assert frame["features"].tolist()[:2] == ['{"x":0}', '{"x":null}']
    assert frame["customer_id"].tolist()[1] is None
    assert str(frame["time"].dtype) == "datetime64[us, UTC]"
    assert frame["churn"].dtype == bool
    assert read_store(bucket, "labels")["true_at"].iloc[0] == pd.Timestamp(NOON + DAY, unit="us", tz="UTC")
    assert count(ledger_engine, exports) == 3
    predict(writer, 6, 1)
    assert keeper.export() == 2
    assert len(read_store(bucket, "predictions")) == 14


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("at", [1, 3])
def test_interrupted_exports_go_on(
    make: Callable[..., Housekeeper],
    writer: Writer,
    bucket: Store,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    late: bool,
) -> None:
    monkeypatch.setattr(export, "ROWS", 6)
    predict(writer, 0, 2, NOON - DAY)
    predict(writer, 2, 4, NOON)
    with pytest.raises(UnreachableError):
        make(Broken(bucket, bucket.bucket, at, late)).export()
    predict(writer, 6, 3, NOON - 2 * DAY)
    make().export()
    assert read_store(bucket, "predictions")["seq"].tolist() == list(range(1, 19))


def test_only_what_is_stored_and_old_is_deleted(
    make: Callable[..., Housekeeper],
    writer: Writer,
    bucket: Store,
    ledger_engine: Engine,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "ROWS", 3)
    predict(writer, 0, 5, NOON - 31 * DAY)
    predict(writer, 5, 2, NOON - 29 * DAY)
    old, new = NOON - 31 * DAY, NOON - DAY
    writer.write([Label("s", "a", "Yes", old, old), Label("s", "b", "Yes", new, old)])
    writer.write([DeadLetter("/", "x", {}, b""), Request("lost", "s", "v", old, ["a"], [{}])])
    writer.give_up_halves(NOON + 1)
    keeper = make()
    assert keeper.delete_old() == 1
    assert count(ledger_engine, losses) == 0
    keeper.export()
    assert keeper.delete_old() == 11
    assert (count(ledger_engine, predictions), count(ledger_engine, labels)) == (4, 1)
    assert count(ledger_engine, dead_letters) == 1
    clock.now += 15 * DAY
    assert keeper.delete_old() == 5
    assert count(ledger_engine, dead_letters) == 0
    assert len(read_store(bucket, "predictions")) == 14
    # What was deleted is not exported again, and numbers go on.
    predict(writer, 7, 1)
    assert keeper.export() == 2
    assert read_store(bucket, "predictions")["seq"].tolist() == list(range(1, 17))


def test_due_work_is_done_by_and_by(
    make: Callable[..., Housekeeper], writer: Writer, bucket: Store, ledger_engine: Engine, clock: Clock
) -> None:
    keeper = make()
    predict(writer, 0, 1)
    writer.write([Request("half", "s", "v", NOON, ["a"], [{}])])
    clock.now += 9 * MINUTE
    keeper.tick()
    assert (count(ledger_engine, halves), count(ledger_engine, losses)) == (1, 0)
    clock.now += 2 * MINUTE
    keeper.tick()
    assert (count(ledger_engine, halves), count(ledger_engine, losses)) == (0, 1)
    clock.now += 50 * MINUTE
    keeper.tick()
    assert len(read_store(bucket, "predictions")) == 2
    predict(writer, 1, 1)
    clock.now += 30 * MINUTE
    make().tick()
    assert len(read_store(bucket, "predictions")) == 2
    clock.now += 31 * MINUTE
    make().tick()
    assert len(read_store(bucket, "predictions")) == 4


def test_a_store_that_is_down_ends_nothing(
    make: Callable[..., Housekeeper],
    writer: Writer,
    bucket: Store,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "TICK_SECONDS", 0.02)
    predict(writer, 0, 1)
    keeper = make(Broken(bucket, bucket.bucket, 1, False))
    clock.now += 61 * MINUTE
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=[stop])
    thread.start()
    deadline = time.monotonic() + 30
    while not len(read_store(bucket, "predictions")) and time.monotonic() < deadline:
        stop.wait(0.02)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    assert len(read_store(bucket, "predictions")) == 2
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "housekeeping: down"
    ]


def test_two_do_not_export_at_once(
    make: Callable[..., Housekeeper], writer: Writer, ledger_engine: Engine, ledger_url: str
) -> None:
    if ledger_engine.dialect.name != "postgresql":
        pytest.skip("with SQLite there is one detector")
    predict(writer, 0, 1)
    with psycopg.connect(ledger_url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [export._LOCK])
        assert make().export() == 0
    assert make().export() == 2


def test_the_tables_that_only_grow_are_known() -> None:
    """A table that is added later needs an answer to what becomes of its old rows."""
    bounded = {"predictions", "halves", "losses", "labels", "dead_letters"}
    small = {"verdicts", "causes", "transitions", "exports"}
    assert set(metadata.tables) == bounded | small
