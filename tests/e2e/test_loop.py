"""The loop on a whole platform: a first model, a canary, the gate, the cache, promotion and rollback.

It is one story about a project of its own, so it neither needs nor changes what other tests see.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clients import names
from clients.inference import InferenceClient
from clients.tracking import CHALLENGER, CHAMPION, Version
from tenure.evaluation import EvaluationReport
from tenure.gate import decide
from tenure.partition import Part, assign_parts
from tenure.snapshot import read_source
from tenure.validation import validate_frame

ROOT = Path(__file__).parents[2]
SERVICE = "telco-loop"
STEPS = ("ingest", "validate", "tune", "evaluate", "gate", "rollout")
NEWER = 5600
"""Rows of a third snapshot, between the older and the whole one."""


@pytest.fixture(scope="module")
def loop(platform: Any) -> Iterator[Any]:
    """The shared platform, with a project and an InferenceService of this module's own."""
    import yaml

    document = yaml.safe_load(platform.project_file.read_text(encoding="utf-8"))
    document["name"] = SERVICE
    document["rollout"]["service"] = SERVICE
    # Here a person decides: the pilot itself never has evidence enough.
    document["rollout"] |= {"promotion": "manual", "min_requests": 1_000_000}
    file = platform.project_file.with_name("loop.yaml")
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    loop = replace(platform, project_file=file)
    yield loop
    loop.reset()


