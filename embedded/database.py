"""SQLite as both of the platform's APIs use it: one connection, transactions that leave nothing behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.errors import StorageError


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """Open a file, made when absent, with a write-ahead log; for any thread, one at a time.

    Raises:
        StorageError: It cannot be opened.
    """
    with translate(path):
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # An answer means that a change is kept, also over a power cut.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executescript(schema)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def translate(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a disk into a StorageError that names the file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"{path}: {error}; nothing was changed. Is the disk full, or read-only? It goes on once it is not"
        ) from error


@contextmanager
def transact(connection: sqlite3.Connection) -> Iterator[None]:
    """Make what happens inside all or nothing.

    A statement that fails may have ended the transaction already, and a commit that fails leaves it open:
    everybody would see what is not kept, and nobody could begin another one.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
