"""Models fetched from the object store into folders that are whole or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from embedded.home import Home
from embedded.ports import LOOPBACK
from embedded.reconciler.errors import ModelError

_PART = ".part-"
_TIMEOUT = urllib3.Timeout(connect=2, read=60)


@dataclass(frozen=True)
class _File:
    key: str
    relative: str
    etag: str
    size: int


class ModelCache:
    """Folders below `directory`, each the content that a `storageUri` had at one time. Any thread may call.

    Args:
        directory: Where the folders lie.
        client: The object store.
    """

    def __init__(self, directory: Path, client: Minio) -> None:
        self._directory = directory
        self._client = client
        self._lock = threading.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in directory.glob(f"{_PART}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    @classmethod
    def for_home(cls, home: Home) -> ModelCache:
        """Return the cache of a home, filled from its own object store."""
        client = Minio(
            f"{LOOPBACK}:{home.state.ports.s3}",
            access_key=home.secrets.s3_access_key.get_secret_value(),
            secret_key=home.secrets.s3_secret_key.get_secret_value(),
            secure=False,
            http_client=urllib3.PoolManager(timeout=_TIMEOUT, retries=urllib3.Retry(2, backoff_factor=0.2)),
        )
        return cls(home.models_dir, client)

    def fetch(self, uri: str) -> Path:
        """Return the folder with what `uri` holds now; what is there already is not fetched again.

        Raises:
            ModelError: Nothing is there, the store does not answer, or the disk is full.
        """
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            files = self._list_files(uri, bucket, key)
            target = self._directory / _name_folder(uri, files)
            with self._lock:
                if not target.is_dir():
                    self._download(bucket, files, target)
        except S3Error as error:
            raise ModelError(f"{uri} cannot be fetched: {error.code}: {error.message}") from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise ModelError(
                f"{uri} cannot be fetched: the object store does not answer ({error}); see `tenure status`"
            ) from error
        except OSError as error:
            raise ModelError(f"{uri} cannot be stored in {self._directory}: {error}") from error
        return target

    def forget(self, used: Iterable[str]) -> None:
        """Remove the folders that are not among `used`."""
        kept = {Path(path).name for path in used}
        with self._lock:
            for folder in self._directory.iterdir():
                if folder.is_dir() and folder.name not in kept and not folder.name.startswith(_PART):
                    shutil.rmtree(folder, ignore_errors=True)

    def _list_files(self, uri: str, bucket: str, key: str) -> list[_File]:
        """Return the objects below `key`, or the one that `key` names."""
        prefix = key.rstrip("/") + "/"
        found: list[Any] = list(self._client.list_objects(bucket, prefix=prefix, recursive=True))
        files = [
            _File(
                entry.object_name, entry.object_name.removeprefix(prefix), entry.etag or "", entry.size or 0
            )
            for entry in found
            if not entry.object_name.endswith("/")
        ]
        if not files:
            try:
                entry = self._client.stat_object(bucket, key)
            except S3Error as error:
                if error.code not in ("NoSuchKey", "NoSuchObject", "NotFound"):
                    raise
                raise ModelError(f"{uri} holds nothing: was the model uploaded?") from error
            files = [_File(key, key.rsplit("/", 1)[-1], entry.etag or "", entry.size or 0)]
        for file in files:
            if any(part in ("", ".", "..") for part in file.relative.split("/")):
                raise ModelError(f"{uri} holds an object with an unsafe name: {file.key!r}")
        return sorted(files, key=lambda file: file.key)

    def _download(self, bucket: str, files: Iterable[_File], target: Path) -> None:
        part = Path(tempfile.mkdtemp(prefix=_PART, dir=self._directory))
        try:
            for file in files:
                path = part / file.relative
                self._client.fget_object(bucket, file.key, str(path))
                _check_size(path, bucket, file)
                _flush(path)
            part.rename(target)
            _flush(self._directory)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _check_size(path: Path, bucket: str, file: _File) -> None:
    if path.stat().st_size != file.size:
        raise ModelError(f"s3://{bucket}/{file.key} changed while it was fetched; it is tried again")


def _name_folder(uri: str, files: Iterable[_File]) -> str:
    """Name a folder by its source and content, so that a corrected upload is another folder."""
    lines = [uri, *(f"{file.key} {file.etag} {file.size}" for file in files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]


def _flush(path: Path) -> None:
    """Make a file or folder survive a power cut: one that is damaged would never be fetched again."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
