"""Ingest: what is stored, once, and what cannot be read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from clients.errors import NotFoundError
from clients.settings import Settings
from clients.store import Store
from components import ingest
from tenure.errors import SourceError
from tenure.snapshot import read_snapshot


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
