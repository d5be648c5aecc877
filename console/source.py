"""Where a run finds its customers: on a cluster a file of this machine is put into the object store first."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clients.store import Store
from console import display
from console.context import get_remote, open_settings
from console.errors import BAD_INPUT, ConsoleError
from tenure.project import Project


def place_source(project: Project, source: str) -> str:
    """Return the source that a run is given: the one asked for, or what its pods can read in its place.

    Args:
        project: Its own source counts when none is asked for.
        source: A path or URI; empty for the project's.

    Raises:
        ConsoleError: The file is not here.
        ClientError: The object store does not take it.
    """
    uri = source or project.source.uri
    if get_remote() is None or "://" in uri:
        return source
    path = Path(uri)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConsoleError(f"{path}: {error.strerror or error}", BAD_INPUT) from error
    store = Store.connect(open_settings("store"))
    # Named by its content: the same file is stored once, and a run's source never changes afterwards.
    target = f"s3://{store.bucket}/sources/{digest}{path.suffix}"
    if not store.exists(target):
        display.err.print(f"putting {path} into the cluster's object store", markup=False)
        store.put_file(path, target)
    return target
