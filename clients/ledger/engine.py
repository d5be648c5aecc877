"""Connections to the ledger: SQLite on a laptop, PostgreSQL on a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from clients.errors import NotFoundError, SettingsError

BUSY_SECONDS = 30
"""How long SQLite waits for a writer before it gives up."""


def open_engine(url: str, *, read_only: bool = False) -> Engine:
    """Return an engine for the ledger; connects on first use.

    What is committed is on disk: SQLite in WAL mode with `synchronous=FULL`, PostgreSQL with
    `synchronous_commit=on`. A transaction that may write begins as the only one (SQLite: `BEGIN IMMEDIATE`);
    readers see one state throughout a transaction and wait for nobody.

    Args:
        url: A SQLAlchemy URL: `sqlite:////path/to/ledger.db` or `postgresql://user:password@host/name`.
        read_only: Refuse every change, and never create the ledger.

    Raises:
        SettingsError: The URL is none of these.
        NotFoundError: `read_only`, and the file does not exist.
    """
    try:
        address = make_url(url)
    except ArgumentError:
        # The cause would repeat the URL, and with it the password.
        raise SettingsError(
            "TENURE_LEDGER_URL is no SQLAlchemy URL (sqlite:///... or postgresql://...)"
        ) from None
    backend = address.get_backend_name()
    if backend == "sqlite":
        return _open_sqlite(address, read_only)
    if backend == "postgresql":
        return _open_postgresql(address, read_only)
    raise SettingsError(f"TENURE_LEDGER_URL: the ledger is kept in sqlite or postgresql, not in {backend}")


def _open_sqlite(address: URL, read_only: bool) -> Engine:
    if not address.database or address.database == ":memory:":
        raise SettingsError("TENURE_LEDGER_URL must name a file: sqlite:////path/to/ledger.db")
    path = Path(address.database).absolute()
    if read_only and not path.exists():
        raise NotFoundError(_explain_missing(str(path)))
    if not read_only:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # it holds customers
    engine = create_engine(
        URL.create("sqlite", database=f"{path.as_uri()}", query={"mode": "rw", "uri": "true"}),
        connect_args={"timeout": BUSY_SECONDS},
        pool_size=5,
        max_overflow=20,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        try:
            if read_only:
                cursor.execute("PRAGMA query_only=ON")
            elif cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA journal_size_limit=67108864")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _open_postgresql(address: URL, read_only: bool) -> Engine:
    engine = create_engine(
        address.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": 5, "tcp_user_timeout": 20_000, "application_name": "tenure"},
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=10,
        hide_parameters=True,
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        setting = "default_transaction_read_only" if read_only else "synchronous_commit"
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"SET {setting} = on")
        connection.autocommit = False

    return engine


def _explain_missing(where: str) -> str:
    return f"the ledger {where} does not exist yet: it is made when the detector starts (`tenure up`)"
