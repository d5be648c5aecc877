"""Studies against a real MLflow server."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from clients.errors import RefusedError
from clients.study import open_study
from clients.tracking import Tracking

DIGEST = "0123456789abcdef" * 4


class Record(BaseModel):
    """The shape of a trial's record."""

    number: int
    params: dict[str, Any] = {"max_depth": 4, "learning_rate": 0.1}
    state: str = "complete"
    value: float | None = 0.84
    curve: list[tuple[int, float]] = [(step, 0.5 + step / 1000) for step in range(400)]


def test_study_keeps_its_trials_exactly(tracking: Tracking, project: str) -> None:
    study = open_study(tracking, project, "t1", tags={"snapshot": DIGEST}, params={"seed": 7})
    records = [Record(number=number) for number in range(3)]
    for record in reversed(records):
        study.enqueue_trial(record)
    study.finish()
    assert study.load_trials() == [record.model_dump_json() for record in records]
    run = tracking.client.get_run(study.run_id)
    assert run.data.params == {"seed": "7"}
    assert run.data.tags["snapshot"] == DIGEST
    child = next(tracking.search([run.info.experiment_id], "tags.`tenure.kind` = 'trial'", limit=1))
    assert child.data.params == {"max_depth": "4", "learning_rate": "0.1"}
    assert child.data.metrics["objective"] == pytest.approx(0.84)
    history = tracking.client.get_metric_history(child.info.run_id, "validation")
    assert len(history) <= 51
    assert history[-1].step == 399


def test_trial_that_cannot_be_logged_leaves_the_study_unfinished(tracking: Tracking, project: str) -> None:
    study = open_study(tracking, project, "t", tags={}, params={})
    tracking.client.delete_experiment(tracking.find_experiment(project))
    study.enqueue_trial(Record(number=0))
    with pytest.raises(RefusedError, match="trial 0"):
        study.finish()
    assert tracking.client.get_run(study.run_id).info.status == "RUNNING"


@pytest.mark.parametrize("abandoned", [True, False])
def test_unfinished_study_is_resumed(tracking: Tracking, project: str, abandoned: bool) -> None:
    first = open_study(tracking, project, "tag", tags={}, params={})
    first.log_trial(Record(number=0))
    if abandoned:
        first.abandon()
        assert tracking.client.get_run(first.run_id).info.status == "FAILED"
    again = open_study(tracking, project, "tag", tags={}, params={})
    assert again.run_id == first.run_id
    assert len(again.load_trials()) == 1
    assert open_study(tracking, project, "other", tags={}, params={}).run_id != first.run_id


def test_finished_study_is_not_resumed(tracking: Tracking, project: str) -> None:
    first = open_study(tracking, project, "tag", tags={}, params={})
    first.finish()
    assert open_study(tracking, project, "tag", tags={}, params={}).run_id != first.run_id


def test_trial_that_was_cut_short_does_not_count(tracking: Tracking, project: str) -> None:
    study = open_study(tracking, project, "tag", tags={}, params={})
    run_id = study.log_trial(Record(number=0))
    study.log_trial(Record(number=1))
    tracking.client.update_run(run_id, status="RUNNING")
    assert study.load_trials() == [Record(number=1).model_dump_json()]
