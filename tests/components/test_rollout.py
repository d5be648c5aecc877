"""Roll-out: first model, canary, again, a newer one, and everything that goes wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clients import names
from clients.errors import ClientError, IntegrityError, NotFoundError, RefusedError, UnreachableError
from clients.settings import load_settings
from clients.store import Store
from clients.tracking import CHALLENGER, CHAMPION, Tracking
from components import evaluate
from components.rollout import Rollout
from components.tune import select_part
from components.variant import UNPROVEN
from tenure.bundle import load_bundle
from tenure.errors import BundleError
from tenure.evaluation import EvaluationReport
from tenure.partition import Part
from tenure.snapshot import read_snapshot


def test_second_model_becomes_a_canary(stage: Any) -> None:
    stage.roll_out(stage.first)
    stable = stage.get()["spec"]["predictor"]
    text = stage.roll_out(stage.second)
    spec = stage.get()["spec"]
    assert spec["predictor"] == stable
    assert spec["canary"] == [
        {
            "predictor": {
                "name": f"b{stage.second.bundle_digest[:10]}",
                "minReplicas": 1,
                "model": {
                    "name": "kserve-container",
                    "modelFormat": {"name": "tenure"},
                    "protocolVersion": "v2",
                    "storageUri": f"s3://tenure/bundles/{stage.second.bundle_digest}",
                },
            },
            "trafficPercent": 20,
        }
    ]
    assert stage.alias(CHAMPION) == stage.first.bundle_digest
    assert stage.alias(CHALLENGER) == stage.second.bundle_digest
    assert stage.tags(stage.second)["rollout"] == "canary"
    assert "20 %" in text


def test_canary_is_proven_before_it_gets_traffic(stage: Any, stand_in: tuple[Any, str]) -> None:
    player, _ = stand_in
    stage.roll_out(stage.first)
    shares: list[int] = []
    find = player.find_bundle

    def look(host: str, variant: str | None) -> Any:
        shares.extend(entry["trafficPercent"] for entry in stage.get()["spec"].get("canary") or ())
        return find(host, variant)

    player.find_bundle = look
    try:
        stage.roll_out(stage.second)
    finally:
        del player.find_bundle
    assert shares
    assert set(shares) == {0}
    canary = names.canary_name(stage.second.bundle_digest)
    assert player.asked[-1] == (canary, stage.second.bundle_digest)


def test_doing_it_again_changes_nothing(stage: Any) -> None:
    stage.roll_out(stage.first)
    generation = stage.get()["metadata"]["generation"]
    assert "stable model already" in stage.roll_out(stage.first)
    stage.roll_out(stage.second)
    before = stage.get()
    assert "canary already" in stage.roll_out(stage.second)
    after = stage.get()
    assert after["metadata"]["generation"] == before["metadata"]["generation"] > generation
    assert after["spec"] == before["spec"]


def test_replaced_canary_is_recorded(stage: Any) -> None:
    stage.roll_out(stage.first)
    stage.roll_out(stage.second)
    assert stage.tags(stage.second)["rollout"] == "canary"
    # With another stable model the first one can be a challenger again.
    other = {"name": "other", "model": {"storageUri": f"s3://tenure/bundles/{'e' * 64}"}}
    stage.services.patch(stage.service, {"spec": {"predictor": other}})
    stage.roll_out(stage.first)
    assert stage.tags(stage.first)["rollout"] == "canary"
    assert stage.tags(stage.second)["rollout"] == "replaced"


def test_share_that_a_person_chose_is_kept(stage: Any) -> None:
    stage.roll_out(stage.first)
    stage.roll_out(stage.second)
    entry = stage.get()["spec"]["canary"][0]
    stage.services.patch(stage.service, {"spec": {"canary": [{**entry, "trafficPercent": 55}]}})
    assert "55 %" in stage.roll_out(stage.second)
    assert stage.get()["spec"]["canary"][0]["trafficPercent"] == 55


def test_newer_challenger_replaces_an_unfinished_canary(stage: Any) -> None:
    stage.roll_out(stage.first)
    other = f"s3://tenure/bundles/{'e' * 64}"
    model = {"name": "kserve-container", "modelFormat": {"name": "tenure"}, "storageUri": other}
    entry = {"predictor": {"name": "beeee", "minReplicas": 1, "model": model}, "trafficPercent": 10}
    stage.services.patch(stage.service, {"spec": {"canary": [entry]}})
    assert "beeee" in stage.roll_out(stage.second)
    canaries = stage.get()["spec"]["canary"]
    assert [item["predictor"]["name"] for item in canaries] == [names.canary_name(stage.second.bundle_digest)]


@pytest.mark.parametrize("fault", ["never_ready", "deaf", "wrong"])
def test_bad_canary_is_removed_and_stable_untouched(
    stage: Any, stand_in: tuple[Any, str], fault: str
) -> None:
    player, _ = stand_in
    stage.roll_out(stage.first)
    before = stage.get()["spec"]
    getattr(player, fault).add(stage.second.bundle_digest)
    expected = IntegrityError if fault == "wrong" else UnreachableError
    with pytest.raises(expected) as caught:
        stage.roll_out(stage.second, seconds=1)
    message = str(caught.value)
    told = {
        "never_ready": "the model server is starting",
        "deaf": f"version '{stage.first.bundle_digest[:12]}' answered",
        "wrong": "differently",
    }
    assert told[fault] in message
    assert "removed" in "".join(caught.value.__notes__)
    assert stage.get()["spec"] == before
    assert stage.alias(CHAMPION) == stage.first.bundle_digest
    assert stage.alias(CHALLENGER) is None
    assert stage.tags(stage.second)["rollout"] == "failed"
    assert stage.tags(stage.second)["rollout.error"] == message


@pytest.fixture
def roll_out_at_once(stage: Any, at_once: Any) -> Callable[..., list[str]]:
    """Rolls models out from a thread each; returns each one's report, or what went wrong."""

    def roll_out(model: Any) -> str:
        try:
            return str(stage.roll_out(model))
        except ClientError as error:
            return f"{type(error).__name__}: {error}"

    return lambda *models: at_once([partial(roll_out, model) for model in models])


