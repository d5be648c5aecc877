"""The store against a real SeaweedFS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from clients.errors import NotFoundError, RefusedError, UnreachableError
from clients.settings import Settings
from clients.store import Store, split_uri


@pytest.fixture
def root() -> str:
    return f"s3://tenure/{uuid4().hex}"


def test_reads_back_what_it_wrote(store: Store, root: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "in").write_bytes(data)
    store.put_file(tmp_path / "in", f"{root}/file")
    store.put_bytes(b"", f"{root}/empty")
    assert store.get_bytes(f"{root}/file") == data
    assert store.get_file(f"{root}/file", tmp_path / "deep" / "out").read_bytes() == data
    assert store.get_bytes(f"{root}/empty") == b""
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_stat_tells_size_and_time(store: Store, root: str) -> None:
    store.put_bytes(b"four", f"{root}/a")
    found = store.stat(f"{root}/a")
    assert found.size == 4
    assert abs(found.modified - datetime.now(UTC)) < timedelta(minutes=1)
    assert store.exists(f"{root}/a")
    assert not store.exists(f"{root}/b")
    store.delete(f"{root}/a")
    store.delete(f"{root}/a")
    assert not store.exists(f"{root}/a")


def test_directory_goes_up_and_comes_down_with_the_manifest_last(
    store: Store, root: str, tmp_path: Path
) -> None:
    source = tmp_path / "bundle"
    (source / "sub").mkdir(parents=True)
    for name in ("manifest.json", "a.json", "z.bin", "sub/c"):
        (source / name).write_text(name)
    written = store.upload_directory(source, f"{root}/bundle/")
    assert written[-1] == f"{root}/bundle/manifest.json"
    assert sorted(written) == [stored.uri for stored in store.list(f"{root}/bundle")]
    store.put_bytes(b"other", f"{root}/bundle-two/x")
    target = store.download_directory(f"{root}/bundle", tmp_path / "copy")
    assert {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()} == {
        "manifest.json", "a.json", "z.bin", "sub/c",
    }  # fmt: skip
    assert (target / "sub/c").read_text() == "sub/c"


def test_what_is_missing_is_not_found(store: Store, root: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="NoSuchKey"):
        store.get_bytes(f"{root}/no")
    with pytest.raises(NotFoundError):
        store.get_file(f"{root}/no", tmp_path / "no")
    with pytest.raises(NotFoundError, match="no object below"):
        store.download_directory(f"{root}/no", tmp_path / "dir")
    with pytest.raises(NotFoundError):
        store.get_bytes("s3://no-such-bucket/key")
    assert list(tmp_path.iterdir()) == []


def test_wrong_credentials_are_refused_without_telling_them(store_settings: Settings, root: str) -> None:
    wrong = store_settings.model_copy(update={"s3_secret_key": SecretStr("wrong-secret")})
    with pytest.raises(RefusedError, match="TENURE_S3_SECRET_KEY") as caught:
        Store.connect(wrong).put_bytes(b"x", f"{root}/x")
    assert "wrong-secret" not in str(caught.value)


def test_silent_address_is_unreachable(store_settings: Settings, root: str) -> None:
    nowhere = store_settings.model_copy(update={"s3_url": "http://127.0.0.1:9"})
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        Store.connect(nowhere).stat(f"{root}/x")


def test_upload_of_nothing_is_refused(store: Store, root: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no file"):
        store.upload_directory(tmp_path, root)


@pytest.mark.parametrize(
    "uri", ["", "key", "s3://", "s3://bucket", "s3://bucket/", "file:///a", "s3://b/k?v"]
)
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(RefusedError, match="s3://bucket/key"):
        split_uri(uri)


def test_addresses_are_split() -> None:
    assert split_uri("s3://bucket/a/b") == ("bucket", "a/b")
    assert split_uri("s3://bucket/a/b", directory=True) == ("bucket", "a/b/")
    assert split_uri("s3://bucket", directory=True) == ("bucket", "")
