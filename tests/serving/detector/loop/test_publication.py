"""Verdicts in a real MLflow."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from clients.settings import Settings
from clients.tracking import Tracking
from serving.detector.inspection import Inspector
from serving.detector.metrics import Metrics
from serving.detector.publication import Publisher


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def tracking(tracking_settings: Settings) -> Tracking:
    return Tracking.connect(tracking_settings)


def test_verdict_has_one_run_whatever_dies(world: Any, traffic: Any, tracking: Tracking) -> None:
    name = f"demo-{uuid4().hex[:6]}"
    champion = world.champion
    object.__setattr__(champion, "project", champion.project.model_copy(update={"name": name}))
    traffic.send(200, seed=2, dearer=1.6, outcomes=False)
    inspector = Inspector(world.ledger, world.shelf, Metrics(CollectorRegistry()))
    [verdict] = inspector.inspect(champion, world.clock())

    def kill(when: str, method: str) -> None:
        if (when, method) == ("before", "set_report"):
            raise Killed

    def start() -> Publisher:
        publisher = Publisher(world.ledger, world.shelf, lambda: tracking, world.notes, world.clock)
        publisher.recall(champion)
        publisher.recall(champion)
        assert publisher.waiting == 1
        return publisher

    world.shelf.on_call = kill
    with pytest.raises(Killed):
        start().publish()
    world.shelf.on_call = lambda when, method: None
    publisher = start()
    assert publisher.publish() == 1
    assert publisher.problem == ""
    experiment = tracking.find_experiment(f"{name}-drift")
    [run] = tracking.search([experiment], "")
    assert run.info.status == "FINISHED"
    assert run.data.tags["tenure.verdict"] == f"churn/{champion.version}/inputs/1"
    assert run.data.tags["tenure.alarm"] == "true"
    assert run.data.metrics["effect.charge"] == pytest.approx(
        next(finding.effect for finding in verdict.findings if finding.column == "charge")
    )
    assert 0.5 < run.data.metrics["roc_auc"] < 1
    assert "Drift of churn" in tracking.load_text(run.info.run_id, "report.html")
    [row] = world.ledger.read_verdicts("churn")
    assert row.report_uri == f"runs:/{run.info.run_id}/report.html"
    assert len(world.notes.sent) == 2, "rather twice than never"
