"""Read the customers once and keep what was read: the snapshot, named by the SHA-256 of its content."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from clients.ledger.source import SCHEME, read_customers
from clients.names import snapshot_uri
from clients.settings import load_settings
from clients.store import Store
from tenure.project import Project, parse_project
from tenure.snapshot import SUFFIXES, read_source, write_snapshot
from tenure.version import compute_code_version

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("tenure.ingest")


@dataclass(frozen=True)
class Ingested:
    """What an ingest knows of its snapshot.

    Attributes:
        digest: SHA-256 of the snapshot's bytes.
        rows: Its customers.
        uri: Where it is stored.
        time: When this content was first stored (UTC).
        code_version: Version of the code that runs here and in every step after it.
    """

    digest: str
    rows: int
    uri: str
    time: datetime
    code_version: str


def run(project: str, source: str, snapshot_path: str) -> Ingested:
    """Store the source as a snapshot, unless this very content is stored already.

    Args:
        project: The project as JSON.
        source: A path, s3:// or ledger:// address that stands in for the project's own; "" for the project's.
        snapshot_path: Where the snapshot is written for the pipeline.

    Raises:
        tenure.errors.SourceError: The source cannot be read.
        clients.errors.ClientError: The store.
    """
    settings = parse_project(project)
    store = Store.connect(load_settings())
    frame = _read(settings, source, store)
    digest = write_snapshot(frame, Path(snapshot_path))
    uri = snapshot_uri(store.bucket, digest)
    if store.exists(uri):
        logger.info("snapshot %s (%d rows) is stored already", digest[:12], len(frame))
    else:
        store.put_file(Path(snapshot_path), uri)
        logger.info("stored snapshot %s (%d rows) at %s", digest[:12], len(frame), uri)
    return Ingested(digest, len(frame), uri, store.stat(uri).modified, compute_code_version())


def _read(project: Project, source: str, store: Store) -> pd.DataFrame:
    address = source or project.source.uri
    if address.startswith(SCHEME):
        horizon = timedelta(days=project.labels.horizon_days)
        return read_customers(load_settings(), address, project.contract, horizon)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(address)
        if address.startswith("s3://"):
            path = store.get_file(address, Path(directory) / PurePosixPath(address).name)
        return read_source(path, _choose_format(project, source, path), project.contract)


def _choose_format(project: Project, source: str, path: Path) -> str | None:
    """Return the format to read: the project's word on its own source; another source goes by its suffix."""
    if source and path.suffix.lower() in SUFFIXES:
        return None
    return project.source.format
