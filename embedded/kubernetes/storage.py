"""Objects and their history in one SQLite file.

The version of the last change is the resourceVersion of everything: it only grows, also over restarts. One
process at a time owns the file; within it any thread may call.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedded.database import open_database, transact, translate
from embedded.errors import EmbeddedError

Document = dict[str, Any]
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    resource TEXT NOT NULL,
    type TEXT NOT NULL,
    body TEXT NOT NULL,
    previous TEXT
);
CREATE TABLE IF NOT EXISTS notes (
    area TEXT NOT NULL,
    key TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (area, key)
) WITHOUT ROWID;
"""
_SCHEMA_VERSION = 1


class ExpiredError(EmbeddedError):
    """The history no longer reaches back to the version that was asked for."""


@dataclass(frozen=True)
class Change:
    """One step of an object's life; `previous` is what it was before, None when it was created."""

    version: int
    resource: str
    type: ChangeType
    body: Document
    previous: Document | None


class Storage:
    """Objects by (resource, namespace, name), the changes that led there, and small notes of the controllers.

    Every method raises StorageError when the file cannot be read or written; nothing has changed then.

    Args:
        path: The SQLite file; made, with its folder, when absent.
        history: How many changes a watch can go back.
    """

    def __init__(self, path: Path, history: int = 2000) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._history = history
        self._lock = threading.RLock()
        self._depth = 0
        self._pending: list[Change] = []
        self._subscribers: list[Callable[[Change], None]] = []
        self._database = open_database(path, "")
        found = self._database.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, _SCHEMA_VERSION):
            self._database.close()
            raise EmbeddedError(
                f"{path} has schema {found}, but this version of Tenure writes {_SCHEMA_VERSION}: use the "
                "Tenure that made it, or move the file away to start empty"
            )
        with translate(path):
            self._database.executescript(_SCHEMA)
            if found != _SCHEMA_VERSION:
                self._database.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what happens inside all or nothing, and unseen by other threads until it is whole."""
        with self._lock:
            if self._depth:
                with self._deepen():
                    yield
                return
            try:
                with translate(self._path), transact(self._database), self._deepen():
                    yield
            except BaseException:
                self._pending.clear()
                raise
            changes, self._pending = self._pending, []
            for change in changes:
                for notify in tuple(self._subscribers):
                    notify(change)

    @contextmanager
    def _deepen(self) -> Iterator[None]:
        """Count that this is inside a transaction."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Keep other threads out while something is read."""
        with self._lock, translate(self._path):
            yield

    def subscribe(self, notify: Callable[[Change], None]) -> Callable[[], None]:
        """Have `notify` called after each committed change, in the thread that made it; returns the undo."""
        with self._lock:
            self._subscribers.append(notify)

        def undo() -> None:
            with self._lock:
                self._subscribers.remove(notify)

        return undo

    @property
    def version(self) -> int:
        """The version of the last change ever made (0 before the first)."""
        with self._read():
            row = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
            return int(row[0]) if row else 0

    def get(self, resource: str, namespace: str, name: str) -> Document | None:
        """Return one object, or None."""
        with self._read():
            row = self._database.execute(
                "SELECT body FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
                (resource, namespace, name),
            ).fetchone()
        return _load(row[0]) if row else None

    def list_all(self, resource: str, namespace: str | None = None) -> tuple[list[Document], int]:
        """Return the objects of one namespace (of all, with None), and the version they are true at."""
        query = "SELECT body FROM objects WHERE resource = ?"
        arguments: tuple[str, ...] = (resource,)
        if namespace is not None:
            query += " AND namespace = ?"
            arguments += (namespace,)
        with self._read():
            rows = self._database.execute(query + " ORDER BY namespace, name", arguments).fetchall()
            return [_load(row[0]) for row in rows], self.version

    def put(self, resource: str, body: Document) -> Document:
        """Write an object, new or changed, and return it with its new resourceVersion."""
        with self.transaction():
            namespace, name = _key(body)
            previous = self.get(resource, namespace, name)
            change = self._append(resource, "MODIFIED" if previous else "ADDED", body, previous)
            self._database.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)",
                (resource, namespace, name, json.dumps(change.body)),
            )
            return change.body

    def delete(self, resource: str, namespace: str, name: str) -> Document | None:
        """Remove an object; returns what it was last, or None."""
        with self.transaction():
            previous = self.get(resource, namespace, name)
            if previous is None:
                return None
            change = self._append(resource, "DELETED", previous, previous)
            self._database.execute(
                "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
                (resource, namespace, name),
            )
            return change.body

    def changes_since(self, resource: str, version: int) -> list[Change]:
        """Return the changes of a resource after `version`, oldest first.

        Raises:
            ExpiredError: When some of them have been forgotten, or `version` was never reached.
        """
        with self._read():
            oldest = self._database.execute("SELECT min(version) FROM changes").fetchone()[0]
            latest = self.version
            if version > latest or (oldest is not None and version < oldest - 1):
                raise ExpiredError(f"resource version {version} is not between {oldest} and {latest}")
            rows = self._database.execute(
                "SELECT version, resource, type, body, previous FROM changes "
                "WHERE resource = ? AND version > ? ORDER BY version",
                (resource, version),
            ).fetchall()
        return [
            Change(number, of, kind, _load(body), _load(previous) if previous else None)
            for number, of, kind, body, previous in rows
        ]

    def read_notes(self, area: str) -> dict[str, Document]:
        """Return a controller's notes by key."""
        with self._read():
            rows = self._database.execute("SELECT key, body FROM notes WHERE area = ?", (area,)).fetchall()
        return {key: _load(body) for key, body in rows}

    def write_note(self, area: str, key: str, body: Document | None) -> None:
        """Keep a controller's note over restarts; None forgets it."""
        with self.transaction():
            if body is None:
                self._database.execute("DELETE FROM notes WHERE area = ? AND key = ?", (area, key))
            else:
                self._database.execute(
                    "INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (area, key, json.dumps(body))
                )

    def _append(self, resource: str, kind: ChangeType, body: Document, previous: Document | None) -> Change:
        cursor = self._database.execute(
            "INSERT INTO changes (resource, type, body, previous) VALUES (?, ?, '{}', ?)",
            (resource, kind, json.dumps(previous) if previous is not None else None),
        )
        version = cursor.lastrowid
        assert version is not None  # noqa: S101 - SQLite always numbers an inserted row
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        self._database.execute("UPDATE changes SET body = ? WHERE version = ?", (json.dumps(body), version))
        self._database.execute("DELETE FROM changes WHERE version <= ?", (version - self._history,))
        change = Change(version, resource, kind, body, previous)
        self._pending.append(change)
        return change


def _key(body: Document) -> tuple[str, str]:
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _load(text: str) -> Document:
    document: Document = json.loads(text)
    return document
