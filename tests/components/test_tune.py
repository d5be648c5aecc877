"""Tune: the same bytes every time, also after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clients.settings import Settings
from clients.study import Study, open_study
from clients.tracking import Tracking
from components import tune
from components.tune import name_study, select_part
from tenure.bundle import load_bundle
from tenure.partition import Part
from tenure.search import TrialRecord
from tenure.snapshot import read_snapshot


class Killed(BaseException):
    """Stands for the end of the process."""


def test_study_is_tracked(trained: tuple[Any, Any], tracking: Tracking) -> None:
    _, model = trained
    run = tracking.client.get_run(model.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["tenure.bundle"] == model.bundle_digest
    assert run.data.tags["tenure.snapshot"] == model.digest
    study = Study(tracking, run.info.experiment_id, model.run_id, "")
    records = [TrialRecord.model_validate_json(text) for text in study.load_trials()]
    assert [record.number for record in records] == [0, 1, 2]
    bundle = load_bundle(model.bundle, model.bundle_digest)
    assert bundle.metadata.value == max(record.value for record in records if record.state == "complete")


def test_same_inputs_give_the_same_bundle(trained: tuple[Any, Any], tmp_path: Path) -> None:
    _, model = trained
    again, run_id = tune.run(
        model.text, str(model.rows), model.digest, model.code_version, str(tmp_path / "b")
    )
    assert again == model.bundle_digest
    assert run_id != model.run_id
    for path in model.bundle.iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_interrupted_study_is_resumed_to_the_same_bundle(
    trained: tuple[Any, Any],
    settings: Settings,
    tracking: Tracking,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, model = trained
    arguments = (model.text, str(model.rows), model.digest, model.code_version)
    logged = Study.enqueue_trial
    seen: list[int] = []

    def die_after_two(self: Study, trial: TrialRecord) -> None:
        logged(self, trial)
        seen.append(trial.number)
        if len(seen) == 2:
            self._writer.shutdown(wait=True)
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Study, "enqueue_trial", die_after_two)
        patch.setattr(Study, "abandon", lambda self: None)  # a killed process says nothing
        with pytest.raises(Killed):
            tune.run(*arguments, str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()
    tag = name_study(model.project, model.digest, model.code_version)
    cut_short = open_study(tracking, model.project.name, tag, tags={}, params={})
    assert len(cut_short.load_trials()) == 2

    def count(self: Study, trial: TrialRecord) -> None:
        logged(self, trial)
        seen.append(trial.number)

    monkeypatch.setattr(Study, "enqueue_trial", count)
    digest, run_id = tune.run(*arguments, str(tmp_path / "b"))
    assert seen == [0, 1, 2]
    assert digest == model.bundle_digest
    assert run_id == cut_short.run_id
    assert tracking.client.get_run(run_id).info.status == "FINISHED"


def test_failing_study_is_marked(
    trained: tuple[Any, Any], tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = trained
    runs: list[str] = []

    def fail(self: Study, trial: TrialRecord) -> None:
        runs.append(self.run_id)
        raise OSError("disk full")

    monkeypatch.setattr(Study, "enqueue_trial", fail)
    with pytest.raises(OSError, match="disk full"):
        tune.run(model.text, str(model.rows), model.digest, model.code_version, str(tmp_path / "b"))
    assert tracking.client.get_run(runs[0]).info.status == "FAILED"


def test_study_name_follows_what_decides_it(make: Any) -> None:
    project = make()
    name = name_study(project, "a" * 64, "v1")
    assert name == name_study(project, "a" * 64, "v1")
    other = project.model_copy(update={"gate": project.gate.model_copy(update={"margin": 0.5})})
    assert name == name_study(other, "a" * 64, "v1")
    seeded = project.model_copy(update={"training": project.training.model_copy(update={"seed": 8})})
    names = {name, name_study(seeded, "a" * 64, "v1"), name_study(project, "b" * 64, "v1")}
    assert len(names | {name_study(project, "a" * 64, "v2")}) == 4


def test_parts_are_disjoint_and_labelled(trained: tuple[Any, Any]) -> None:
    first, second = trained
    frame = read_snapshot(second.rows)
    train = set(select_part(frame, Part.TRAIN, second.project)["customer_id"])
    held_out = set(select_part(frame, Part.HELD_OUT, second.project)["customer_id"])
    assert train
    assert held_out
    assert not train & held_out
    earlier = set(select_part(read_snapshot(first.rows), Part.TRAIN, first.project)["customer_id"])
    assert earlier < train
