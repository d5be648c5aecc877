"""The server's SQLite file. One connection, one writer: safe to call from any thread of the server."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from embedded.database import open_database, transact, translate
from embedded.runs.errors import ConflictError, MissingError
from embedded.runs.progress import CANCELING, PENDING, RUNNING
from embedded.runs.records import Experiment, Pipeline, Record, Recurring, Run, Version

R = TypeVar("R", bound=Record)

# Positions grow for ever: they give the order of creation and, for runs, the place in the queue.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS experiments (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, name TEXT UNIQUE NOT NULL,
    document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pipelines (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, name TEXT UNIQUE NOT NULL,
    document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS versions (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, name TEXT NOT NULL,
    pipeline_id TEXT NOT NULL REFERENCES pipelines (id), document TEXT NOT NULL, UNIQUE (pipeline_id, name));
CREATE TABLE IF NOT EXISTS runs (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL, queued INTEGER NOT NULL DEFAULT 0, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS recurring (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, name TEXT NOT NULL,
    document TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state, queued);
"""
_TABLES: dict[type[Record], str] = {
    Experiment: "experiments",
    Pipeline: "pipelines",
    Version: "versions",
    Run: "runs",
    Recurring: "recurring",
}


class Storage:
    """Reads and writes the records. Every method is one transaction.

    Each raises StorageError when the file cannot be read or written; nothing has changed then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._connection = open_database(path, _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, record: Record) -> None:
        """Store a new record; a run joins the queue's end.

        Raises:
            ConflictError: The name is taken (runs and recurring runs may share names).
        """
        name = record.name if isinstance(record, Pipeline | Version) else record.display_name
        columns: dict[str, object] = {
            "id": record.id,
            "name": name,
            "document": record.model_dump_json(),
        }
        if isinstance(record, Version):
            columns["pipeline_id"] = record.pipeline_id
        if isinstance(record, Run):
            columns["state"] = record.state
        with self._transaction() as connection:
            try:
                connection.execute(
                    f"INSERT INTO {_TABLES[type(record)]} ({', '.join(columns)}) "  # noqa: S608 - fixed names
                    f"VALUES ({', '.join('?' * len(columns))})",
                    tuple(columns.values()),
                )
            except sqlite3.IntegrityError as error:
                kind = type(record).__name__.lower()
                raise ConflictError(
                    f"there is already a {kind} named {name!r}; choose another name, or delete that one"
                ) from error
            if isinstance(record, Run):
                _queue_last(connection, record.id)

    def get(self, kind: type[R], identity: str) -> R:
        """Return a record.

        Raises:
            MissingError: There is none with this id.
        """
        with self._read() as connection:
            row = connection.execute(
                f"SELECT document FROM {_TABLES[kind]} WHERE id = ?",  # noqa: S608 - fixed names
                (identity,),
            ).fetchone()
        if row is None:
            name = "recurring run" if kind is Recurring else kind.__name__.lower()
            raise MissingError(f"there is no {name} with the id {identity!r}")
        return kind.model_validate_json(row[0])

    def list_all(self, kind: type[R]) -> list[R]:
        """Return all records of a kind, oldest first."""
        with self._read() as connection:
            rows = connection.execute(
                f"SELECT document FROM {_TABLES[kind]} ORDER BY position"  # noqa: S608 - fixed names
            ).fetchall()
        return [kind.model_validate_json(row[0]) for row in rows]

    def list_versions(self, pipeline_id: str) -> list[Version]:
        """Return the versions of a pipeline, oldest first."""
        with self._read() as connection:
            rows = connection.execute(
                "SELECT document FROM versions WHERE pipeline_id = ? ORDER BY position", (pipeline_id,)
            ).fetchall()
        return [Version.model_validate_json(row[0]) for row in rows]

    def find_experiment(self, name: str) -> Experiment | None:
        """Return the experiment with this name, if there is one."""
        with self._read() as connection:
            row = connection.execute("SELECT document FROM experiments WHERE name = ?", (name,)).fetchone()
        return None if row is None else Experiment.model_validate_json(row[0])

    def update(self, kind: type[R], identity: str, change: Callable[[R], R]) -> R:
        """Replace a record by what `change` makes of it, with nobody else's change in between.

        A run that becomes PENDING goes to the queue's end. Whatever `change` raises leaves the record as it
        was.

        Raises:
            MissingError: There is none with this id.
        """
        with self._transaction() as connection:
            old = self.get(kind, identity)
            new = change(old)
            if new == old:
                return old
            connection.execute(
                f"UPDATE {_TABLES[kind]} SET document = ? WHERE id = ?",  # noqa: S608 - fixed names
                (new.model_dump_json(), identity),
            )
            if isinstance(new, Run) and isinstance(old, Run) and new.state != old.state:
                connection.execute("UPDATE runs SET state = ? WHERE id = ?", (new.state, identity))
                if new.state == PENDING:
                    _queue_last(connection, identity)
            return new

    def delete(self, kind: type[Record], identity: str) -> None:
        """Remove a record; a pipeline with its versions.

        Raises:
            MissingError: There is none with this id.
        """
        with self._transaction() as connection:
            self.get(kind, identity)
            if kind is Pipeline:
                connection.execute("DELETE FROM versions WHERE pipeline_id = ?", (identity,))
            connection.execute(
                f"DELETE FROM {_TABLES[kind]} WHERE id = ?",  # noqa: S608 - fixed names
                (identity,),
            )

    def find_run(self, identity: str) -> Run | None:
        """Return the run with this id, if there is one."""
        with self._read() as connection:
            row = connection.execute("SELECT document FROM runs WHERE id = ?", (identity,)).fetchone()
        return None if row is None else Run.model_validate_json(row[0])

    def count_active(self, recurring_id: str) -> int:
        """Return how many runs of a recurring run wait or go on."""
        with self._read() as connection:
            (count,) = connection.execute(
                "SELECT COUNT(*) FROM runs WHERE state IN (?, ?, ?) "
                "AND json_extract(document, '$.recurring_run_id') = ?",
                (PENDING, RUNNING, CANCELING, recurring_id),
            ).fetchone()
        return int(count)

    def next_run(self) -> Run | None:
        """Return the run that has waited longest, if one waits."""
        with self._read() as connection:
            row = connection.execute(
                "SELECT document FROM runs WHERE state = ? ORDER BY queued LIMIT 1", (PENDING,)
            ).fetchone()
        return None if row is None else Run.model_validate_json(row[0])

    def active_runs(self) -> list[Run]:
        """Return the runs that were begun and have not ended (at a start of the server: at most one)."""
        with self._read() as connection:
            rows = connection.execute(
                "SELECT document FROM runs WHERE state IN (?, ?) ORDER BY queued", (RUNNING, CANCELING)
            ).fetchall()
        return [Run.model_validate_json(row[0]) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translate(self._path), transact(self._connection):
            yield self._connection

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translate(self._path):
            yield self._connection


def _queue_last(connection: sqlite3.Connection, run_id: str) -> None:
    connection.execute(
        "UPDATE runs SET queued = (SELECT COALESCE(MAX(queued), 0) + 1 FROM runs) WHERE id = ?", (run_id,)
    )
