"""What a demonstration waits for, and what it may take away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clients import names
from console import story as module
from console.errors import ConsoleError
from console.story import MADE, Story
from tenure.project import load_project

ROOT = Path(__file__).resolve().parents[2]
STABLE, CANARY = "a" * 64, "b" * 64


class Cluster:
    """InferenceService and route in memory; a deletion takes both away."""

    def __init__(self) -> None:
        self.service: dict[str, Any] | None = None
        self.inference = self.routes = self

    def find(self, name: str) -> dict[str, Any] | None:
        return self.service

    def get(self, name: str) -> dict[str, Any]:
        assert self.service is not None
        return self.service

    def delete(self, name: str) -> None:
        self.service = None

    def patch(self, name: str, document: dict[str, Any]) -> None:
        self.get(name)["metadata"]["annotations"].update(document["metadata"]["annotations"])


def make_service(canary: int | None = None, **annotations: str) -> dict[str, Any]:
    def predictor(digest: str, name: str | None = None) -> dict[str, Any]:
        return {"name": name, "model": {"storageUri": names.bundle_uri("tenure", digest)}}

    return {
        "metadata": {"name": "telco-churn", "namespace": "default", "annotations": annotations},
        "spec": {
            "predictor": predictor(STABLE),
            "canary": []
            if canary is None
            else [{"predictor": predictor(CANARY, "bbbb"), "trafficPercent": canary}],
            "rules": [
                {
                    "backendRefs": [
                        {"name": "telco-churn-predictor", "weight": 100 - (canary or 0)},
                        {"name": "telco-churn-bbbb-predictor", "weight": canary or 0},
                    ]
                }
            ],
        },
        "status": {},
    }


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(module, "_LINE_SECONDS", 0.005)
    cluster, objects, aliases = Cluster(), dict[str, bytes](), dict[str, str]()
    tracking = SimpleNamespace(
        find_alias=lambda model, alias: aliases.get(alias),
        delete_alias=lambda model, alias: aliases.pop(alias),
    )
    store = SimpleNamespace(
        exists=objects.__contains__, put_bytes=lambda data, uri: objects.__setitem__(uri, data)
    )
    settings: Any = SimpleNamespace(s3_bucket="tenure")
    project = load_project(ROOT / "projects" / "telco.yaml")
    made: Any = Story(settings, project, cluster, None, store, tracking)  # type: ignore[arg-type]
    return SimpleNamespace(story=made, cluster=cluster, objects=objects, aliases=aliases)


def test_a_wait_says_what_it_waits_for_and_ends(
    stage: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConsoleError, match=r"the moon did not come within 0 s \(half\); look at `the sky`"):
        stage.story.wait(lambda: None, "the moon", 0.05, look="`the sky`", describe=lambda: "half")
    assert stage.story.wait(lambda: 3, "the moon", 1, look="`the sky`") == 3


def test_only_a_demonstrations_service_is_taken_away(stage: SimpleNamespace) -> None:
    stage.cluster.service = make_service()
    with pytest.raises(ConsoleError, match="no demonstration made it"):
        stage.story.begin_anew(anew=False)
    assert stage.cluster.service is not None
    stage.story.claim()
    stage.aliases["champion"] = "1"
    stage.story.begin_anew(anew=False)
    assert stage.cluster.service is None
    assert not stage.aliases
    stage.story.begin_anew(anew=False)  # nothing is there: nothing to ask


def test_with_anew_any_service_is(stage: SimpleNamespace) -> None:
    stage.cluster.service = make_service()
    stage.story.begin_anew(anew=True)
    assert stage.cluster.service is None


def test_every_demonstration_has_exports_of_its_own(stage: SimpleNamespace) -> None:
    first, second = stage.story.upload_exports(0.6), stage.story.upload_exports(0.6)
    rows = [[stage.objects[uri].count(b"\n") - 1 for uri in uris] for uris in (first, second)]
    assert rows == [[4225, 7043], [4224, 7042]]


@pytest.mark.parametrize("outcome", ["rolled_back", "promoted"])
def test_a_promotion_is_awaited_and_a_rollback_ends_the_wait(
    stage: SimpleNamespace, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[Callable[[], dict[str, Any]]] = [
        lambda: make_service(20),
        lambda: make_service(50),
        lambda: make_service(
            **{names.TRANSITION: json.dumps({"outcome": outcome, "reason": "because", "at": "now"})}
        ),
    ]

    def get(name: str) -> dict[str, Any]:
        document = steps.pop(0)() if len(steps) > 1 else steps[0]()
        if not document["spec"]["canary"] and outcome == "promoted":
            document["spec"]["predictor"]["model"]["storageUri"] = names.bundle_uri("tenure", CANARY)
        stage.cluster.service = document
        return document

    stage.cluster.get = get
    stage.cluster.inference = SimpleNamespace(get=get)
    stage.cluster.routes = SimpleNamespace(find=lambda name: stage.cluster.service)
    if outcome == "promoted":
        stage.story.wait_for_promotion(CANARY, 5)
    else:
        with pytest.raises(ConsoleError, match="rolled back: because"):
            stage.story.wait_for_promotion(CANARY, 5)
    assert MADE not in stage.cluster.service["metadata"]["annotations"]