@pytest.fixture(scope="module")
def held_out(loop: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Features and ids of customers whom no model was trained on."""
    contract = loop.project.contract
    frame = read_source(Path(loop.project.source.uri), None, contract)
    good = validate_frame(frame, contract).good
    parts = assign_parts(good, contract, loop.project.split, loop.project.name)
    good = good[parts == Part.HELD_OUT]
    rows = good[[column.name for column in contract.features]].to_dict("records")
    return rows, [str(identity) for identity in good[contract.id.name]]


@pytest.fixture
def client(loop: Any) -> Iterator[InferenceClient]:
    host = names.hostname(SERVICE, "default", loop.settings.ingress_domain)
    with InferenceClient(loop.settings.gateway_url, host) as client:
        yield client


def read_states(run: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in run["steps"]}


def find_version(loop: Any, alias: str) -> Version | None:
    found: Version | None = loop.tracking.find_alias(SERVICE, alias)
    return found


def read_stable(loop: Any) -> str:
    """Return the digest of the bundle that is stable."""
    return names.digest_of(loop.read_service()["spec"]["predictor"]["model"]["storageUri"])


def read_canary(loop: Any) -> str:
    """Return the digest of the only canary's bundle."""
    (canary,) = loop.read_service()["spec"]["canary"]
    return names.digest_of(canary["predictor"]["model"]["storageUri"])


def list_versions(loop: Any) -> list[str]:
    return sorted(
        version.tags["tenure.bundle"]
        for version in loop.tracking.client.search_model_versions(f"name = '{SERVICE}'")
    )


def read_version(loop: Any, digest: str) -> Version:
    found: Version | None = loop.tracking.find_version(SERVICE, digest)
    assert found is not None
    return found


def find_study(loop: Any) -> Any:
    """Return the newest study's MLflow run."""
    experiment = loop.tracking.find_experiment(SERVICE)
    return next(iter(loop.tracking.search([experiment], "tags.`tenure.kind` = 'study'", limit=1)))


def test_first_run_makes_the_stable_model(loop: Any, client: InferenceClient, held_out: Any) -> None:
    loop.reset()
    run = loop.train(4200)
    assert run["state"] == "SUCCEEDED"
    assert read_states(run) == dict.fromkeys(STEPS, "SUCCEEDED")
    assert run["rejected"] == []
    service = loop.read_service()
    digest = read_stable(loop)
    assert service["metadata"]["labels"][names.PROJECT_LABEL] == SERVICE
    assert "canary" not in service["spec"]
    assert loop.read_weights() == {f"{SERVICE}-predictor": 100}
    champion = find_version(loop, CHAMPION)
    assert champion is not None
    assert champion.digest == digest
    assert champion.tags["gate"] == "approved"
    assert champion.tags["rollout"] == "stable"
    assert find_version(loop, CHALLENGER) is None
    answer = client.predict(SERVICE, held_out[0][:50], loop.project.contract)
    assert answer.version == digest[:12]
    assert len(set(answer.probabilities)) > 20


def test_second_run_makes_a_canary(loop: Any, client: InferenceClient, held_out: Any, wait_for: Any) -> None:
    loop.ensure_stable()
    stable = read_stable(loop)
    run = loop.train()
    assert read_states(run) == dict.fromkeys(STEPS, "SUCCEEDED")
    digest = read_canary(loop)
    assert read_stable(loop) == stable != digest
    (canary,) = loop.read_service()["spec"]["canary"]
    assert canary["predictor"]["name"] == names.canary_name(digest)
    assert canary["trafficPercent"] == loop.project.rollout.first_percent == 20
    weights = {f"{SERVICE}-predictor": 80, f"{SERVICE}-{names.canary_name(digest)}-predictor": 20}
    wait_for(lambda: loop.read_weights() == weights, 20, "the split")

    champion, challenger = find_version(loop, CHAMPION), find_version(loop, CHALLENGER)
    assert champion is not None
    assert challenger is not None
    assert (champion.digest, challenger.digest) == (stable, digest)
    assert challenger.tags["rollout"] == "canary"
    assert challenger.tags["gate"] == "approved"
    assert challenger.tags["tenure.reason"] == "asked for by a person"
    assert challenger.tags["tenure.snapshot"] != champion.tags["tenure.snapshot"]

    contract = loop.project.contract
    for variant, version in (("stable", stable), (names.canary_name(digest), digest)):
        assert client.predict(SERVICE, held_out[0][:1], contract, variant=variant).version == version[:12]
    rows, ids = held_out
    answers = Counter(
        client.predict(SERVICE, [row], contract, customer_ids=[identity]).version
        for row, identity in zip(rows[:400], ids[:400], strict=True)
    )
    assert set(answers) == {stable[:12], digest[:12]}
    assert 0.12 < answers[digest[:12]] / 400 < 0.28  # four standard errors


def test_study_is_in_mlflow(loop: Any) -> None:
    loop.ensure_canary()
    challenger = find_version(loop, CHALLENGER)
    assert challenger is not None
    client = loop.tracking.client
    study = client.get_run(challenger.run_id)
    assert study.info.status == "FINISHED"
    assert study.data.params["trials"] == "2"
    assert study.data.tags["tenure.bundle"] == challenger.digest
    assert study.data.tags["gate"] == "approved"
    children = list(
        loop.tracking.search([study.info.experiment_id], f"tags.mlflow.parentRunId = '{study.info.run_id}'")
    )
    assert sorted(child.info.run_name for child in children) == ["trial-000", "trial-001"]
    for child in children:
        assert {"eta", "max_depth"} <= set(child.data.params)
        curve = client.get_metric_history(child.info.run_id, "validation")
        assert len(curve) > 5
        assert 0.75 < child.data.metrics["objective"] < 0.88

    report = EvaluationReport.model_validate_json(
        loop.tracking.load_text(challenger.run_id, "evaluation.json")
    )
    assert set(report.models) == {"challenger", "champion", "baseline", "default_xgboost"}
    assert report.models["challenger"].version == challenger.digest[:12]
    assert report.models["champion"].version == read_stable(loop)[:12]
    area = report.models["challenger"].metrics["roc_auc"]
    assert 0.8 < area.low < area.value < area.high < 0.9
    assert 0.82 < area.value < 0.88  # above is a leak
    assert area.value > report.models["default_xgboost"].metrics["roc_auc"].value
    assert report.differences["challenger-baseline"]["roc_auc"].high > 0  # not below it beyond the interval
    assert study.data.metrics["challenger_roc_auc"] == area.value
    assert {one.column for one in report.models["challenger"].slices} >= {"contract", "internet_service"}

    decision = decide(report, loop.project.gate)
    assert decision.approved
    assert loop.tracking.load_text(challenger.run_id, "decision.md") == decision.to_markdown()
    html = loop.tracking.load_text(challenger.run_id, "evaluation.html")
    assert "<svg" in html or "data:image/png" in html
    assert 'src="http' not in html


def test_same_snapshot_comes_from_the_cache_and_is_rolled_out_twice(loop: Any) -> None:
    loop.ensure_canary()
    spec, versions, champion = loop.read_service()["spec"], list_versions(loop), find_version(loop, CHAMPION)
    run = loop.train()
    fresh = dict.fromkeys(STEPS, "SUCCEEDED")
    assert read_states(run) == {**fresh, "validate": "CACHED", "tune": "CACHED"}
    assert loop.read_service()["spec"] == spec
    assert list_versions(loop) == versions
    assert find_version(loop, CHAMPION) == champion


def test_rejected_challenger_changes_nothing(loop: Any) -> None:
    loop.ensure_canary()
    service, versions = loop.read_service(), list_versions(loop)
    aliases = {alias: find_version(loop, alias) for alias in (CHAMPION, CHALLENGER)}
    run = loop.train(NEWER, gate={"floors": {"roc_auc": 0.99}})
    assert run["state"] == "SUCCEEDED"
    assert read_states(run) == {**dict.fromkeys(STEPS, "SUCCEEDED"), "rollout": "SKIPPED"}

    assert any("roc_auc" in reason and "0.99" in reason for reason in run["rejected"])
    study = find_study(loop)
    assert study.data.tags["gate"] == "rejected"
    assert "0.99" in study.data.tags["gate.reasons"]
    assert loop.tracking.load_text(study.info.run_id, "decision.md").startswith("# Rejected")
    assert "FAILED" in loop.tenure("logs", run["id"], "gate").stdout

    after = loop.read_service()
    assert after["spec"] == service["spec"]
    assert after["metadata"]["generation"] == service["metadata"]["generation"]
    assert list_versions(loop) == versions
    assert {alias: find_version(loop, alias) for alias in aliases} == aliases


@pytest.fixture
def edited_package(loop: Any, tmp_path: Path) -> Iterator[Path]:
    """Have the platform's runs import a copy of the packages, of which one module was edited."""
    for package in ("tenure", "clients", "components"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "tenure" / "objective.py").open("a", encoding="utf-8") as file:
        file.write("\n# edited\n")
    settings = loop.home / "env"
    before = settings.read_bytes()
    settings.write_bytes(before + f"PYTHONPATH='{tmp_path}'\nPYTHONSAFEPATH='1'\n".encode())
    yield tmp_path
    settings.write_bytes(before)


def test_edited_package_gets_no_stale_hit(loop: Any, request: pytest.FixtureRequest) -> None:
    loop.ensure_canary()  # so the whole snapshot's results are in the cache
    before = read_version(loop, read_canary(loop))
    request.getfixturevalue("edited_package")
    run = loop.train()
    assert read_states(run) == dict.fromkeys(STEPS, "SUCCEEDED")
    after = read_version(loop, read_canary(loop))
    assert after.tags["tenure.snapshot"] == before.tags["tenure.snapshot"]
    assert after.tags["tenure.code_version"] != before.tags["tenure.code_version"]
    assert after.digest != before.digest


def test_newer_challenger_replaces_an_unfinished_canary(loop: Any, wait_for: Any) -> None:
    old = loop.ensure_canary()
    stable = read_stable(loop)
    run = loop.train(NEWER)
    assert read_states(run)["rollout"] == "SUCCEEDED"
    digest = read_canary(loop)
    assert names.canary_name(digest) != old
    assert read_stable(loop) == stable
    challenger = find_version(loop, CHALLENGER)
    assert challenger is not None
    assert challenger.digest == digest
    weights = {f"{SERVICE}-predictor": 80, f"{SERVICE}-{names.canary_name(digest)}-predictor": 20}
    wait_for(lambda: loop.read_weights() == weights, 20, "the new canary's share")
    processes = {one["name"] for one in json.loads(loop.tenure("status", "--json").stdout)["processes"]}
    assert not any(old in name for name in processes)
    assert any(names.canary_name(digest) in name for name in processes)


def test_rollback_takes_a_canary_away(loop: Any, wait_for: Callable[..., Any]) -> None:
    loop.ensure_canary()
    stable, digest = read_stable(loop), read_canary(loop)
    state = json.loads(loop.tenure("rollout", "rollback", "--json").stdout)
    assert [variant["digest"] for variant in state["variants"]] == [stable]
    wait_for(lambda: find_version(loop, CHALLENGER) is None, 10, "the alias's end")
    wait_for(lambda: read_version(loop, digest).tags["rollout"] == "rolled_back", 10, "the tag")
    champion = find_version(loop, CHAMPION)
    assert champion is not None
    assert champion.digest == stable
    refused = loop.tenure("rollout", "promote", check=False)
    assert refused.returncode == 5
    assert "no canary to promote" in refused.stderr


def test_promote_and_rollback_are_carried_out_and_recorded(
    loop: Any, client: InferenceClient, held_out: Any, wait_for: Callable[..., Any]
) -> None:
    loop.ensure_canary()
    old, new = read_stable(loop), read_canary(loop)

    def ask() -> str:
        return client.predict(SERVICE, held_out[0][:5], loop.project.contract).version

    state = json.loads(loop.tenure("rollout", "promote", "--json").stdout)
    assert [variant["digest"] for variant in state["variants"]] == [new]
    assert state["transition"]["outcome"] == "promoted"
    assert state["previous"] == old[:12]
    service = loop.read_service()
    assert service["spec"]["predictor"]["name"] == names.canary_name(new)
    weights = {f"{SERVICE}-{names.canary_name(new)}-predictor": 100}
    wait_for(lambda: loop.read_weights() == weights, 10, "the route without the old model")
    assert {ask() for _ in range(10)} == {new[:12]}
    wait_for(lambda: find_version(loop, CHAMPION) == read_version(loop, new), 10, "the alias")
    wait_for(lambda: find_version(loop, CHALLENGER) is None, 10, "the alias's end")
    wait_for(lambda: read_version(loop, new).tags["rollout"] == "promoted", 10, "the tag")

    state = json.loads(loop.tenure("rollout", "rollback", "--json").stdout)
    assert [variant["digest"] for variant in state["variants"]] == [old]
    assert state["transition"]["outcome"] == "rolled_back"
    assert {ask() for _ in range(10)} == {old[:12]}
    wait_for(lambda: find_version(loop, CHAMPION) == read_version(loop, old), 10, "the alias")
    wait_for(lambda: read_version(loop, new).tags["rollout"] == "rolled_back", 10, "the tag")
    wait_for(lambda: read_version(loop, old).tags["rollout"] == "restored", 10, "the other tag")


def test_predict_answers_good_rows_and_names_bad_ones(loop: Any, tmp_path: Path) -> None:
    loop.ensure_stable()
    with (ROOT / "data" / "telco.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))[:5]
    rows[2][header.index("monthly_charges")] = "many"
    path = tmp_path / "customers.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    answer = loop.tenure("predict", str(path), "--json", "--reasons", check=False)
    assert answer.returncode == 3
    document = json.loads(answer.stdout)
    assert [one["id"] for one in document["predictions"]] == ["row-0000001", "row-0000002", "row-0000004"]
    assert all(0 < one["churn_probability"] < 1 and one["reasons"] for one in document["predictions"])
    (bad,) = document["bad"]
    assert (bad["row"], bad["column"], bad["value"]) == (2, "monthly_charges", "many")
    assert "1 rows of" in answer.stderr
    assert "monthly_charges" in answer.stderr
