from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.registry import CollectorRegistry

from clients.errors import ConflictError
from clients.tracking import Version
from tenure.project import load_project

STABLE, CANARY, NEWER = "a" * 64, "b" * 64, "c" * 64


def make_service(**changes: Any) -> dict[str, Any]:
    """An InferenceService whose stable bundle is STABLE."""
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "churn",
            "namespace": "default",
            "labels": {"tenure.dev/project": "telco"},
            "annotations": dict(changes.pop("annotations", {})),
        },
        "spec": {
            "predictor": {
                "minReplicas": 2,
                "model": {
                    "modelFormat": {"name": "tenure"},
                    "protocolVersion": "v2",
                    "storageUri": f"s3://tenure/bundles/{STABLE}",
                },
            },
            **changes,
        },
        "status": {"conditions": [{"type": "PredictorReady", "status": "True"}], "canaryStatuses": []},
    }


def add_canary(service: dict[str, Any], digest: str = CANARY, percent: int = 20, ready: bool = True) -> str:
    """Put a canary in front; returns its name."""
    name = f"b{digest[:10]}"
    entry = {
        "trafficPercent": percent,
        "predictor": {
            "name": name,
            "minReplicas": 1,
            "model": {
                "name": "kserve-container",
                "modelFormat": {"name": "tenure"},
                "protocolVersion": "v2",
                "storageUri": f"s3://tenure/bundles/{digest}",
            },
        },
    }
    service["spec"].setdefault("canary", []).append(entry)
    service["status"]["canaryStatuses"].append({"name": name, "ready": ready, "trafficPercent": percent})
    return name


class Shelf:
    """Resources of one kind in memory, with an API server's generations and conflicts.

    `gateway` is what answers for the gateway: it makes every written route accepted when true.
    `on_write` is called before each write and may raise, as a killed process would stop there.
    """

    def __init__(self, gateway: bool = False) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.gateway = gateway
        self.on_write: Callable[[], None] = lambda: None
        self._version = 0

    def list(self) -> list[dict[str, Any]]:
        return [copy.deepcopy(document) for document in self.documents.values()]

    def create(self, document: dict[str, Any]) -> dict[str, Any]:
        if document["metadata"]["name"] in self.documents:
            raise ConflictError("exists")
        return self._store(document, 1)

    def replace(self, document: dict[str, Any]) -> dict[str, Any]:
        current = self.documents[document["metadata"]["name"]]
        if document["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"]:
            raise ConflictError("stale")
        changed = document["spec"] != current["spec"]
        return self._store(document, current["metadata"]["generation"] + changed)

    def delete(self, name: str) -> None:
        self.on_write()
        del self.documents[name]

    def put(self, document: dict[str, Any]) -> None:
        """Write as somebody else would: no conflict, no hook."""
        hook, self.on_write = self.on_write, lambda: None
        current = self.documents.get(document["metadata"]["name"])
        self._store(document, current["metadata"]["generation"] + 1 if current else 1)
        self.on_write = hook

    def _store(self, document: dict[str, Any], generation: int) -> dict[str, Any]:
        self.on_write()
        stored = copy.deepcopy(document)
        self._version += 1
        stored["metadata"] |= {"resourceVersion": str(self._version), "generation": generation}
        if self.gateway:
            accepted = {"type": "Accepted", "status": "True", "observedGeneration": generation}
            stored["status"] = {"parents": [{"conditions": [accepted]}]}
        self.documents[stored["metadata"]["name"]] = stored
        return copy.deepcopy(stored)


class Versions:
    """A model registry in memory: versions are bundles, by the first letter of their digest."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}
        self.tags: dict[str, dict[str, str]] = {}

    def find_version(self, model: str, digest: str) -> Version | None:
        assert model == "telco"
        number = {STABLE: "1", CANARY: "2", NEWER: "3"}.get(digest)
        return Version(model, number, digest, f"s3://tenure/bundles/{digest}") if number else None

    def find_alias(self, model: str, alias: str) -> Version | None:
        number = self.aliases.get(alias)
        return Version(model, number, "", "") if number else None

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self.aliases[alias] = version

    def delete_alias(self, model: str, alias: str) -> None:
        del self.aliases[alias]

    def tag_version(self, model: str, version: str, tags: dict[str, str]) -> None:
        self.tags.setdefault(version, {}).update(tags)


class Make:
    """What tests build from, as one fixture."""

    STABLE, CANARY, NEWER = STABLE, CANARY, NEWER
    service = staticmethod(make_service)
    canary = staticmethod(add_canary)
    project = load_project(Path(__file__).parents[3] / "projects" / "telco.yaml")
    registry = CollectorRegistry


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()


@pytest.fixture
def services() -> Shelf:
    return Shelf()


@pytest.fixture
def routes() -> Shelf:
    return Shelf(gateway=True)


@pytest.fixture
def versions() -> Versions:
    return Versions()
