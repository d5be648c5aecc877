"""Validate: good rows, bad rows with reasons, and snapshots that are not what they say."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from clients.errors import IntegrityError
from clients.settings import Settings
from clients.store import Store
from components import ingest, validate
from tenure.errors import TenureError, TooManyBadRowsError
from tenure.snapshot import read_snapshot
from tenure.version import compute_code_version


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return [str(tmp_path / name) for name in ("rows", "bad", "profile.html", "counts.json")]


def spoil(path: str, rows: int) -> None:
    """Give the first rows an impossible number of months."""
    with Path(path).open(newline="") as file:
        header, *cells = csv.reader(file)
    for row in cells[:rows]:
        row[header.index("tenure")] = "-5"
    with Path(path).open("w", newline="") as file:
        csv.writer(file).writerows([header, *cells])


def test_bad_rows_are_set_aside_with_reasons(
    settings: Settings, make: Any, part: Any, tmp_path: Path, paths: list[str]
) -> None:
    text = make().model_dump_json()
    source = part(tmp_path / "part.csv", 300)
    spoil(source, 2)
    found = ingest.run(text, source, str(tmp_path / "snapshot"))
    counts = validate.run(text, found.digest, found.code_version, *paths)
    assert counts == {
        "rows": 300, "good_rows": 298, "bad_rows": 2, "violations": 2, "unlisted_categories": 0,
    }  # fmt: skip
    bad = read_snapshot(Path(paths[1]))
    assert bad[["row", "column", "rule", "value"]].to_numpy().tolist() == [
        [0, "tenure", "minimum", "-5"],
        [1, "tenure", "minimum", "-5"],
    ]
    assert len(read_snapshot(Path(paths[0]))) == 298
    assert "<html" in Path(paths[2]).read_text().lower()


def test_too_many_bad_rows_fail_and_are_still_written(
    settings: Settings, make: Any, part: Any, tmp_path: Path, paths: list[str]
) -> None:
    text = make().model_dump_json()
    source = part(tmp_path / "part.csv", 300)
    spoil(source, 30)
    found = ingest.run(text, source, str(tmp_path / "snapshot"))
    with pytest.raises(TooManyBadRowsError):
        validate.run(text, found.digest, found.code_version, *paths)
    assert len(read_snapshot(Path(paths[1]))) == 30


def test_altered_snapshot_is_refused(
    settings: Settings, store: Store, make: Any, part: Any, tmp_path: Path, paths: list[str]
) -> None:
    text = make().model_dump_json()
    found = ingest.run(text, part(tmp_path / "part.csv", 310), str(tmp_path / "snapshot"))
    data = bytearray(store.get_bytes(found.uri))
    data[len(data) // 2] ^= 1
    store.put_bytes(bytes(data), found.uri)
    with pytest.raises(IntegrityError, match="was altered"):
        validate.run(text, found.digest, found.code_version, *paths)
    store.delete(found.uri)


def test_other_code_is_refused(settings: Settings, make: Any, paths: list[str]) -> None:
    with pytest.raises(TenureError, match=compute_code_version()):
        validate.run(make().model_dump_json(), "0" * 64, "0123456789abcdef", *paths)
