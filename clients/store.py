"""The object store: files and directories under `s3://bucket/key`, through the MinIO SDK."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import urlsplit

from clients.errors import ClientError, IntegrityError, NotFoundError, RefusedError, UnreachableError
from clients.settings import Settings

_CHUNK = 1 << 20
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchObject", "ResourceNotFound", "NoSuchUpload"})


@dataclass(frozen=True)
class Stored:
    """One object: its address, size in bytes and when it was last written (UTC)."""

    uri: str
    size: int
    modified: datetime


class Store:
    """Reads and writes objects; thread-safe.

    Every method raises NotFoundError when bucket or key do not exist, RefusedError (credentials, quota,
    names), and UnreachableError when the store does not answer.
    """

    def __init__(self, client: Any, url: str, bucket: str) -> None:
        self._client = client
        self._url = url
        self.bucket = bucket
        """The bucket of snapshots and bundles."""

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Build the client; sends nothing yet."""
        import certifi
        import urllib3
        from minio import Minio

        address = urlsplit(settings.s3_url)
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60),
            maxsize=10,
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
            retries=urllib3.Retry(total=4, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        )
        client = Minio(
            address.netloc,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
            secure=address.scheme == "https",
            http_client=pool,
        )
        return cls(client, settings.s3_url, settings.s3_bucket)

    def ensure_bucket(self) -> None:
        """Create the bucket of snapshots and bundles unless it exists."""
        from minio.error import S3Error

        with self._translate(f"s3://{self.bucket}"):
            if self._client.bucket_exists(self.bucket):
                return
            try:
                self._client.make_bucket(self.bucket)
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

    def put_bytes(self, data: bytes, uri: str, content_type: str = "application/octet-stream") -> str:
        """Write `data` to `uri` and return `uri`."""
        bucket, key = split_uri(uri)
        with self._translate(uri):
            self._client.put_object(bucket, key, io.BytesIO(data), len(data), content_type)
        return uri

    def put_file(self, path: Path, uri: str) -> str:
        """Write the file at `path` to `uri` and return `uri`."""
        bucket, key = split_uri(uri)
        with self._translate(uri):
            self._client.fput_object(bucket, key, str(path))
        return uri

    def get_bytes(self, uri: str) -> bytes:
        """Return the object's content."""
        bucket, key = split_uri(uri)
        with self._translate(uri):
            answer = self._client.get_object(bucket, key)
            try:
                data: bytes = answer.read()
            finally:
                answer.close()
                answer.release_conn()
        return data

    def get_file(self, uri: str, path: Path) -> Path:
        """Write the object's content to `path`, whole or not at all, and return `path`.

        Raises:
            IntegrityError: When fewer bytes arrived than the store announced.
        """
        bucket, key = split_uri(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file, self._translate(uri):
                answer = self._client.get_object(bucket, key)
                try:
                    announced = int(answer.headers.get("Content-Length", -1))
                    received = 0
                    for chunk in answer.stream(_CHUNK):
                        received += file.write(chunk)
                finally:
                    answer.close()
                    answer.release_conn()
            if announced not in (-1, received):
                raise IntegrityError(f"{uri}: {received} of {announced} bytes arrived; try again")
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        return path

    def stat(self, uri: str) -> Stored:
        """Return the object's size and time."""
        bucket, key = split_uri(uri)
        with self._translate(uri):
            found = self._client.stat_object(bucket, key)
        return Stored(uri, int(found.size), found.last_modified)

    def exists(self, uri: str) -> bool:
        """Say whether the object exists (a directory does not: ask for a file in it)."""
        try:
            self.stat(uri)
        except NotFoundError:
            return False
        return True

    def list(self, uri: str) -> list[Stored]:
        """Return every object below the directory `uri`, sorted by address."""
        bucket, key = split_uri(uri, directory=True)
        with self._translate(uri):
            found = [
                Stored(f"s3://{bucket}/{item.object_name}", int(item.size or 0), item.last_modified)
                for item in self._client.list_objects(bucket, prefix=key, recursive=True)
                if not item.is_dir
            ]
        return sorted(found, key=lambda stored: stored.uri)

    def delete(self, uri: str) -> None:
        """Delete the object; deleting what does not exist is no error."""
        bucket, key = split_uri(uri)
        with self._translate(uri):
            self._client.remove_object(bucket, key)

    def upload_directory(self, directory: Path, uri: str) -> tuple[str, ...]:
        """Write every file below `directory` to the same relative address below `uri`.

        A `manifest.json` is written last, so that whoever sees it sees all.

        Returns:
            The addresses written, in order.
        """
        files = [path for path in directory.rglob("*") if path.is_file()]
        if not files:
            raise RefusedError(f"{directory}: holds no file to upload")
        files.sort(key=lambda path: (path.name == "manifest.json", path.as_posix()))
        root = uri.rstrip("/")
        return tuple(
            self.put_file(path, f"{root}/{path.relative_to(directory).as_posix()}") for path in files
        )

    def download_directory(self, uri: str, directory: Path) -> Path:
        """Write every object below `uri` to the same relative path below `directory`, and return it.

        Raises:
            NotFoundError: When there is no object below `uri`.
            RefusedError: When a key would land outside `directory`.
        """
        root = uri.rstrip("/") + "/"
        found = self.list(uri)
        if not found:
            raise NotFoundError(f"{self._url}: {uri}: there is no object below it")
        for stored in found:
            relative = PurePosixPath(stored.uri.removeprefix(root))
            if relative.is_absolute() or ".." in relative.parts:
                raise RefusedError(f"{self._url}: {stored.uri}: its key leads out of the directory")
            self.get_file(stored.uri, directory / relative)
        return directory

    @contextmanager
    def _translate(self, uri: str) -> Iterator[None]:
        """Turn the SDK's exceptions into ours."""
        from minio.error import MinioException, S3Error
        from urllib3.exceptions import HTTPError

        try:
            yield
        except S3Error as error:
            raise self._explain(error, uri) from error
        except (MinioException, HTTPError) as error:
            raise UnreachableError(f"{self._url}: {uri}: no usable answer ({error}); try again") from error

    def _explain(self, error: Any, uri: str) -> ClientError:
        text = f"{self._url}: {uri}: {error.code}: {error.message}"
        if error.code in _MISSING:
            return NotFoundError(text)
        return RefusedError(f"{text} (are TENURE_S3_ACCESS_KEY and TENURE_S3_SECRET_KEY right?)")


def split_uri(uri: str, directory: bool = False) -> tuple[str, str]:
    """Return bucket and key of `s3://bucket/key`; for a directory the key ends in a slash or is empty.

    Raises:
        RefusedError: When the address has another form.
    """
    address = urlsplit(uri)
    key = address.path.lstrip("/")
    if address.scheme != "s3" or not address.netloc or address.query or address.fragment:
        raise RefusedError(f"{uri!r} is not an address of the form s3://bucket/key")
    if directory:
        return address.netloc, f"{key.rstrip('/')}/" if key else ""
    if not key or key.endswith("/"):
        raise RefusedError(f"{uri!r} names no object: the form is s3://bucket/key")
    return address.netloc, key
