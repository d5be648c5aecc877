"""The one way into the ledger: a batch is one transaction, and what was acknowledged is on disk."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from clients.ledger.instant import now_us, to_us
from clients.ledger.schema import (
    causes,
    dead_letters,
    halves,
    labels,
    losses,
    predictions,
    transitions,
    verdicts,
)
from serving.detector.errors import LedgerError
from serving.detector.pairing import encode_json, forget_halves, pair
from serving.detector.records import DeadLetter, Label, Record, Request, Response, Transition

_LOCK = 0x7E40_0001
"""PostgreSQL's advisory lock of whoever writes: readers rely on `seq` rising in the order of commits."""

_JSON_COLUMNS = frozenset({"detail", "arguments"})
_CAUSE_COLUMNS = frozenset({"state", "note", "arguments", "run_id", "detail", "reason"})


@dataclass(frozen=True, slots=True)
class Written:
    """What one batch changed.

    Attributes:
        predictions: Rows of predictions that are new.
        paired: Events that are whole since this batch.
        duplicates: Halves, labels and transitions that were there before.
        labels: Labels that are new.
        dead_letters: Letters that were kept, pairs that do not fit among them.
        transitions: Transitions that are new.
        rows: New predictions by service and version.
        newest: When the newest of these predictions was asked for (microseconds); None without any.
    """

    predictions: int = 0
    paired: int = 0
    duplicates: int = 0
    labels: int = 0
    dead_letters: int = 0
    transitions: int = 0
    rows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    newest: int | None = None


