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


def store_bundle(store: Store, bundle: Bundle, uri: str) -> None:
    """Store the bundle below `uri` unless it is there, and read it back to verify every byte.

    Raises:
        IntegrityError: What comes back is not what was stored.
        ClientError: The store refused, or did not answer.
    """
    if store.exists(f"{uri}/{MANIFEST}"):
        try:
            _verify(store, bundle, uri)
        except (BundleError, NotFoundError) as error:
            logger.warning("the stored bundle is not whole, storing it again: %s", error)
        else:
            return
    for stored in store.list(uri):
        store.delete(stored.uri)
    store.upload_directory(bundle.directory, uri)
    try:
        _verify(store, bundle, uri)
    except BundleError as error:
        raise IntegrityError(
            f"{uri}: what comes back is not what was stored: {error}. Check the object store's disk"
        ) from error


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


def _verify(store: Store, bundle: Bundle, uri: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        load_bundle(store.download_directory(uri, Path(directory)), bundle.digest)
