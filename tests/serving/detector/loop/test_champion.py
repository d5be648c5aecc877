"""Who serves, from a real API server and a real object store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clients import names
from clients.services import Collection, Services
from clients.settings import Settings
from clients.store import Store
from serving.detector.champion import Champions
from tenure.bundle import Bundle
from tenure.canonical import dump_canonical
from tenure.project import Project


@pytest.fixture
def services(store_settings: Settings, kubeconfig: Path) -> Collection:
    found = Services.connect(store_settings.model_copy(update={"kubeconfig": kubeconfig})).inference
    for document in found.list():
        found.delete(document["metadata"]["name"])
    return found


@pytest.fixture
def roll_out(services: Collection, store: Store, bundle: Bundle, project: Project) -> Callable[..., str]:
    def make(project_uri: str | None = None, label: str = "demo", **spec: Any) -> str:
        uri = names.bundle_uri(store.bucket, bundle.digest)
        store.upload_directory(bundle.directory, uri)
        data = dump_canonical(project.model_dump(mode="json"))
        stored = names.project_uri(store.bucket, hashlib.sha256(data).hexdigest())
        store.put_bytes(data, stored)
        name = f"churn-{uuid4().hex[:6]}"
        model = {"modelFormat": {"name": "tenure"}, "protocolVersion": "v2", "storageUri": uri}
        annotations = {names.PROJECT_URI: project_uri or stored} if project_uri != "" else {}
        services.create(
            {
                "metadata": {
                    "name": name,
                    "labels": {names.PROJECT_LABEL: label} if label else {},
                    "annotations": {**annotations, names.DEPLOYMENT_MODE: "Standard"},
                },
                "spec": {"predictor": {"model": model}, **spec},
            }
        )
        return name

    return make


def test_champion_is_found_with_project_and_canaries(
    roll_out: Callable[..., str], services: Collection, store: Store, bundle: Bundle, project: Project
) -> None:
    other = "f" * 64
    predictor = {
        "name": names.canary_name(other),
        "model": {
            "name": "kserve-container",
            "modelFormat": {"name": "tenure"},
            "storageUri": names.bundle_uri(store.bucket, other),
        },
    }
    name = roll_out(canary=[{"trafficPercent": 20, "predictor": predictor}])
    roll_out(label="")
    champions = Champions(services, store)
    [champion], problems = champions.find()
    assert problems == {}
    assert (champion.service, champion.version, champion.project) == (name, bundle.version, project)
    assert champion.canaries == (names.canary_name(other),)
    judge = champion.get_judge("inputs")
    assert list(judge.reference.columns) == ["plan", "months", "charge", "score"]
    [again], _ = champions.find()
    assert again.bundle is champion.bundle
    assert again.get_judge("inputs") is judge


def test_what_is_missing_or_altered_is_a_problem_of_its_service(
    roll_out: Callable[..., str], services: Collection, store: Store
) -> None:
    early = roll_out(project_uri="")
    wrong = store.put_bytes(b"{}", names.project_uri(store.bucket, "0" * 64))
    altered = roll_out(project_uri=wrong)
    lost = roll_out(project_uri=names.project_uri(store.bucket, "1" * 64))
    fine = roll_out()
    champions, problems = Champions(services, store).find()
    assert [champion.service for champion in champions] == [fine]
    assert "waits for a roll-out" in problems[early]
    assert "not what was stored" in problems[altered]
    assert names.project_uri(store.bucket, "1" * 64) in problems[lost]