def test_two_runs_that_finish_at_once_with_one_model(stage: Any, roll_out_at_once: Any) -> None:
    stage.roll_out(stage.first)
    stable = stage.get()["spec"]["predictor"]
    reports = roll_out_at_once(stage.second, stage.second)
    assert all("20 %" in report for report in reports), reports
    spec = stage.get()["spec"]
    assert spec["predictor"] == stable
    assert [entry["trafficPercent"] for entry in spec["canary"]] == [20]
    assert stage.alias(CHALLENGER) == stage.second.bundle_digest
    versions = stage.tracking.client.search_model_versions(f"name = '{stage.name}'")
    digests = [version.tags["tenure.bundle"] for version in versions]
    assert len(digests) == len(set(digests)), "one version for each bundle"


def test_two_first_runs_that_finish_at_once(stage: Any, roll_out_at_once: Any) -> None:
    """One of them serves everybody; the other is its canary, or says that it was in the way."""
    reports = roll_out_at_once(stage.first, stage.second)
    service = stage.get()
    assert UNPROVEN not in service["metadata"]["annotations"], reports
    uris = [service["spec"]["predictor"]["model"]["storageUri"]]
    uris += [entry["predictor"]["model"]["storageUri"] for entry in service["spec"].get("canary") or ()]
    for model, report in zip((stage.first, stage.second), reports, strict=True):
        placed = f"s3://tenure/bundles/{model.bundle_digest}" in uris
        assert placed == ("Error" not in report), (report, uris)
    assert any("all customers" in report for report in reports), reports
    assert stage.alias(CHAMPION) == names.digest_of(uris[0])


def test_canary_that_somebody_removes_meanwhile_fails(stage: Any, stand_in: tuple[Any, str]) -> None:
    player, _ = stand_in
    stage.roll_out(stage.first)
    find = player.find_bundle

    def remove(host: str, variant: str | None) -> Any:
        found = find(host, variant)
        stage.services.patch(stage.service, {"spec": {"canary": None}})
        return found

    player.find_bundle = remove
    try:
        with pytest.raises(NotFoundError, match="somebody took it away"):
            stage.roll_out(stage.second)
    finally:
        del player.find_bundle
    assert "canary" not in stage.get()["spec"]


def test_altered_bundle_in_the_store_is_stored_again(stage: Any, store: Store) -> None:
    stage.roll_out(stage.first)
    uri = f"s3://tenure/bundles/{stage.second.bundle_digest}"
    store.upload_directory(stage.second.bundle, uri)
    data = bytearray(store.get_bytes(f"{uri}/model.onnx"))
    data[10] ^= 1
    store.put_bytes(bytes(data), f"{uri}/model.onnx")
    store.put_bytes(b"surprise", f"{uri}/extra.bin")
    stage.roll_out(stage.second)
    assert store.get_bytes(f"{uri}/model.onnx") == (stage.second.bundle / "model.onnx").read_bytes()
    assert not store.exists(f"{uri}/extra.bin")