class Writer:
    """Writes the ledger; threads of the one detector share it.

    Every method is one transaction: when it returns, that is durable; when it raises, nothing happened, or
    the connection broke while committing - then the same call again does no harm.

    Args:
        engine: From `clients.ledger.engine.open_engine`; the ledger is migrated already.
        clock: Microseconds of now.
    """

    def __init__(self, engine: Engine, clock: Callable[[], int] = now_us) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()

    def write(self, items: Sequence[Record]) -> Written:
        """Record a batch; the same items again change nothing.

        Request and response of an event become its predictions as soon as both are there. A pair whose rows
        do not match becomes a dead letter.

        Raises:
            LedgerError: The ledger cannot be written; nothing of the batch is acknowledged.
        """
        now = self._clock()
        events = [item for item in items if isinstance(item, Request | Response)]
        letters = [item for item in items if isinstance(item, DeadLetter)]
        with self.begin() as connection:
            paired = pair(connection, events, now)
            forget_halves(connection, paired.found)
            added = insert_new(connection, predictions, paired.predictions)
            insert_new(connection, halves, paired.halves)
            letters.extend(paired.letters)
            insert_new(connection, dead_letters, [_store_letter(letter, now) for letter in letters])
            facts = [_store_label(item, now) for item in items if isinstance(item, Label)]
            moves = [_store_transition(item, now) for item in items if isinstance(item, Transition)]
            new_facts = insert_new(connection, labels, facts)
            new_moves = insert_new(connection, transitions, moves)
        return Written(
            predictions=added,
            paired=paired.events,
            duplicates=paired.duplicates + len(facts) - new_facts + len(moves) - new_moves,
            labels=new_facts,
            dead_letters=len(letters),
            transitions=new_moves,
            rows=Counter((row["service"], row["version"]) for row in paired.predictions),
            newest=max((row["time"] for row in paired.predictions), default=None),
        )

    def save_verdict(
        self,
        *,
        service: str,
        version: str,
        family: str,
        number: int,
        first_seq: int,
        last_seq: int,
        since: datetime | int,
        until: datetime | int,
        rows: int,
        alarm: bool,
        verdict: str,
        report_uri: str | None = None,
    ) -> bool:
        """Record a window's verdict (JSON); says whether it is new. A window is judged once.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        row = {
            "service": service,
            "version": version,
            "family": family,
            "number": number,
            "first_seq": first_seq,
            "last_seq": last_seq,
            "since": to_us(since),
            "until": to_us(until),
            "rows": rows,
            "alarm": alarm,
            "verdict": verdict,
            "report_uri": report_uri,
            "created_at": self._clock(),
        }
        with self.begin() as connection:
            return insert_new(connection, verdicts, [row]) == 1

    def set_report(self, service: str, version: str, family: str, number: int, report_uri: str) -> bool:
        """Say where a verdict's report lies; False when there is no such verdict.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        key = verdicts.c
        query = update(verdicts).where(
            key.service == service, key.version == version, key.family == family, key.number == number
        )
        with self.begin() as connection:
            return connection.execute(query.values(report_uri=report_uri)).rowcount == 1

    def save_cause(
        self,
        *,
        id: str,
        service: str,
        kind: str,
        reason: str,
        detail: Mapping[str, Any],
        state: str = "waiting",
        note: str = "",
    ) -> bool:
        """Record a cause of a run unless it is known; says whether it is new.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        now = self._clock()
        row = {
            "id": id,
            "service": service,
            "kind": kind,
            "reason": reason,
            "detail": encode_json(detail),
            "state": state,
            "note": note,
            "arguments": None,
            "run_id": None,
            "created_at": now,
            "updated_at": now,
        }
        with self.begin() as connection:
            return insert_new(connection, causes, [row]) == 1

    def update_cause(self, id: str, *, expected_state: str | Collection[str], **columns: Any) -> bool:
        """Change a cause if it is still in one of the expected states; says whether it was.

        Args:
            id: Of the cause.
            expected_state: One state, or several.
            columns: Of `state`, `note`, `arguments` and `detail` (written as JSON), `run_id`, `reason`.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        unknown = sorted(columns.keys() - _CAUSE_COLUMNS)
        if unknown:
            raise TypeError(f"a cause's {', '.join(unknown)} cannot be changed")
        values = {
            name: encode_json(value) if name in _JSON_COLUMNS and not isinstance(value, str | None) else value
            for name, value in columns.items()
        }
        states = [expected_state] if isinstance(expected_state, str) else list(expected_state)
        query = update(causes).where(causes.c.id == id, causes.c.state.in_(states))
        with self.begin() as connection:
            return connection.execute(query.values(**values, updated_at=self._clock())).rowcount == 1

    def give_up_halves(self, older_than_us: int) -> int:
        """Turn halves that came before `older_than_us` (a moment) into losses; returns how many.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        old = halves.c.received_at < older_than_us
        with self.begin() as connection:
            query = select(
                halves.c.event_id, halves.c.kind, halves.c.service, halves.c.version, halves.c.time
            )
            rows = [dict(row) for row in connection.execute(query.where(old)).mappings()]
            insert_new(connection, losses, rows)
            connection.execute(delete(halves).where(old))
        return len(rows)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Enter a transaction as the only writer; commits at the end, and rolls back on any exception.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        try:
            with self._lock, self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                yield connection
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise LedgerError(
                f"the ledger cannot be written: {str(cause).strip()}; nothing was acknowledged, try again"
            ) from error


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows unless a row of the same key is there; returns how many are new."""
    if not rows:
        return 0
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing()
    options = {"preserve_rowcount": True}
    return int(connection.execute(statement, list(rows), execution_options=options).rowcount)


def _store_letter(letter: DeadLetter, now: int) -> dict[str, Any]:
    kept = letter.clip()
    return {
        "received_at": now,
        "path": kept.path,
        "reason": kept.reason,
        "headers": encode_json(kept.headers),
        "body": kept.body,
    }


def _store_label(label: Label, now: int) -> dict[str, Any]:
    return {
        "service": label.service,
        "customer_id": label.customer_id,
        "outcome": label.outcome,
        "true_at": label.true_at,
        "known_at": label.known_at,
        "recorded_at": now,
    }


def _store_transition(move: Transition, now: int) -> dict[str, Any]:
    return {
        "id": move.id,
        "service": move.service,
        "at": move.at,
        "outcome": move.outcome,
        "shares": encode_json(move.shares),
        "reason": move.reason,
        "evidence": encode_json(move.evidence),
        "recorded_at": now,
    }
