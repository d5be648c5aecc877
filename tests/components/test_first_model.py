"""The first model of a service: proven before anybody meets it, replaced when it cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from clients import names
from clients.errors import IntegrityError, UnreachableError
from clients.store import Store
from clients.tracking import CHALLENGER, CHAMPION
from components.variant import UNPROVEN
from tenure.project import parse_project


def test_first_model_becomes_stable_and_champion(stage: Any, store: Store) -> None:
    text = stage.roll_out(stage.first)
    document = stage.get()
    uri = f"s3://tenure/bundles/{stage.first.bundle_digest}"
    assert document["metadata"]["labels"] == {names.PROJECT_LABEL: stage.name}
    marks = document["metadata"]["annotations"]
    assert set(marks) == {names.DEPLOYMENT_MODE, names.PROJECT_URI}
    stored = parse_project(store.get_bytes(marks[names.PROJECT_URI]).decode())
    assert stored == stage.first.project.model_copy(update={"rollout": stored.rollout})
    assert stored.rollout.service == stage.service
    assert document["spec"] == {
        "predictor": {
            "minReplicas": 1,
            "model": {"modelFormat": {"name": "tenure"}, "protocolVersion": "v2", "storageUri": uri},
        }
    }
    assert stage.alias(CHAMPION) == stage.first.bundle_digest
    assert stage.alias(CHALLENGER) is None
    assert stage.tags(stage.first)["rollout"] == "stable"
    assert stage.tags(stage.first)["tenure.reason"] == "test"
    assert len(store.list(uri)) == 9
    assert "first model" in text
    assert "all customers" in text


@pytest.mark.parametrize("fault", ["never_ready", "wrong"])
def test_bad_first_model_stays_unproven_until_another_takes_its_place(
    stage: Any, stand_in: tuple[Any, str], fault: str
) -> None:
    player, _ = stand_in
    getattr(player, fault).add(stage.first.bundle_digest)
    with pytest.raises((UnreachableError, IntegrityError)) as caught:
        stage.roll_out(stage.first, seconds=1)
    assert "has no customers" in "".join(caught.value.__notes__)
    assert UNPROVEN in stage.get()["metadata"]["annotations"]
    assert (stage.alias(CHAMPION), stage.alias(CHALLENGER)) == (None, None)
    assert stage.tags(stage.first)["rollout"] == "failed"
    # A wrong one is ready all the same, and yet no stable model that the next had to be a canary of.
    stage.roll_out(stage.second)
    document = stage.get()
    assert document["spec"]["predictor"]["model"]["storageUri"].endswith(stage.second.bundle_digest)
    assert "canary" not in document["spec"]
    assert stage.alias(CHAMPION) == stage.second.bundle_digest


def test_bad_first_model_may_be_tried_again(stage: Any, stand_in: tuple[Any, str]) -> None:
    player, _ = stand_in
    player.never_ready.add(stage.first.bundle_digest)
    with pytest.raises(UnreachableError, match="PredictorReady is False, Starting"):
        stage.roll_out(stage.first, seconds=1)
    player.never_ready.clear()
    assert "first model" in stage.roll_out(stage.first)
    assert UNPROVEN not in stage.get()["metadata"]["annotations"]
    assert stage.alias(CHAMPION) == stage.first.bundle_digest


def test_killed_first_rollout_is_finished_or_replaced(stage: Any, stand_in: tuple[Any, str]) -> None:
    player, _ = stand_in
    player.never_ready.add(stage.first.bundle_digest)
    project = stage.first.project
    settings = project.rollout.model_copy(update={"service": stage.service})
    # What a roll-out leaves behind that is killed while it waits:
    from components.variant import build_service

    uri = f"s3://tenure/bundles/{stage.first.bundle_digest}"
    stage.services.create(build_service(settings, project.name, uri))
    assert stage.get()["metadata"]["annotations"][UNPROVEN] == stage.first.bundle_digest
    stage.roll_out(stage.second)
    document = stage.get()
    assert document["spec"]["predictor"]["model"]["storageUri"].endswith(stage.second.bundle_digest)
    assert "canary" not in document["spec"]
    assert UNPROVEN not in document["metadata"]["annotations"]
    assert stage.alias(CHAMPION) == stage.second.bundle_digest
