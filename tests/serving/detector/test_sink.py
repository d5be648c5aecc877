from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import DataError, OperationalError

from serving.detector.errors import LedgerError
from serving.detector.metrics import Metrics
from serving.detector.records import DeadLetter, Label, Record
from serving.detector.sink import FullError, Sink
from serving.detector.writer import Written

SECONDS = 20


class Fake:
    """A writer that waits at a gate, and fails as it is told to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.groups: list[list[Record]] = []
        self.fail: Callable[[Sequence[Record]], Exception | None] = lambda items: None

    def write(self, items: Sequence[Record]) -> Written:
        self.entered.release()
        assert self.open.wait(SECONDS)
        error = self.fail(items)
        if error is not None:
            raise error
        self.groups.append(list(items))
        return Written()


def fail_with(cause: type[OperationalError] | type[DataError]) -> LedgerError:
    error = LedgerError("told to fail")
    error.__cause__ = cause("insert", {}, Exception("as the database says"))
    return error


def make_label(number: int) -> Label:
    return Label("telco", str(number), "Yes", 1, 1)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@contextmanager
def run_sink(fake: Fake, **more: Any) -> Iterator[Sink]:
    sink = Sink(fake, Metrics(CollectorRegistry()), **{"items": 1000, "size": 1000, **more})
    sink.start()
    try:
        yield sink
    finally:
        fake.open.set()
        sink.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), SECONDS))


async def block(fake: Fake, sink: Sink) -> asyncio.Task[None]:
    """Let the writer hang over a first item; return who waits for it."""
    fake.open.clear()
    task = asyncio.create_task(sink.submit([make_label(-1)]))
    await asyncio.sleep(0)
    assert await asyncio.to_thread(fake.entered.acquire, timeout=SECONDS)
    return task


def test_what_waits_is_one_transaction_in_order(fake: Fake) -> None:
    with run_sink(fake) as sink:

        async def main() -> None:
            first = await block(fake, sink)
            rest = [asyncio.create_task(sink.submit([make_label(number)])) for number in range(50)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in rest)
            fake.open.set()
            await asyncio.gather(first, *rest)

        run(main)
    assert fake.groups == [[make_label(-1)], [make_label(number) for number in range(50)]]


def test_full_queue_refuses_and_takes_again(fake: Fake) -> None:
    with run_sink(fake, items=3) as sink:

        async def main() -> None:
            first = await block(fake, sink)
            second = asyncio.create_task(sink.submit([make_label(1), make_label(2)]))
            await asyncio.sleep(0)
            with pytest.raises(FullError):
                await sink.submit([make_label(3)])
            fake.open.set()
            await asyncio.gather(first, second)
            await sink.submit([make_label(number) for number in range(10)])  # alone it may be too long

        run(main)
        assert sink.describe()["waiting"] == 0
    assert len(fake.groups[-1]) == 10


def test_bytes_are_bounded(fake: Fake) -> None:
    with run_sink(fake, size=100) as sink:
        sink.reserve(60)
        with pytest.raises(FullError):
            sink.reserve(41)
        sink.release(60)
        sink.reserve(100)


def test_ledger_that_cannot_be_written_acknowledges_nothing_until_it_can(fake: Fake) -> None:
    fake.fail = lambda items: fail_with(OperationalError)
    with run_sink(fake) as sink:

        async def main() -> None:
            with pytest.raises(LedgerError):
                await sink.submit([make_label(1)])
            assert sink.failure is not None
            fake.fail = lambda items: None
            await sink.submit([make_label(1)])
            assert sink.failure is None

        run(main)
    assert fake.groups == [[make_label(1)]]


def test_item_that_the_ledger_refuses_goes_to_the_dead_letters_alone(fake: Fake) -> None:
    poison = make_label(13)
    fake.fail = lambda items: fail_with(DataError) if poison in items else None
    with run_sink(fake) as sink:

        async def main() -> None:
            first = await block(fake, sink)
            rest = [asyncio.create_task(sink.submit([make_label(number)])) for number in (12, 13, 14)]
            await asyncio.sleep(0)
            fake.open.set()
            await asyncio.gather(first, *rest)

        run(main)
    written = [item for group in fake.groups for item in group]
    assert [item for item in written if isinstance(item, Label)] == [make_label(n) for n in (-1, 12, 14)]
    (letter,) = [item for item in written if isinstance(item, DeadLetter)]
    assert "refuses" in letter.reason
    assert b"'13'" in letter.body


# The thread ends as it should: by the mistake that killed it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_mistake_of_ours_ends_everything_and_leaves_nobody_waiting(fake: Fake) -> None:
    died = threading.Event()
    fake.fail = lambda items: ZeroDivisionError("a mistake")
    with run_sink(fake, on_death=died.set) as sink:

        async def main() -> None:
            first = await block(fake, sink)
            second = asyncio.create_task(sink.submit([make_label(1)]))
            await asyncio.sleep(0)
            fake.open.set()
            for task in (first, second):
                with pytest.raises(LedgerError, match="a mistake"):
                    await task
            with pytest.raises(FullError):
                await sink.submit([make_label(2)])

        run(main)
        assert died.wait(SECONDS)


def test_close_writes_what_waits(fake: Fake) -> None:
    with run_sink(fake) as sink:

        async def main() -> None:
            first = await block(fake, sink)
            second = asyncio.create_task(sink.submit([make_label(1)]))
            await asyncio.sleep(0)
            closing = asyncio.create_task(asyncio.to_thread(sink.close))
            await asyncio.sleep(0)
            fake.open.set()
            await asyncio.gather(first, second, closing)
            with pytest.raises(FullError, match="ending"):
                await sink.submit([make_label(2)])

        run(main)
    assert len(fake.groups) == 2


def test_sender_that_goes_away_disturbs_nobody(fake: Fake) -> None:
    with run_sink(fake) as sink:

        async def main() -> None:
            first = await block(fake, sink)
            gone = asyncio.create_task(sink.submit([make_label(1)]))
            stays = asyncio.create_task(sink.submit([make_label(2)]))
            await asyncio.sleep(0)
            gone.cancel()
            fake.open.set()
            await asyncio.gather(first, stays)

        run(main)
    assert make_label(1) in fake.groups[1]
