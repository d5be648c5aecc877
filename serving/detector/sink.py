"""The way into the ledger: what arrives together is committed together, and answered when it is durable."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.exc import DataError, IntegrityError

from clients.ledger.instant import now_us
from serving.detector.errors import DetectorError, LedgerError
from serving.detector.metrics import Metrics
from serving.detector.records import DeadLetter, Record
from serving.detector.writer import Written

_GROUP_ITEMS = 4000  # one transaction of about half a second at most

_log = logging.getLogger("serving.detector")


class Writes(Protocol):
    """What the sink needs of the ledger's writer."""

    def write(self, items: Sequence[Record]) -> Written:
        """Commit all items in one transaction; the same items again change nothing."""


class FullError(DetectorError):
    """More waits for the ledger than may; the sender keeps what it has and comes again."""


@dataclass(slots=True)
class _Batch:
    """What one request brought."""

    items: list[Record]
    size: int
    future: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class Sink:
    """A bounded queue in front of the ledger, emptied by one thread.

    `submit` is called from an event loop; everything else from any thread. Items are written in the order in
    which they were submitted.

    Args:
        writer: Commits.
        metrics: Counts.
        items: Most items that may wait.
        size: Most bytes that may be reserved at a time.
        clock: Microseconds since 1970.
        on_death: Called in the sink's thread when it ends by a mistake of ours; nothing is taken any more.
    """

    def __init__(
        self,
        writer: Writes,
        metrics: Metrics,
        *,
        items: int,
        size: int,
        clock: Callable[[], int] = now_us,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self._writer = writer
        self._metrics = metrics
        self._limits = (items, size)
        self._clock = clock
        self._batches: deque[_Batch] = deque()
        self._waiting = 0
        self._reserved = 0
        self._changed = threading.Condition()
        self._closing = False
        self._newest: int | None = None
        self._on_death = on_death
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)
        self.failure: str | None = None
        """Why the newest transaction failed; None if it did not."""
        metrics.watch_queue(lambda: self._waiting, self.measure_lag)

    def start(self) -> None:
        """Start to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, then stop; what comes later is refused."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def reserve(self, size: int) -> None:
        """Set aside room for bytes that are being read; give them back with `release`.

        Raises:
            FullError: There is no room.
        """
        with self._changed:
            if self._reserved + size > self._limits[1]:
                raise FullError("too many bytes wait for the ledger: come again")
            self._reserved += size

    def release(self, size: int) -> None:
        """Give room back."""
        with self._changed:
            self._reserved -= size

    async def submit(self, items: list[Record]) -> None:
        """Return when all items are in the ledger, durably.

        Raises:
            FullError: Too much waits, or the detector is ending; nothing was taken.
            LedgerError: The ledger could not commit; some of the items may be there, so that they should be
                sent again.
        """
        if not items:
            return
        loop = asyncio.get_running_loop()
        batch = _Batch(items, len(items), loop.create_future(), loop)
        with self._changed:
            # What alone is more than the limit may come when nothing else waits.
            if self._closing or (self._waiting and self._waiting + len(items) > self._limits[0]):
                raise FullError(
                    "the detector is ending" if self._closing else "the queue is full: come again"
                )
            self._batches.append(batch)
            self._waiting += len(items)
            self._changed.notify_all()
        await batch.future

    def measure_lag(self) -> float | None:
        """Return the age in seconds of the newest prediction that was recorded, None before the first."""
        return None if self._newest is None else max(self._clock() - self._newest, 0) / 1e6

    def describe(self) -> dict[str, object]:
        """Return the queue's state as JSON."""
        return {"waiting": self._waiting, "failure": self.failure, "lag_seconds": self.measure_lag()}

    def _run(self) -> None:
        group: list[_Batch] = []
        try:
            while group := self._wait():
                try:
                    self._commit(group)
                except LedgerError as error:
                    self._settle(group, error)
        except BaseException as error:
            # Senders must not wait for an answer that never comes; the process is to end and start anew.
            with self._changed:
                self._closing = True
                group += self._batches
                self._batches.clear()
            self._settle(group, LedgerError(f"the detector has failed: {error!r}"))
            self._on_death()
            raise

    def _wait(self) -> list[_Batch]:
        """Return the next group; an empty one when the sink is closed and nothing waits."""
        with self._changed:
            while not self._batches and not self._closing:
                self._changed.wait()
            return self._take() if self._batches else []

    def _take(self) -> list[_Batch]:
        """Take what waits, as much as one transaction should hold; at least one batch."""
        group = [self._batches.popleft()]
        count = group[0].size
        while self._batches and count + self._batches[0].size <= _GROUP_ITEMS:
            count += self._batches[0].size
            group.append(self._batches.popleft())
        return group

    def _commit(self, group: list[_Batch]) -> None:
        """Write a group; if the ledger refuses the content of some, the rest is written all the same."""
        try:
            self._write([item for batch in group for item in batch.items])
        except LedgerError as error:
            if not _is_content(error):
                raise
            for batch in group:
                for item in batch.items:
                    self._write_alone(item)
        self._settle(group, None)

    def _write_alone(self, item: Record) -> None:
        try:
            self._write([item])
        except LedgerError as error:
            if isinstance(item, DeadLetter) or not _is_content(error):
                raise
            self._write([DeadLetter("/", f"the ledger refuses it: {error}", {}, repr(item).encode())])

    def _write(self, items: list[Record]) -> None:
        started = time.perf_counter()
        try:
            written = self._writer.write(items)
        except LedgerError:
            self._metrics.commit_failures.inc()
            raise
        self._metrics.commit_seconds.observe(time.perf_counter() - started)
        self._metrics.pairs.inc(written.paired)
        self._metrics.duplicates.inc(written.duplicates)
        self._metrics.dead_letters.inc(written.dead_letters)
        self._metrics.transitions.inc(written.transitions)
        for names, count in written.rows.items():
            self._metrics.predictions.labels(*names).inc(count)
        if written.newest is not None:
            self._newest = max(written.newest, self._newest or 0)

    def _settle(self, group: list[_Batch], error: LedgerError | None) -> None:
        """Answer everybody in a group."""
        text = None if error is None else str(error)
        if text != self.failure:
            if error is None:
                _log.info("the ledger can be written again")
            else:
                _log.error("the ledger cannot be written, senders are told to come again: %s", text)
        self.failure = text
        with self._changed:
            self._waiting -= sum(batch.size for batch in group)
        loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for batch in group:
            loops.setdefault(batch.loop, []).append(batch.future)
        for loop, futures in loops.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_answer, futures, error)


def _answer(futures: list[asyncio.Future[None]], error: LedgerError | None) -> None:
    for future in futures:
        if future.done():  # its sender has gone away
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _is_content(error: LedgerError) -> bool:
    """Whether the ledger refused what was written, rather than could not write at all."""
    return isinstance(error.__cause__, DataError | IntegrityError)
