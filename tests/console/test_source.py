"""What a run reads on a cluster, when the customers are in a file here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clients.settings import Settings
from clients.store import Store
from console import source
from console.errors import BAD_INPUT, ConsoleError
from console.source import place_source


def make_project(uri: str) -> Any:
    return SimpleNamespace(source=SimpleNamespace(uri=uri))


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, store_settings: Settings) -> list[tuple[str, ...]]:
    """A cluster with a real object store; returns what was asked to be reached."""
    needs: list[tuple[str, ...]] = []

    def open_settings(*asked: str) -> Settings:
        needs.append(asked)
        return store_settings

    monkeypatch.setattr(source, "get_remote", object)
    monkeypatch.setattr(source, "open_settings", open_settings)
    return needs


def test_a_file_is_put_into_the_store_once(
    remote: list[Any], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "customers.csv"
    file.write_text("customer_id,churn\n1,No\n")
    target = place_source(make_project(str(file)), "")
    assert target == f"s3://tenure/sources/{hashlib.sha256(file.read_bytes()).hexdigest()}.csv"
    assert store.get_bytes(target) == file.read_bytes()
    monkeypatch.setattr(Store, "put_file", lambda *_: pytest.fail("it is there already"))
    assert place_source(make_project("elsewhere.csv"), str(file)) == target
    assert remote == [("store",), ("store",)]


@pytest.mark.parametrize("uri", ["s3://bucket/key.parquet", "ledger://telco?days=30"])
def test_what_pods_can_read_stays(remote: list[Any], uri: str) -> None:
    assert place_source(make_project("here.csv"), uri) == uri
    assert place_source(make_project(uri), "") == "", "the project says it itself"
    assert remote == []


def test_a_file_that_is_not_here_is_named(remote: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ConsoleError, match=r"none\.csv: No such file") as caught:
        place_source(make_project(str(tmp_path / "none.csv")), "")
    assert caught.value.code == BAD_INPUT
    assert remote == []


def test_on_this_machine_a_path_stays_a_path() -> None:
    assert place_source(make_project("/data/telco.csv"), "here.csv") == "here.csv"
