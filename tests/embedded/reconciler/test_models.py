"""Models from a real store, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from minio import Minio

from clients.store import Store
from embedded.ports import find_free_port
from embedded.reconciler.errors import ModelError
from embedded.reconciler.models import ModelCache


def test_fetches_once_and_again_when_it_changed(tmp_path: Path, tiny_models: Store, client: Minio):
    cache = ModelCache(tmp_path / "models", client)
    folder = cache.fetch("s3://tenure/tiny/v1")
    assert (folder / "model.txt").read_text() == "v1"
    assert (folder / "more" / "about.json").is_file()
    stamp = (folder / "model.txt").stat().st_mtime_ns
    assert cache.fetch("s3://tenure/tiny/v1") == folder
    assert (folder / "model.txt").stat().st_mtime_ns == stamp
    tiny_models.put_bytes(b"first", "s3://tenure/changing/model.txt")
    first = cache.fetch("s3://tenure/changing")
    tiny_models.put_bytes(b"other", "s3://tenure/changing/model.txt")
    second = cache.fetch("s3://tenure/changing")
    assert first != second
    assert (second / "model.txt").read_text() == "other"
    cache.forget([str(second)])
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [second.name]


def test_one_object_is_a_model_too(tmp_path: Path, tiny_models: Store, client: Minio):
    folder = ModelCache(tmp_path, client).fetch("s3://tenure/tiny/v1/model.txt")
    assert [entry.name for entry in folder.iterdir()] == ["model.txt"]


@pytest.mark.parametrize(
    ("uri", "problem"),
    [("s3://tenure/tiny/nowhere", "holds nothing"), ("s3://no-such-bucket/x", "NoSuchBucket")],
)
def test_missing_models_are_named(tmp_path: Path, tiny_models: Store, client: Minio, uri: str, problem: str):
    with pytest.raises(ModelError, match=problem):
        ModelCache(tmp_path, client).fetch(uri)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_does_not_answer(tmp_path: Path):
    import urllib3

    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=0.5), retries=False)
    client = Minio(f"127.0.0.1:{find_free_port()}", "a", "b", secure=False, http_client=pool)
    with pytest.raises(ModelError, match="does not answer"):
        ModelCache(tmp_path, client).fetch("s3://tenure/tiny/v1")


def test_leftovers_of_a_killed_download_are_removed(tmp_path: Path, tiny_models: Store, client: Minio):
    (tmp_path / ".part-abc").mkdir()
    (tmp_path / ".part-abc" / "model.txt").write_text("half")
    ModelCache(tmp_path, client)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(
    tmp_path: Path, tiny_models: Store, client: Minio, monkeypatch: pytest.MonkeyPatch
):
    cache = ModelCache(tmp_path, client)

    def write_half(bucket: str, key: str, path: str) -> None:
        Path(path).write_bytes(b"")

    monkeypatch.setattr(client, "fget_object", write_half)
    with pytest.raises(ModelError, match="changed while"):
        cache.fetch("s3://tenure/tiny/v1")
    assert list(tmp_path.iterdir()) == []
