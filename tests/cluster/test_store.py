"""The object store on a real cluster: what the model servers' key may read, and what it is refused."""

from __future__ import annotations

import base64
import io
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.error import S3Error

from installer.delivery import make_grant

KUBECTL = Path(sys.executable).with_name("kubectl")


@dataclass(frozen=True)
class Store:
    """The cluster's object store through its two keys, with a bucket for the test."""

    bucket: str
    admin: Minio
    reader: Minio


@pytest.fixture
def store(cluster: Any, poll: Any, tmp_path: Path) -> Iterator[Store]:
    """A bucket with something in it, and the key that `make up` gives to model servers."""
    secret = cluster.get("-n", "kubeflow", "secret", "mlpipeline-minio-artifact")["data"]
    access, password = (base64.b64decode(secret[key]).decode() for key in ("accesskey", "secretkey"))
    name = f"test-{secrets.token_hex(4)}"
    own = secrets.token_hex(8), secrets.token_hex(16)
    grant = re.sub(r"-user \S+ ", f"-user {name} ", make_grant(name, *own))
    assert f"-user {name} " in grant
    configure_store(cluster, grant)
    with forward(cluster, poll, tmp_path) as address:
        clients = [
            Minio(address, access_key=one, secret_key=two, secure=False, region="us-east-1")
            for one, two in ((access, password), own)
        ]
        found = Store(name, *clients)
        for bucket in (name, f"{name[:-1]}z"):
            found.admin.make_bucket(bucket)
            for key in ("bundles/one/manifest.json", "bundles-else/x", "snapshots/x.parquet"):
                found.admin.put_object(bucket, key, io.BytesIO(b"some"), 4)
        try:
            poll(lambda: not refuses(lambda: found.reader.bucket_exists(name)), 60, "the readers' key")
            yield found
        finally:
            configure_store(cluster, f"s3.configure -user {name} -delete -apply\n")
            for bucket in (name, f"{name[:-1]}z"):
                for one in found.admin.list_objects(bucket, recursive=True):
                    found.admin.remove_object(bucket, one.object_name or "")
                found.admin.remove_bucket(bucket)


def configure_store(cluster: Any, line: str) -> None:
    """Give SeaweedFS' shell a line; keys are in it, so it is no argument and its answer is not shown."""
    arguments = ("-n", "kubeflow", "exec", "-i", "deploy/seaweedfs", "--", "weed", "shell")
    subprocess.run(
        [str(KUBECTL), "--kubeconfig", str(cluster.kubeconfig), *arguments],
        input=line,
        stdout=subprocess.DEVNULL,
        text=True,
        check=True,
        timeout=60,
    )


@contextmanager
def forward(cluster: Any, poll: Any, folder: Path) -> Iterator[str]:
    """Give an address of this machine that leads to the store."""
    log = folder / "forward.log"
    with log.open("w") as output:
        arguments = ("-n", "kubeflow", "port-forward", "--address=127.0.0.1", "svc/seaweedfs", ":9000")
        process = subprocess.Popen(
            [str(KUBECTL), "--kubeconfig", str(cluster.kubeconfig), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        pattern = re.compile(r"Forwarding from (127\.0\.0\.1:\d+) ->")
        yield poll(lambda: pattern.search(log.read_text()), 60, "the port-forward")[1]
    finally:
        process.terminate()
        process.wait(10)


def refuses(action: Callable[[], Any]) -> bool:
    """Say whether the store refuses an action for want of rights; any other failure is one."""
    try:
        action()
    except S3Error as error:
        if error.code != "AccessDenied":
            raise
        return True
    return False


def test_model_servers_key_reads_bundles_only(store: Store) -> None:
    reader, bucket, other = store.reader, store.bucket, f"{store.bucket[:-1]}z"
    # What KServe's storage initializer does: is the bucket there, what lies under the prefix, fetch it.
    assert reader.bucket_exists(bucket)
    assert [one.object_name for one in reader.list_objects(bucket, "bundles/one", recursive=True)] == [
        "bundles/one/manifest.json"
    ]
    assert reader.get_object(bucket, "bundles/one/manifest.json").read() == b"some"

    def put(place: str, key: str) -> Callable[[], Any]:
        return lambda: reader.put_object(place, key, io.BytesIO(b"no"), 2)

    refused: dict[str, Callable[[], Any]] = {
        "read a snapshot": lambda: reader.get_object(bucket, "snapshots/x.parquet"),
        "read what is called alike": lambda: reader.get_object(bucket, "bundles-else/x"),
        "read another bucket": lambda: reader.get_object(other, "bundles/one/manifest.json"),
        "list everything": lambda: list(reader.list_objects(bucket, recursive=True)),
        "list snapshots": lambda: list(reader.list_objects(bucket, "snapshots/", recursive=True)),
        "list another bucket": lambda: list(reader.list_objects(other, "bundles/", recursive=True)),
        "write a bundle": put(bucket, "bundles/one/manifest.json"),
        "write a new bundle": put(bucket, "bundles/two/manifest.json"),
        "write elsewhere": put(bucket, "snapshots/y.parquet"),
        "write to another bucket": put(other, "bundles/x"),
        "delete a bundle": lambda: reader.remove_object(bucket, "bundles/one/manifest.json"),
        "make a bucket": lambda: reader.make_bucket(f"{bucket}-new"),
        "remove the bucket": lambda: reader.remove_bucket(bucket),
    }
    taken = [name for name, action in refused.items() if not refuses(action)]
    assert not taken
    assert store.admin.get_object(bucket, "bundles/one/manifest.json").read() == b"some"
