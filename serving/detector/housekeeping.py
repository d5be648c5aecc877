"""What keeps the ledger small: exports to the object store, retention, and halves that are given up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from pydantic import SecretStr
from sqlalchemy import Engine, Select, Table, delete, func, select

from clients.errors import ClientError
from clients.ledger.engine import open_engine
from clients.ledger.instant import now_us
from clients.ledger.schema import dead_letters, exports, labels, losses, predictions
from clients.store import Store
from serving.detector.errors import LedgerError
from serving.detector.export import KINDS, Exporter, read
from serving.detector.writer import Writer

logger = logging.getLogger("tenure.detector")

TICK_SECONDS = 20.0
"""How often is looked for work."""

ROWS = 2_000
"""Rows that one transaction deletes: events wait no longer than it takes."""

_MINUTE = 60_000_000
_DAY = 24 * 60 * _MINUTE


class Settings(Protocol):
    """What of the detector's settings is needed here."""

    @property
    def ledger_url(self) -> SecretStr:
        """The ledger."""

    @property
    def retention_days(self) -> int:
        """Age at which exported rows are deleted."""

    @property
    def dead_letter_days(self) -> int:
        """Age at which dead letters are deleted."""

    @property
    def export_minutes(self) -> int:
        """Minutes between exports."""

    @property
    def pairing_minutes(self) -> int:
        """How long one half of an event waits for the other."""


class Housekeeper:
    """Works in a thread of the detector; can be killed at any moment, and goes on where it was.

    Args:
        settings: The detector's.
        engine: The ledger, migrated.
        writer: Changes it.
        store: Where exports go.
        clock: Microseconds of now.
        count_lost: Is told how many halves were given up.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        writer: Writer,
        store: Store,
        clock: Callable[[], int] = now_us,
        count_lost: Callable[[int], object] = lambda lost: None,
    ) -> None:
        self._settings = settings
        self._count_lost = count_lost
        self._writer = writer
        self._clock = clock
        # The writer's engine locks SQLite even to read.
        self._engine = open_engine(settings.ledger_url.get_secret_value(), read_only=True)
        self._exporter = Exporter(self._engine, writer, store, clock)
        self._begun = clock()
        self._done = 0
        self._problem = ""

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; what fails is logged and tried again later."""
        while not stop.is_set():
            try:
                self.tick(stop.is_set)
                self._problem = ""
            except (LedgerError, ClientError) as error:
                if str(error) != self._problem:
                    logger.warning("housekeeping: %s", error)
                self._problem = str(error)
            stop.wait(TICK_SECONDS)
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()

    def tick(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Do what is due: give up halves; and, once in a while, export and delete.

        Raises:
            LedgerError: The ledger cannot be read or written.
            clients.errors.ClientError: The store.
        """
        lost = self._writer.give_up_halves(self._clock() - self._settings.pairing_minutes * _MINUTE)
        if lost:
            self._count_lost(lost)
            logger.warning("%d events lost: one half, request or response, never came", lost)
        if self._clock() >= self._find_due():
            began = self._clock()
            self.export(is_stopped)
            self.delete_old(is_stopped)
            self._done = began

    def export(self, is_stopped: Callable[[], bool] = lambda: False) -> int:
        """Store what is new; returns how many rows.

        Raises:
            LedgerError: The ledger cannot be read or written.
            clients.errors.ClientError: The store.
        """
        counts = {kind.name: self._exporter.export(kind, is_stopped) for kind in KINDS}
        if any(counts.values()):
            logger.info("exported %s", ", ".join(f"{rows} {name}" for name, rows in counts.items()))
        return sum(counts.values())

    def delete_old(self, is_stopped: Callable[[], bool] = lambda: False) -> int:
        """Delete what is older than the settings say, and stored if it is a prediction or a label.

        Returns:
            How many rows.

        Raises:
            LedgerError: The ledger cannot be read or written.
        """
        now = self._clock()
        cutoff = now - self._settings.retention_days * _DAY
        stored = {kind.name: self._exporter.find_last(kind) for kind in KINDS}
        seq, known = predictions.c.seq, labels.c
        old = [
            (predictions, seq, [seq <= stored["predictions"], predictions.c.time < cutoff]),
            # A label that is true later than it was known belongs to predictions that are not old yet.
            (
                labels,
                known.seq,
                [known.seq <= stored["labels"], known.known_at < cutoff, known.true_at < cutoff],
            ),
            (losses, losses.c.event_id, [losses.c.time < cutoff]),
            (
                dead_letters,
                dead_letters.c.id,
                [dead_letters.c.received_at < now - self._settings.dead_letter_days * _DAY],
            ),
        ]
        total = 0
        for table, key, conditions in old:
            rows = self._delete(table, select(key).where(*conditions).order_by(key).limit(ROWS), is_stopped)
            if rows:
                logger.info("deleted %d old rows of %s", rows, table.name)
            total += rows
        return total

    def _delete(self, table: Table, query: Select[tuple[object]], is_stopped: Callable[[], bool]) -> int:
        """Delete what a query of keys finds, in small transactions; the search itself locks nobody out."""
        (key,) = table.primary_key
        total = 0
        while not is_stopped():
            with read(self._engine) as connection:
                keys: Sequence[object] = connection.execute(query).scalars().all()
            if not keys:
                break
            with self._writer.begin() as connection:
                total += connection.execute(delete(table).where(key.in_(keys))).rowcount
        return total

    def _find_due(self) -> int:
        """Return when to export next: an interval after the last export, whoever made it."""
        with read(self._engine) as connection:
            last = connection.execute(select(func.max(exports.c.created_at))).scalar()
        newest = max(self._done, self._begun if last is None else last)
        return newest + self._settings.export_minutes * _MINUTE
