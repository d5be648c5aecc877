"""Engines: durable where something is written, harmless where it is read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from clients.errors import NotFoundError, SettingsError
from clients.ledger.engine import open_engine


def test_what_is_committed_is_on_disk(ledger_engine: Engine) -> None:
    with ledger_engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            asked = {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 30_000}
            assert {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked} == asked
        else:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_readers_change_nothing(ledger_engine: Engine, ledger_url: str) -> None:
    engine = open_engine(ledger_url, read_only=True)
    with engine.connect() as connection, pytest.raises(DBAPIError, match=r"readonly|read-only"):
        connection.execute(text("DELETE FROM labels"))
    engine.dispose()


def test_reader_sees_one_state_and_waits_for_nobody(ledger_engine: Engine, ledger_url: str) -> None:
    reader = open_engine(ledger_url, read_only=True)
    count = text("SELECT count(*) FROM exports")
    insert = text("INSERT INTO exports VALUES ('a', 'labels', 1, 1, 1)")
    with reader.connect() as reading:
        assert reading.execute(count).scalar() == 0
        with ledger_engine.begin() as writing:
            writing.execute(insert)
            assert reading.execute(count).scalar() == 0
        assert reading.execute(count).scalar() == 0
    with reader.connect() as reading:
        assert reading.execute(count).scalar() == 1
    reader.dispose()


def test_file_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "100 % #1?.db"
    url = f"sqlite:///{path}".replace("?", "%3F")
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE a (b INTEGER)"))
    files = list(path.parent.iterdir())
    assert files
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense secret", "no SQLAlchemy URL"),
        ("sqlite://", "name a file"),
        ("mysql://u:secret@h/d", "not in mysql"),
    ],
)
def test_wrong_addresses_are_told_without_their_password(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as found:
        open_engine(url)
    assert "secret" not in str(found.value)
    assert found.value.__cause__ is None


def test_a_reader_makes_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist yet"):
        open_engine(f"sqlite:///{tmp_path}/none.db", read_only=True)
    assert list(tmp_path.iterdir()) == []
