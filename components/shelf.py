"""Putting what a roll-out needs into the object store: the bundle, and the project it came with."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path

from clients import names
from clients.errors import IntegrityError, NotFoundError
from clients.store import Store
from tenure.bundle import Bundle, load_bundle
from tenure.canonical import dump_canonical
from tenure.errors import BundleError
from tenure.manifest import MANIFEST
from tenure.project import Project

logger = logging.getLogger("tenure.rollout")

_ATTEMPTS = 3
"""Two roll-outs of one bundle at the same time see each other's half."""


def store_bundle(store: Store, bundle: Bundle, uri: str) -> None:
    """Store the bundle below `uri` unless it is there, and read it back to verify every byte.

    Raises:
        IntegrityError: What comes back is not what was stored.
        ClientError: The store refused, or did not answer.
    """
    for attempt in range(_ATTEMPTS):
        problem = _find_problem(store, bundle, uri)
        if problem is None:
            return
        if attempt or isinstance(problem, BundleError):
            logger.warning("the stored bundle is not whole, storing what is not: %s", problem)
        _mend(store, bundle, uri)
    problem = _find_problem(store, bundle, uri)
    if problem is not None:
        raise IntegrityError(
            f"{uri}: what comes back is not what was stored: {problem}. Check the object store's disk"
        ) from problem


def store_project(store: Store, project: Project) -> str:
    """Store the project's canonical JSON where detector and pilot find it; returns its address.

    Raises:
        ClientError: The store refused, or did not answer.
    """
    data = dump_canonical(project.model_dump(mode="json"))
    uri = names.project_uri(store.bucket, hashlib.sha256(data).hexdigest())
    if not store.exists(uri):
        store.put_bytes(data, uri)
    return uri


def _find_problem(store: Store, bundle: Bundle, uri: str) -> BundleError | NotFoundError | None:
    """Return what is wrong with the stored bundle; None when every byte comes back."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            load_bundle(store.download_directory(uri, Path(directory)), bundle.digest)
        except (BundleError, NotFoundError) as error:
            return error
    return None


def _mend(store: Store, bundle: Bundle, uri: str) -> None:
    """Store the files that are missing or wrong, the manifest last, and take away what is not of the bundle.

    What is right is not touched: somebody who rolls out the same bundle may be reading it back.
    """
    files = {f"{uri}/{path.name}": path for path in bundle.directory.iterdir()}
    for stored in store.list(uri):
        if stored.uri not in files:
            store.delete(stored.uri)
    for address in sorted(files, key=lambda address: (address.endswith(f"/{MANIFEST}"), address)):
        path = files[address]
        try:
            right = store.get_bytes(address) == path.read_bytes()
        except NotFoundError:
            right = False
        if not right:
            store.put_file(path, address)
