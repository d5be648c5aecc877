"""Ingest: what is stored, once, and what cannot be read."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clients.errors import NotFoundError
from clients.ledger.engine import open_engine
from clients.ledger.instant import to_us
from clients.settings import Settings, load_settings
from clients.store import Store
from components import ingest
from serving.detector.migration import migrate
from serving.detector.records import Label, Record, Request, Response
from serving.detector.writer import Writer
from tenure.errors import SourceError
from tenure.snapshot import read_snapshot, read_source
from tenure.validation import validate_frame

ROOT = Path(__file__).resolve().parents[2]


def test_snapshot_is_stored_under_its_digest_and_never_again(
    settings: Settings, store: Store, make: Any, part: Any, tmp_path: Path
) -> None:
    text = make().model_dump_json()
    source = part(tmp_path / "part.csv", 300)
    first = ingest.run(text, source, str(tmp_path / "a"))
    assert first.rows == 300
    assert first.uri == f"s3://tenure/snapshots/{first.digest}.parquet"
    data = store.get_bytes(first.uri)
    assert hashlib.sha256(data).hexdigest() == first.digest
    assert data == (tmp_path / "a").read_bytes()
    assert len(read_snapshot(tmp_path / "a")) == 300
    before = store.stat(first.uri)
    assert ingest.run(text, source, str(tmp_path / "b")) == first
    assert store.stat(first.uri) == before


def test_source_may_lie_in_the_store(
    settings: Settings, store: Store, make: Any, part: Any, tmp_path: Path
) -> None:
    path = part(tmp_path / "part.csv", 300)
    uri = store.put_file(Path(path), f"s3://tenure/uploads/{tmp_path.name}/customers.csv")
    text = make().model_dump_json()
    assert (
        ingest.run(text, uri, str(tmp_path / "a")).digest
        == ingest.run(text, path, str(tmp_path / "b")).digest
    )
    with pytest.raises(NotFoundError):
        ingest.run(text, "s3://tenure/uploads/none.csv", str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"churn,female\nYes", "1 fields"),
        ("churn,female\nYes,ja\n".encode("utf-16"), "not UTF-8"),
        (b"Yes,1\nNo,0\n", "header"),
    ],
)
def test_what_cannot_be_read_is_told(
    settings: Settings, make: Any, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        ingest.run(make().model_dump_json(), str(path), str(tmp_path / "out"))


def test_source_may_be_the_ledger(
    settings: Settings, store: Store, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What customers were asked with, and what became of them, is a snapshot like any other."""
    project = make()
    url = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.setenv("TENURE_LEDGER_URL", url)
    load_settings.cache_clear()
    rows = read_source(ROOT / "data" / "telco.csv", None, project.contract).head(50)
    valid = validate_frame(rows, project.contract).good
    features = [column.name for column in project.contract.features]
    service, asked = project.rollout.service, to_us(datetime(2026, 3, 1, tzinfo=UTC))
    items: list[Record] = []
    for row in json.loads(valid.to_json(orient="records")):
        event, customer = row["customer_id"], row["customer_id"]
        items.append(
            Request(event, service, "v", asked, [customer], [{name: row[name] for name in features}])
        )
        items.append(Response(event, service, "v", asked, [0.5], [True]))
        items.append(Label(service, customer, row["churn"], asked + 1, asked + 1))
    engine = open_engine(url)
    migrate(engine)
    Writer(engine).write(items)
    engine.dispose()
    source = f"ledger://{service}?since=2026-02-01&until=2026-04-01&min_rows=50"
    found = ingest.run(project.model_dump_json(), source, str(tmp_path / "a"))
    assert found.rows == 50
    assert ingest.run(project.model_dump_json(), source, str(tmp_path / "b")).digest == found.digest
    back = validate_frame(read_snapshot(tmp_path / "a"), project.contract).good
    assert back.equals(valid.sort_values("customer_id", ignore_index=True))
    with pytest.raises(SourceError, match="51 are needed"):
        ingest.run(project.model_dump_json(), source.replace("=50", "=51"), str(tmp_path / "c"))
