"""Who serves now: each InferenceService's champion, its bundle, and the project that it came with."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clients import names
from clients.errors import ClientError, IntegrityError, RefusedError
from clients.services import Collection, Document
from clients.store import Store
from serving.detector.alibi import open_backend
from tenure.bundle import Bundle, load_bundle
from tenure.drift.monitor import Monitor
from tenure.drift.reference import Family, Reference
from tenure.errors import TenureError
from tenure.project import Project, parse_project

logger = logging.getLogger("tenure.detector")

KEPT = 8
"""Bundles and projects that are kept in memory, the most recently used ones."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Judge:
    """One champion's reference of one family, and what compares with it."""

    reference: Reference
    monitor: Monitor


@dataclass(frozen=True, eq=False)
class Champion:
    """The model that serves, and how its project wants it watched.

    Attributes:
        service: The InferenceService.
        bundle: The stable variant's bundle, verified.
        project: The newest roll-out's project.
        canaries: Predictor names of canaries that are being rolled out.
    """

    service: str
    bundle: Bundle
    project: Project
    canaries: tuple[str, ...] = ()
    _judges: dict[Family, Judge] = field(default_factory=dict, repr=False)

    @property
    def version(self) -> str:
        """What the ledger calls it."""
        return self.bundle.version

    def get_judge(self, family: Family) -> Judge:
        """Return what judges windows of a family; made when it is first asked for.

        Raises:
            BackendError: The project's backend is not installed here.
            DriftError: The bundle's reference does not fit its contract.
        """
        if family not in self._judges:
            drift = self.project.drift
            reference = Reference.from_frame(self.bundle.reference(), self.bundle.contract, family)
            backend = open_backend(drift.backend, reference)
            self._judges[family] = Judge(reference, Monitor(reference, backend, drift, family))
        return self._judges[family]


class Champions:
    """Finds the champions; bundles and projects are fetched once and kept.

    Args:
        services: The InferenceServices.
        store: Where bundles and projects are.
    """

    def __init__(self, services: Collection, store: Store) -> None:
        self._services = services
        self._store = store
        self._bundles: OrderedDict[str, Bundle] = OrderedDict()
        self._projects: OrderedDict[str, Project] = OrderedDict()
        self._judges: OrderedDict[str, dict[Family, Judge]] = OrderedDict()

    def find(self) -> tuple[list[Champion], dict[str, str]]:
        """Return the champions of all our services, and for those that have none yet why, by service.

        Raises:
            ClientError: The API server does not answer.
        """
        champions, problems = [], {}
        for service in self._services.list():
            if names.PROJECT_LABEL not in (service["metadata"].get("labels") or {}):
                continue
            name = service["metadata"]["name"]
            try:
                champions.append(self._read(service))
            except (ClientError, TenureError) as error:
                problems[name] = str(error)
        return champions, problems

    def _read(self, service: Document) -> Champion:
        metadata, spec = service["metadata"], service["spec"]
        uri = spec["predictor"].get("model", {}).get("storageUri", "")
        try:
            digest = names.digest_of(uri)
        except ValueError as error:
            raise RefusedError(f"{error}: roll it out with `tenure run`") from error
        project_uri = (metadata.get("annotations") or {}).get(names.PROJECT_URI)
        if project_uri is None:
            raise RefusedError(
                f"waits for a roll-out to say which project it serves (annotation {names.PROJECT_URI})"
            )
        project = _keep(self._projects, project_uri, lambda: self._load_project(project_uri))
        bundle = _keep(self._bundles, digest, lambda: self._load_bundle(uri, digest))
        # The same bundle may be judged by other settings after another roll-out.
        judges = _keep(self._judges, f"{digest} {project_uri}", dict[Family, Judge])
        canaries = tuple(str(entry["predictor"]["name"]) for entry in spec.get("canary") or ())
        return Champion(metadata["name"], bundle, project, canaries, judges)

    def _load_bundle(self, uri: str, digest: str) -> Bundle:
        with tempfile.TemporaryDirectory() as directory:
            bundle = load_bundle(self._store.download_directory(uri, Path(directory)), digest)
        logger.info("bundle %s of %s is loaded", bundle.version, bundle.metadata.service)
        return bundle

    def _load_project(self, uri: str) -> Project:
        data = self._store.get_bytes(uri)
        expected = uri.rsplit("/", 1)[-1].removesuffix(".json")
        if hashlib.sha256(data).hexdigest() != expected:
            raise IntegrityError(f"{uri}: is not what was stored under this name: roll out again")
        return parse_project(data.decode(), where=uri)


def _keep(kept: OrderedDict[str, Any], key: str, make: Callable[[], T]) -> T:
    """Return what is kept under a key, or make it; the least recently used one makes room."""
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)
    value: T = kept[key]
    return value
