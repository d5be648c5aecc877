"""`tenure labels`: good rows are kept, each bad one is named."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from typer.testing import CliRunner

from clients.errors import SettingsError, UnreachableError
from clients.ledger.engine import open_engine
from clients.ledger.instant import now_us, to_us
from clients.ledger.reader import Ledger
from clients.settings import Settings, load_settings
from clients.store import Store
from console import labels
from console.errors import ConsoleError
from console.main import app
from serving.detector.intake import read_labels, show_refusals
from serving.detector.migration import migrate
from serving.detector.records import Record, Request, Response
from serving.detector.writer import Writer

SERVICE = "telco-churn"
PROJECT = str(Path(__file__).resolve().parents[2] / "projects" / "telco.yaml")


class Sink(ThreadingHTTPServer):
    """The detector's address for labels, with its own reader and writer."""

    daemon_threads = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.writer = Writer(engine)
        self.sizes: list[int] = []
        self.failing_from = 99


class Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.sizes.append(len(json.loads(body)))
        good, refused = read_labels(body, now_us(), find_problem)
        status = 503 if len(self.server.sizes) >= self.server.failing_from else 200
        if status == 200:
            self.server.writer.write(good)
        answer = json.dumps({"accepted": len(good), "refused": show_refusals(refused)}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""


def find_problem(service: str, outcome: str) -> str | None:
    return None if outcome in ("Yes", "No") else f"{outcome!r} is neither Yes nor No"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/ledger.db")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def sink(engine: Engine) -> Iterator[Sink]:
    server = Sink(engine)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def settings(
    store_settings: Settings, sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    found = store_settings.model_copy(
        update={
            "detector_url": f"http://127.0.0.1:{sink.server_port}",
            "ledger_url": SecretStr(f"sqlite:///{tmp_path}/ledger.db"),
        }
    )
    monkeypatch.setenv("TENURE_ENV_FILE", os.devnull)
    for name, value in found.model_dump(exclude_none=True).items():
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        monkeypatch.setenv(f"TENURE_{name.upper()}", text)
    load_settings.cache_clear()
    yield found
    load_settings.cache_clear()


@pytest.fixture
def run(settings: Settings) -> Callable[..., Any]:
    """Run `tenure labels ...`; returns what it printed as JSON. Its errors are raised."""

    def run(*arguments: str) -> Any:
        answer = CliRunner().invoke(app, ["labels", *arguments, "--project", PROJECT, "--json"])
        if answer.exception and not isinstance(answer.exception, SystemExit):
            raise answer.exception
        return json.loads(answer.stdout)

    return run


def read(settings: Settings) -> list[tuple[str, str]]:
    ledger = Ledger.connect(settings)
    frame = ledger.read_labels(SERVICE)
    ledger.close()
    return list(zip(frame["customer_id"], frame["outcome"], strict=True))


GOOD = """customer_id,outcome,true_at,known_at
a,Yes,2026-01-01,2026-01-02T03:04:05+02:00
b,No,2026-01-01T10:00:00Z,
"""


def test_a_file_is_kept(run: Callable[..., Any], settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(GOOD)
    assert run("add", str(file)) == {"accepted": 2, "refused": []}
    assert read(settings) == [("a", "Yes"), ("b", "No")]
    ledger = Ledger.connect(settings)
    first = ledger.read_labels(SERVICE).iloc[0]
    ledger.close()
    assert first["true_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert first["known_at"] == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)


def test_parquet_from_the_store(
    run: Callable[..., Any], settings: Settings, store: Store, tmp_path: Path
) -> None:
    frame = pd.DataFrame(
        {
            "customer_id": [7, 8],
            "outcome": ["Yes", "No"],
            "true_at": pd.to_datetime(["2026-01-01", "2026-01-02"]),
            "known_at": pd.to_datetime(["2026-01-03", None], utc=True),
        }
    )
    frame.to_parquet(tmp_path / "labels.parquet")
    uri = store.put_file(tmp_path / "labels.parquet", f"s3://tenure/{tmp_path.name}/labels.parquet")
    assert run("add", uri)["accepted"] == 2
    assert read(settings) == [("7", "Yes"), ("8", "No")]


def test_bad_rows_are_named_and_the_others_kept(
    run: Callable[..., Any],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sink: Sink,
) -> None:
    monkeypatch.setattr(labels, "BATCH", 2)
    file = tmp_path / "labels.csv"
    file.write_text(f"{GOOD}c,Maybe,2026-01-01,\nd,Yes,someday,\n,Yes,2026-01-01,\n")
    with pytest.raises(ConsoleError, match="3 of 5 rows are not kept") as found:
        run("add", str(file))
    assert found.value.code == 3
    assert read(settings) == [("a", "Yes"), ("b", "No")]
    assert sink.sizes == [2, 2, 1]


def test_a_detector_that_fails_is_told(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: Sink
) -> None:
    monkeypatch.setattr(labels, "BATCH", 1)
    sink.failing_from = 2
    file = tmp_path / "labels.csv"
    file.write_text(GOOD)
    with pytest.raises(UnreachableError, match=r"503[\s\S]*the rows before row 1 are done with"):
        run("add", str(file))
    monkeypatch.setenv("TENURE_DETECTOR_URL", "http://127.0.0.1:9")
    load_settings.cache_clear()
    with pytest.raises(UnreachableError, match="does not answer"):
        run("add", str(file))
    monkeypatch.delenv("TENURE_DETECTOR_URL")
    load_settings.cache_clear()
    with pytest.raises(SettingsError, match="TENURE_DETECTOR_URL"):
        run("add", str(file))


def test_a_file_without_a_column_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("customer_id,outcome\na,Yes\n")
    with pytest.raises(ConsoleError, match="has no column true_at"):
        run("add", str(file))


def test_a_customer_is_shown(run: Callable[..., Any], engine: Engine, tmp_path: Path) -> None:
    moment = to_us(datetime(2025, 12, 25, tzinfo=UTC))
    items: list[Record] = [
        Request("e", SERVICE, "v1", moment, ["a"], [{}]),
        Response("e", SERVICE, "v1", moment, [0.7], [True]),
    ]
    Writer(engine).write(items)
    file = tmp_path / "labels.csv"
    file.write_text(GOOD)
    run("add", str(file))
    found = run("show", "a")
    assert found["labels"] == [
        {"outcome": "Yes", "true_at": "2026-01-01T00:00:00.000Z", "known_at": "2026-01-02T01:04:05.000Z"}
    ]
    assert found["predictions"] == [
        {"time": "2025-12-25T00:00:00.000Z", "version": "v1", "score": 0.7, "churn": True, "outcome": "Yes"}
    ]
    answer = CliRunner().invoke(app, ["labels", "show", "nobody", "--project", PROJECT])
    assert isinstance(answer.exception, ConsoleError)
    assert "knows no customer 'nobody'" in str(answer.exception)
    assert CliRunner().invoke(app, ["labels", "show", "a", "--project", PROJECT]).exit_code == 0