def test_store_that_alters_bytes_is_told(stage: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"s3://tenure/bundles/{stage.first.bundle_digest}"
    put = Store.put_file

    def alter(self: Store, path: Path, target: str) -> str:
        if path.name == "model.ubj":
            return self.put_bytes(path.read_bytes()[:-1] + b"x", target)
        return put(self, path, target)

    for stored in store.list(uri):
        store.delete(stored.uri)
    monkeypatch.setattr(Store, "put_file", alter)
    with pytest.raises(IntegrityError, match=r"model\.ubj"):
        stage.roll_out(stage.first)
    assert stage.services.find(stage.service) is None
    for stored in store.list(uri):
        store.delete(stored.uri)


def test_altered_bundle_is_refused_before_anything_happens(stage: Any, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(stage.first.bundle, copy)
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[::-1])
    with pytest.raises(BundleError):
        stage.roll_out(dataclasses.replace(stage.first, bundle=copy))
    assert stage.services.find(stage.service) is None


def test_service_of_another_project_is_refused(stage: Any) -> None:
    stage.roll_out(stage.first)
    stage.services.patch(stage.service, {"metadata": {"labels": {names.PROJECT_LABEL: "other"}}})
    before = stage.get()["spec"]
    with pytest.raises(RefusedError, match="belongs to other"):
        stage.roll_out(stage.second)
    assert stage.get()["spec"] == before


def test_bundle_of_another_project_is_refused(stage: Any, make: Any) -> None:
    other = dataclasses.replace(stage.first, project=make())
    with pytest.raises(BundleError, match="was trained for project"):
        stage.roll_out(other)


def test_waits_while_a_person_is_obeyed(stage: Any) -> None:
    stage.roll_out(stage.first)
    stage.services.patch(stage.service, {"metadata": {"annotations": {names.ROLLBACK: "stable"}}})
    with pytest.raises(UnreachableError, match="the pilot has not acted"):
        stage.roll_out(stage.second, seconds=1)
    assert "canary" not in stage.get()["spec"]


def test_dark_launch_gets_no_traffic(stage: Any) -> None:
    stage.roll_out(stage.first)
    assert "0 %" in stage.roll_out(stage.second, mirror_percent=50)
    assert stage.get()["spec"]["canary"][0]["trafficPercent"] == 0
    assert names.PROVEN in stage.get()["metadata"]["annotations"]


def test_share_of_a_proven_canary_is_left_to_the_pilot(stage: Any) -> None:
    """It may have taken all traffic away for harm, and be about to remove the entry."""
    stage.roll_out(stage.first)
    stage.roll_out(stage.second)
    entry = stage.get()["spec"]["canary"][0]
    stage.services.patch(stage.service, {"spec": {"canary": [{**entry, "trafficPercent": 0}]}})
    assert "0 %" in stage.roll_out(stage.second)
    assert stage.get()["spec"]["canary"][0]["trafficPercent"] == 0


def test_evaluation_tells_the_pilot_which_difference_to_expect(stage: Any) -> None:
    stage.roll_out(stage.first)
    directory = stage.directory
    text, rows = stage.second.text, str(stage.second.rows)
    evaluate.run(
        text,
        rows,
        str(stage.second.bundle),
        stage.second.run_id,
        str(directory / "evaluation.json"),
        str(directory / "report.html"),
    )
    report = EvaluationReport.model_validate_json((directory / "evaluation.json").read_text())
    stage.roll_out(stage.second)
    proven = json.loads(stage.get()["metadata"]["annotations"][names.PROVEN])
    assert proven == {"digest": stage.second.bundle_digest, "difference": report.score_difference}
    held_out = select_part(read_snapshot(stage.second.rows), Part.HELD_OUT, stage.second.project)
    means = [
        evaluate.score_rows(load_bundle(model.bundle), held_out).mean()
        for model in (stage.second, stage.first)
    ]
    assert report.score_difference == pytest.approx(means[0] - means[1], abs=1e-12)
    assert report.score_difference != 0


def test_predictions_are_logged_to_the_version_s_own_address(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENURE_DETECTOR_URL", "http://detector:8080/")
    load_settings.cache_clear()
    stage.roll_out(stage.first)
    stage.roll_out(stage.second)
    spec = stage.get()["spec"]
    for predictor, model in (
        (spec["predictor"], stage.first),
        (spec["canary"][0]["predictor"], stage.second),
    ):
        url = f"http://detector:8080/events/{stage.service}/{model.bundle_digest[:12]}"
        assert predictor["logger"] == {"mode": "all", "url": url}


def test_failing_clean_up_does_not_hide_the_cause(
    stage: Any, stand_in: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    player, _ = stand_in
    stage.roll_out(stage.first)
    player.wrong.add(stage.second.bundle_digest)

    def fail(*arguments: object) -> None:
        raise UnreachableError("the tracking server is away")

    monkeypatch.setattr(Tracking, "tag_version", fail)
    with pytest.raises(IntegrityError) as caught:
        stage.roll_out(stage.second)
    assert "the tracking server is away" in "".join(caught.value.__notes__)
    assert "canary" not in stage.get()["spec"]


def test_what_cannot_be_taken_away_is_recorded_all_the_same(
    stage: Any, stand_in: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    player, _ = stand_in
    stage.roll_out(stage.first)
    player.wrong.add(stage.second.bundle_digest)

    def refuse(*arguments: object) -> None:
        raise RefusedError("this account may not")

    monkeypatch.setattr(Rollout, "_remove_canary", refuse)
    with pytest.raises(IntegrityError) as caught:
        stage.roll_out(stage.second)
    assert "this account may not" in "".join(caught.value.__notes__)
    assert stage.tags(stage.second)["rollout"] == "failed"
    assert stage.alias(CHALLENGER) is None
