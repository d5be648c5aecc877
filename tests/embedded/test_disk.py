"""A disk that is full or read-only: a clear error, nothing half done, and all is well once there is room."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from embedded.errors import StorageError
from embedded.gateway import Gateway, GatewayError, Routing
from embedded.home import Home
from embedded.kubernetes.registry import Registry
from embedded.kubernetes.server import make_app
from embedded.kubernetes.storage import Change
from embedded.kubernetes.storage import Storage as Objects
from embedded.runs.api import make_app as make_runs_app
from embedded.runs.queue import RunQueue
from embedded.runs.records import Experiment
from embedded.runs.storage import Storage as Records

TOKEN = {"Authorization": "Bearer secret"}
LARGE = "x" * 200_000


def make_object(name: str, text: str = LARGE) -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": name}, "text": text}


def make_experiment(name: str, text: str = LARGE) -> Experiment:
    return Experiment(id=name, display_name=name, description=text, created_at="2026-01-01T00:00:00.000000Z")


def is_whole(path: Path) -> bool:
    with sqlite3.connect(path) as connection:
        answer = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return bool(answer == ("ok",))


def test_objects_survive_a_full_disk(make_disk: Callable[[int], Any]) -> None:
    disk = make_disk(4)
    storage = Objects(disk.path / "objects.db")
    told: list[Change] = []
    storage.subscribe(told.append)
    storage.put("things", make_object("first"))
    version = storage.version
    disk.fill()
    for _ in range(3):
        with pytest.raises(StorageError, match="full"):
            storage.put("things", make_object("second"))
        # What was not kept is not seen either.
        assert storage.get("things", "default", "second") is None
        assert storage.version == version
        assert [change.body["metadata"]["name"] for change in told] == ["first"]
    with pytest.raises(StorageError), storage.transaction():
        storage.write_note("area", "key", {"text": LARGE})
    assert storage.get("things", "default", "first") is not None
    disk.free()
    storage.put("things", make_object("third"))
    assert [change.body["metadata"]["name"] for change in told] == ["first", "third"]
    storage.close()
    assert is_whole(disk.path / "objects.db")


def test_records_survive_a_full_disk(make_disk: Callable[[int], Any]) -> None:
    disk = make_disk(4)
    storage = Records(disk.path / "runs.db")
    storage.add(make_experiment("first"))
    disk.fill()
    for _ in range(3):
        with pytest.raises(StorageError, match="full"):
            storage.add(make_experiment("second"))
        with pytest.raises(StorageError, match="full"):
            storage.update(
                Experiment, "first", lambda found: found.model_copy(update={"description": "y" * 500_000})
            )
        assert [record.id for record in storage.list_all(Experiment)] == ["first"]
    disk.free()
    storage.add(make_experiment("third"))
    assert [record.id for record in storage.list_all(Experiment)] == ["first", "third"]
    storage.close()
    assert is_whole(disk.path / "runs.db")


@pytest.mark.parametrize("kind", ["objects", "records"])
def test_a_commit_that_fails_leaves_nothing_open(kind: str, tmp_path: Path) -> None:
    """SQLite leaves a transaction open whose commit fails, and ends one by itself whose statement does."""
    storage: Any = Objects(tmp_path / "a.db") if kind == "objects" else Records(tmp_path / "a.db")
    name = "_database" if kind == "objects" else "_connection"

    def write(text: str) -> None:
        if kind == "objects":
            storage.put("things", make_object(text))
        else:
            storage.add(make_experiment(text))

    write("first")
    real = getattr(storage, name)

    class Failing:
        """A connection whose next commit fails, or whose next statement takes the transaction with it."""

        def __init__(self, word: str, rolled_back: bool) -> None:
            self.word, self.rolled_back = word, rolled_back

        def execute(self, statement: str, *arguments: Any) -> Any:
            if statement.startswith(self.word):
                if self.rolled_back:
                    real.execute("ROLLBACK")
                raise sqlite3.OperationalError("disk I/O error")
            return real.execute(statement, *arguments)

        def __getattr__(self, attribute: str) -> Any:
            return getattr(real, attribute)

    for word, rolled_back in (("COMMIT", False), ("INSERT", True), ("BEGIN", False)):
        setattr(storage, name, Failing(word, rolled_back))
        with pytest.raises(StorageError, match="disk I/O error"):
            write("second")
        setattr(storage, name, real)
        write(f"after {word}")
    storage.close()


async def ask(app: Starlette, *requests: tuple[Any, ...]) -> list[httpx.Response]:
    """Send requests, (method, path, body) each; a function among them is called in its place."""
    transport = httpx.ASGITransport(app)
    answers = []
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=TOKEN) as client,
    ):
        for first, *rest in requests:
            if callable(first):
                first()
            else:
                answers.append(await client.request(first, rest[0], json=rest[1] if rest[1:] else None))
    return answers


def test_the_api_says_that_the_disk_is_full(make_disk: Callable[[int], Any]) -> None:
    disk = make_disk(4)
    registry = Registry(Objects(disk.path / "objects.db"))
    path, body = "/api/v1/namespaces", {"metadata": {"name": "big", "annotations": {"text": LARGE}}}
    requests = (disk.fill,), ("POST", path, body), ("GET", path), (disk.free,), ("POST", path, body)
    refused, read, created = asyncio.run(ask(make_app(registry, "secret"), *requests))
    registry.storage.close()
    assert refused.status_code == 507, refused.text
    assert refused.json()["kind"] == "Status"
    assert "full" in refused.json()["message"]
    assert "objects.db" in refused.json()["message"]
    assert [entry["metadata"]["name"] for entry in read.json()["items"]] == ["default"]
    assert created.status_code == 201


def test_the_runs_api_says_that_the_disk_is_full(make_disk: Callable[[int], Any]) -> None:
    disk = make_disk(4)
    storage = Records(disk.path / "runs.db")
    queue = RunQueue(storage, disk.path, dict)
    path, body = "/apis/v2beta1/experiments", {"display_name": "big", "description": LARGE}
    requests = (disk.fill,), ("POST", path, body), ("GET", path), (disk.free,), ("POST", path, body)
    app = make_runs_app(storage, queue, SecretStr("secret"))
    refused, read, created = asyncio.run(ask(app, *requests))
    storage.close()
    assert refused.status_code == 507, refused.text
    assert "full" in refused.json()["message"]
    assert [entry["display_name"] for entry in read.json()["experiments"]] == ["Default"]
    assert created.status_code == 200


def test_routes_that_cannot_be_written_leave_the_old_ones(make_disk: Callable[[int], Any]) -> None:
    disk = make_disk(1)
    gateway = Gateway(disk.path, 1, 1)
    gateway.prepare()
    before = {file.name: file.read_bytes() for file in disk.path.iterdir()}
    disk.fill()
    route = {
        "metadata": {"namespace": "default", "name": "a"},
        "spec": {
            "parentRefs": [{"namespace": "kserve", "name": "kserve-ingress-gateway"}],
            "rules": [{"backendRefs": [{"name": "b", "port": 80}]}],
        },
    }
    with pytest.raises(GatewayError, match="No space left"):
        gateway.publish(Routing({}, [route]))
    disk.free()
    assert {file.name: file.read_bytes() for file in disk.path.iterdir()} == before
    gateway.publish(Routing({}, [route]))
    gateway.close()


def up(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedded", "up"],
        env={**os.environ, "TENURE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_up_on_a_full_disk_says_so_and_breaks_nothing(make_disk: Callable[[int], Any]) -> None:
    disk = make_disk(2)
    state = Home.open(disk.path / "home", create=True).state
    disk.fill()
    answer = up(disk.path / "home")
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "No space left on device" in answer.stderr
    disk.free()
    assert Home.open(disk.path / "home").state == state


def test_up_on_a_read_only_disk_says_so(make_disk: Callable[[int], Any]) -> None:
    disk = make_disk(2)
    Home.open(disk.path / "home", create=True)
    disk.close_to_writers()
    try:
        for home in (disk.path / "home", disk.path / "new"):
            answer = up(home)
            assert answer.returncode == 1
            assert "Traceback" not in answer.stderr
            assert "Read-only file system" in answer.stderr
            assert str(home) in answer.stderr
    finally:
        disk.close_to_writers(False)
