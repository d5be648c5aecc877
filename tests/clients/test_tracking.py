"""Runs and the registry against a real MLflow server."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from clients.errors import NotFoundError, RefusedError, UnreachableError
from clients.settings import Settings
from clients.study import open_study
from clients.tracking import CHALLENGER, CHAMPION, Tracking

DIGEST = "0123456789abcdef" * 4


def test_metrics_tags_and_texts_reach_the_run(tracking: Tracking, project: str) -> None:
    study = open_study(tracking, project, "tag", tags={}, params={})
    tracking.log_metrics(study.run_id, {"roc_auc": 0.84, "nothing": float("nan")})
    tracking.set_tags(study.run_id, {"gate": "approved", "long": "x" * 9000})
    tracking.log_text(study.run_id, "<p>report</p>", "report.html")
    run = tracking.client.get_run(study.run_id)
    assert run.data.metrics == {"roc_auc": 0.84}
    assert tracking.get_tags(study.run_id)["gate"] == "approved"
    assert [item.path for item in tracking.client.list_artifacts(study.run_id)] == ["report.html"]


def test_bundle_is_registered_once(tracking: Tracking, project: str) -> None:
    assert tracking.find_alias(project, CHAMPION) is None
    assert tracking.find_version(project, DIGEST) is None
    run_id = open_study(tracking, project, "tag", tags={}, params={}).run_id
    uri = f"s3://tenure/bundles/{DIGEST}"
    first = tracking.register_bundle(project, run_id, DIGEST, uri, {"snapshot": "abc"})
    assert (first.digest, first.uri, first.run_id, first.version) == (DIGEST, uri, run_id, "1")
    assert tracking.register_bundle(project, run_id, DIGEST, uri) == tracking.find_version(project, DIGEST)
    second = tracking.register_bundle(project, run_id, "f" * 64, uri)
    assert second.version == "2"
    tracking.set_alias(project, CHALLENGER, "1")
    tracking.set_alias(project, CHALLENGER, "2")
    found = tracking.find_alias(project, CHALLENGER)
    assert found is not None
    assert found.version == "2"
    tracking.delete_alias(project, CHALLENGER)
    tracking.delete_alias(project, CHALLENGER)
    assert tracking.find_alias(project, CHALLENGER) is None
    tracking.tag_version(project, "2", {"gate": "approved"})
    version = tracking.find_version(project, "f" * 64)
    assert version is not None
    assert version.tags["gate"] == "approved"


def test_many_runs_register_one_bundle_at_once(tracking: Tracking, project: str, at_once: Any) -> None:
    run_id = open_study(tracking, project, "tag", tags={}, params={}).run_id
    uri = f"s3://tenure/bundles/{DIGEST}"
    for round_ in range(3):
        model = f"{project}-{round_}"
        found = at_once([partial(tracking.register_bundle, model, run_id, DIGEST, uri)] * 8)
        assert {version.version for version in found} == {"1"}
        (left,) = tracking.client.search_model_versions(f"name = '{model}'")
        assert str(left.version) == "1"


def test_many_runs_write_the_same_alias_and_tag_at_once(
    tracking: Tracking, project: str, at_once: Any
) -> None:
    """MLflow's server looks for the row and then inserts it: who comes second is refused."""
    run_id = open_study(tracking, project, "tag", tags={}, params={}).run_id
    tracking.register_bundle(project, run_id, DIGEST, f"s3://tenure/bundles/{DIGEST}")

    def write() -> None:
        tracking.set_alias(project, CHALLENGER, "1")
        tracking.tag_version(project, "1", {"rollout": threading.current_thread().name})

    for _ in range(5):
        at_once([write] * 8)
        found = tracking.find_alias(project, CHALLENGER)
        assert found is not None
        assert found.tags["rollout"].startswith("ThreadPoolExecutor")
        tracking.delete_alias(project, CHALLENGER)
        tracking.client.delete_model_version_tag(project, "1", "rollout")


def test_what_is_missing_is_not_found(tracking: Tracking) -> None:
    with pytest.raises(NotFoundError):
        tracking.get_tags("0" * 32)
    with pytest.raises(NotFoundError):
        tracking.set_alias("no-such-model", CHAMPION, "1")


def test_version_of_other_makers_is_refused(tracking: Tracking, project: str) -> None:
    tracking.client.create_registered_model(project)
    run = tracking.client.create_run(tracking.find_experiment(project))
    tracking.client.create_model_version(project, f"{run.info.artifact_uri}/m", run.info.run_id)
    tracking.set_alias(project, CHAMPION, "1")
    with pytest.raises(RefusedError, match="not registered by Tenure"):
        tracking.find_alias(project, CHAMPION)


def test_deleted_experiment_is_told(tracking: Tracking, project: str) -> None:
    tracking.client.delete_experiment(tracking.find_experiment(project))
    with pytest.raises(RefusedError, match="mlflow experiments restore"):
        tracking.find_experiment(project)


def test_silent_address_is_unreachable(
    tracking: Tracking, tracking_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nowhere = tracking_settings.model_copy(update={"tracking_url": "http://127.0.0.1:9"})
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        Tracking.connect(nowhere).find_experiment("x")
