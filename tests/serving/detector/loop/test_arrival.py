"""New objects in a real store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from clients.store import Store
from serving.detector.arrival import Arrivals, is_data


@pytest.fixture
def folder(store: Store) -> str:
    return f"s3://{store.bucket}/arrivals-{uuid4().hex[:8]}/new"


@pytest.fixture
def start(world: Any, store: Store, folder: str) -> Callable[[], Arrivals]:
    world.change(watch=folder)
    return lambda: Arrivals(world.ledger, world.shelf, store)


def test_only_what_comes_after_the_beginning_is_new(
    world: Any, store: Store, folder: str, start: Callable[[], Arrivals]
) -> None:
    store.put_bytes(b"old", f"{folder}/old.csv")
    arrivals = start()
    assert arrivals.look(world.champion) == []
    store.put_bytes(b"new", f"{folder}/deep/new.parquet")
    store.put_bytes(b"mark", f"{folder}/_SUCCESS")
    store.put_bytes(b"beside", f"{folder}-not/other.csv")
    [cause] = arrivals.look(world.champion)
    assert cause.reason == f"new data: {folder}/deep/new.parquet"
    assert arrivals.look(world.champion) == []
    assert start().look(world.champion) == [], "a restart"
    assert [row["detail"]["uri"] for row in world.read()] == [f"{folder}/deep/new.parquet"]


def test_what_comes_while_nobody_looks_is_found_by_the_next(
    world: Any, store: Store, folder: str, start: Callable[[], Arrivals]
) -> None:
    start().look(world.champion)
    store.put_bytes(b"new", f"{folder}/one.csv")
    store.put_bytes(b"new", f"{folder}/two.csv")
    assert len(start().look(world.champion)) == 2


def test_object_that_is_written_anew_is_another_cause(
    world: Any, store: Store, folder: str, start: Callable[[], Arrivals]
) -> None:
    arrivals = start()
    arrivals.look(world.champion)
    store.put_bytes(b"one", f"{folder}/data.csv")
    [first] = arrivals.look(world.champion)
    store.put_bytes(b"longer", f"{folder}/data.csv")
    [second] = arrivals.look(world.champion)
    assert first.id != second.id


def test_hint_and_poll_are_one_cause(
    world: Any, store: Store, folder: str, start: Callable[[], Arrivals]
) -> None:
    arrivals = start()
    uri = store.put_bytes(b"new", f"{folder}/first.csv")
    # The hint comes before anybody has looked at all.
    assert arrivals.take(world.champion, uri) is not None
    assert arrivals.take(world.champion, uri) is None
    assert arrivals.look(world.champion) == []
    assert start().look(world.champion) == []
    assert start().take(world.champion, uri) is None
    assert len(world.read()) == 1


def test_hints_of_other_places_are_nothing(
    world: Any, store: Store, folder: str, start: Callable[[], Arrivals]
) -> None:
    arrivals = start()
    for uri in (f"{folder}-not/one.csv", "s3://elsewhere/one.csv", f"{folder}/one.txt", f"{folder}/gone.csv"):
        assert arrivals.take(world.champion, uri) is None
    world.change(watch=None)
    assert arrivals.take(world.champion, f"{folder}/one.csv") is None
    assert arrivals.look(world.champion) == []


def test_killed_at_the_beginning_it_loses_nothing_that_came_later(
    world: Any, store: Store, folder: str, start: Callable[[], Arrivals]
) -> None:
    class Killed(BaseException):
        pass

    def kill(when: str, name: str) -> None:
        if when == moment:
            raise Killed

    store.put_bytes(b"old", f"{folder}/old.csv")
    moment = "before"
    world.shelf.on_call = kill
    with pytest.raises(Killed):
        start().look(world.champion)
    moment = "after"
    with pytest.raises(Killed):
        start().look(world.champion)
    store.put_bytes(b"new", f"{folder}/new.csv")
    with pytest.raises(Killed):
        start().look(world.champion)
    moment = "never"
    start().look(world.champion)
    assert [row["detail"]["uri"] for row in world.read()] == [f"{folder}/new.csv"]


def test_only_data_counts() -> None:
    assert is_data("s3://b/x/y.CSV")
    assert is_data("s3://b/x/y.parquet")
    assert not is_data("s3://b/x/y.csv.tmp")
    assert not is_data("s3://b/x/")
