"""Objects, their history and their survival."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from embedded.errors import EmbeddedError
from embedded.kubernetes.storage import Change, ExpiredError, Storage


def make(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, **more}


def test_versions_grow_and_survive(tmp_path: Path):
    storage = Storage(tmp_path / "a" / "objects.db")
    assert storage.version == 0
    first = storage.put("things", make("a"))
    second = storage.put("things", make("a", spec=1))
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    removed = storage.delete("things", "default", "a")
    assert removed is not None
    version = storage.version
    assert removed["metadata"]["resourceVersion"] == str(version)
    storage.close()
    again = Storage(tmp_path / "a" / "objects.db")
    assert again.version == version
    assert [change.type for change in again.changes_since("things", 0)] == ["ADDED", "MODIFIED", "DELETED"]
    assert again.delete("things", "default", "a") is None
    again.close()


def test_a_failed_transaction_leaves_no_trace(tmp_path: Path):
    storage = Storage(tmp_path / "objects.db")
    seen: list[Change] = []
    undo = storage.subscribe(seen.append)

    def fail() -> None:
        with storage.transaction():
            storage.put("things", make("a"))
            with storage.transaction():
                storage.put("things", make("b"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert storage.list_all("things") == ([], 0)
    assert seen == []
    with storage.transaction():
        storage.put("things", make("a"))
        assert seen == [], "nobody hears of it before it is whole"
    assert [change.type for change in seen] == ["ADDED"]
    undo()
    storage.put("things", make("b"))
    assert len(seen) == 1
    storage.close()


def test_history_is_bounded_and_says_when_it_is_too_short(tmp_path: Path):
    storage = Storage(tmp_path / "objects.db", history=5)
    for number in range(20):
        storage.put("things", make("a", spec=number))
    assert len(storage.changes_since("things", storage.version - 5)) == 5
    with pytest.raises(ExpiredError):
        storage.changes_since("things", 3)
    with pytest.raises(ExpiredError):
        storage.changes_since("things", 1000)
    storage.close()


def test_notes(tmp_path: Path):
    storage = Storage(tmp_path / "objects.db")
    storage.write_note("area", "a", {"x": 1})
    storage.write_note("area", "a", {"x": 2})
    storage.write_note("other", "a", {"x": 3})
    assert storage.read_notes("area") == {"a": {"x": 2}}
    storage.write_note("area", "a", None)
    assert storage.read_notes("area") == {}
    storage.close()


def test_a_file_of_another_version_is_refused(tmp_path: Path):
    database = sqlite3.connect(tmp_path / "objects.db")
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(EmbeddedError, match="schema 99"):
        Storage(tmp_path / "objects.db")
