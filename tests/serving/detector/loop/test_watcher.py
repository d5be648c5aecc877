from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from clients.errors import UnreachableError
from serving.detector.arrival import Arrivals
from serving.detector.errors import LedgerError
from serving.detector.inspection import Inspector
from serving.detector.metrics import Metrics
from serving.detector.publication import Publisher
from serving.detector.watcher import Watcher


class Killed(BaseException):
    """The process ends here: nothing catches it, nothing after it happens."""


class Stage:
    """A watcher over a world; a fresh one stands for a new process."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.tracker = world.make_tracker()
        self.problems: dict[str, str] = {}
        self.watcher = self.start()

    def start(self, lead: Callable[[], bool] = lambda: True) -> Watcher:
        world, metrics = self.world, Metrics(CollectorRegistry())
        shelf, tracker, notes = world.shelf, self.tracker, world.notes
        champions: Any = SimpleNamespace(find=lambda: ([self.world.champion], dict(self.problems)))
        store: Any = SimpleNamespace(list=lambda uri: [])
        self.metrics = metrics
        self.watcher = Watcher(
            champions,
            Inspector(world.ledger, shelf, metrics),
            world.make_trigger(),
            Arrivals(world.ledger, shelf, store),
            Publisher(world.ledger, shelf, lambda: tracker, notes, world.clock),  # type: ignore[arg-type, return-value]
            world.ledger,
            metrics,
            world.clock,
            lead,
        )
        return self.watcher

    def read(self, family: str = "inputs") -> list[Any]:
        return list(self.world.ledger.read_verdicts("churn", family=family))


@pytest.fixture
def stage(world: Any) -> Stage:
    return Stage(world)


def test_calm_customers_are_judged_and_reported(stage: Stage, traffic: Any) -> None:
    traffic.send(450, seed=2, outcomes=False)
    stage.watcher.tick()
    first, second = stage.read()
    assert [first.number, second.number] == [1, 2]
    assert (first.first_seq, first.last_seq, second.first_seq, second.last_seq) == (1, 200, 201, 400)
    assert not first.alarm
    assert {finding.column for finding in first.verdict.findings} == {"plan", "months", "charge", "score"}
    assert 0.5 < first.verdict.estimate["roc_auc"]["value"] < 1
    assert stage.world.read() == []
    assert stage.world.notes.sent == []
    assert len(stage.tracker.runs) == 2
    run = stage.tracker.runs["r0"]
    assert (run["experiment"], run["ended"]) == ("demo-drift", True)
    assert run["tags"]["tenure.verdict"] == f"churn/{stage.world.champion.version}/inputs/1"
    assert "No drift" in run["report.html"]
    assert stage.read()[0].report_uri == "runs:/r0/report.html"
    text = stage.watcher.status()["services"]["churn"]
    assert text["windows"]["inputs"] == {"windows": 2, "last_seq": 400}
    registry = stage.metrics.registry
    labels = {"service": "churn", "family": "inputs"}
    assert registry.get_sample_value("detector_windows_total", labels) == 2
    assert registry.get_sample_value("drift_alarm", {"service": "churn", "kind": "covariate"}) == 0


def test_dearer_customers_raise_one_alarm_and_one_run(stage: Stage, traffic: Any) -> None:
    traffic.send(200, seed=2)
    for seed in (3, 4, 5):
        traffic.send(200, seed=seed, dearer=1.6)
        stage.world.clock.move(seconds=2)
        stage.watcher.tick()
    alarms = [row.alarm for row in stage.read()]
    assert alarms == [False, True, True, True]
    deadline = time.monotonic() + 30
    while stage.world.read()[0]["state"] == "waiting":  # labels are counted again after a second at the most
        assert time.monotonic() < deadline
        stage.watcher.tick()
    [cause] = stage.world.read()
    assert cause["state"] == "running"
    assert "charge" in cause["reason"]
    assert len(stage.world.api.runs) == 1
    kinds = [kind for kind, _, _ in stage.world.notes.sent]
    assert set(kinds) == {"drift"}
    assert 1 <= len(kinds) <= 3  # one for each kind that was the first of its champion
    report = stage.tracker.runs["r1"]["report.html"]
    assert "Drift of churn" in report
    assert "charge" in report
    registry = stage.metrics.registry
    assert registry.get_sample_value("drift_alarm", {"service": "churn", "kind": "covariate"}) == 1
    labels = {"service": "churn", "kind": "drift", "state": "running"}
    assert stage.world.read()[0]["kind"] == "drift"
    assert registry.get_sample_value("detector_triggers_total", labels) is None  # the trigger's own registry


def test_outcomes_are_judged_once_nearly_all_are_known(stage: Stage, traffic: Any) -> None:
    """Leavers who are known first do not look like more leavers."""
    traffic.send(300, seed=2, only="Yes")
    stage.world.clock.move(seconds=2)
    stage.watcher.tick()
    assert stage.read("outcomes") == []
    traffic.send(240, seed=3)
    stage.world.clock.move(seconds=2)
    stage.watcher.tick()
    assert stage.read("outcomes") == []
    stage.world.clock.move(days=31)  # by their horizon those without an outcome have none
    stage.start().tick()
    [row] = stage.read("outcomes")
    assert row.verdict.rows == 200
    assert {finding.column for finding in row.verdict.findings} == {"label", "performance"}


def test_performance_drift_is_seen_by_outcomes(stage: Stage, traffic: Any) -> None:
    for seed in range(2, 8):
        traffic.send(200, seed=seed, flipped=seed > 3)
    stage.world.clock.move(seconds=2)
    stage.watcher.tick()
    rows = stage.read("outcomes")
    assert [row.alarm for row in rows][:3] == [False, False, True]
    assert "performance" in rows[2].verdict.kinds
    assert all(not row.alarm for row in stage.read("inputs"))


def test_restart_goes_on_where_the_ledger_says(stage: Stage, traffic: Any) -> None:
    for seed in (2, 3, 4, 5):
        traffic.send(150, seed=seed)
        stage.start().tick()
    rows = stage.read()
    assert [(row.number, row.first_seq, row.last_seq) for row in rows] == [
        (1, 1, 200),
        (2, 201, 400),
        (3, 401, 600),
    ]


def test_windows_of_hours_are_cut_when_the_hour_is_over(stage: Stage, traffic: Any) -> None:
    champion = stage.world.champion
    window = champion.project.drift.window.model_copy(update={"rows": None, "hours": 1 / 12})
    drift = champion.project.drift.model_copy(update={"window": window})
    object.__setattr__(champion, "project", champion.project.model_copy(update={"drift": drift}))
    traffic.send(290, seed=2)
    stage.watcher.tick()
    assert stage.read() == []
    traffic.send(30, seed=3)
    stage.watcher.tick()
    assert stage.read() == [], "what is late may still come"
    stage.world.clock.move(seconds=30)
    stage.watcher.tick()
    [row] = stage.read()
    assert (row.first_seq, row.last_seq) == (1, 300)


def drive(stage: Stage, kills: list[int]) -> int:
    """Judge, trigger and publish through processes of which the n-th is killed at its kills[n]-th step."""
    world, steps = stage.world, 0
    for limit in [*kills, 10**9]:
        steps = 0

        def count(when: str, name: str, limit: int = limit) -> None:
            nonlocal steps
            steps += 1
            if steps == limit:
                raise Killed(f"{when} {name}")

        world.shelf.on_call = world.api.on_call = stage.tracker.on_call = count
        watcher = stage.start()
        try:
            for _ in range(4):
                watcher.tick()
                world.clock.move(seconds=6)
            world.api.finish()
            watcher.tick()
        except Killed:
            world.clock.move(seconds=1)
    return steps


def check_end(stage: Stage) -> None:
    world = stage.world
    rows = stage.read()
    assert [(row.number, row.first_seq, row.alarm) for row in rows] == [
        (1, 1, False),
        (2, 201, True),
        (3, 401, True),
    ]
    [cause] = world.read()
    assert cause["state"] == "succeeded"
    assert [run.id for run in world.api.runs] == [cause["run_id"]]
    names = [run["tags"]["tenure.verdict"] for run in stage.tracker.runs.values()]
    assert len(names) == len(set(names)), "each verdict has one MLflow run"
    for row in [*rows, *stage.read("outcomes")]:
        run = stage.tracker.runs[row.report_uri.split("/")[1]]
        assert run["ended"]
        assert "report.html" in run
    assert any("charge" in body for _, _, body in world.notes.sent), "people are told"


@pytest.mark.parametrize("part", range(4))
def test_killed_at_any_step_nothing_is_lost_or_done_twice(
    make_world: Any, make_traffic: Any, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """Every step of the fault-free course, between judging and publishing, is the last one once."""
    # What is only computed, and far from quickly, has no steps.
    monkeypatch.setattr("serving.detector.inspection._rate", lambda champion, cut, number: None)
    monkeypatch.setattr(Publisher, "_render", lambda self, item: "a report")
    world = make_world()
    traffic = make_traffic(world)
    traffic.send(200, seed=2)
    traffic.send(400, seed=3, dearer=1.6)
    world.clock.move(seconds=2)
    stage = Stage(make_world(world))
    steps = drive(stage, [])
    check_end(stage)
    assert steps > 40
    for step in range(1 + part, steps + 1, 4):
        stage = Stage(make_world(world))
        drive(stage, [step])
        check_end(stage)


def test_trouble_with_the_ledger_loses_no_trigger(stage: Stage, traffic: Any) -> None:
    """The process lives on: a commit whose answer was lost, a cause that could not be written."""
    from serving.detector.errors import LedgerError

    for when, name in (("after", "save_verdict"), ("before", "save_cause"), ("after", "save_cause")):
        world = stage.world
        done: list[int] = []

        def call(now: str, method: str, when: str = when, name: str = name, done: list[int] = done) -> None:
            if (now, method) == (when, name) and not done:
                done.append(1)
                raise LedgerError("the disk is full")

        world.shelf.on_call = call
        traffic.send(200, seed=20 + len(name), dearer=1.6)
        world.clock.move(seconds=2)
        stage.watcher.tick()
        assert stage.watcher.status()["services"]["churn"]["problem"] is not None or not done
        stage.watcher.tick()
        assert stage.watcher.status()["services"]["churn"]["problem"] is None
    assert len(stage.world.read()) == 1
    assert [row.number for row in stage.read()] == [1, 2, 3]
    assert len(stage.tracker.runs) == len(stage.read()) + len(stage.read("outcomes"))


def test_dead_mlflow_keeps_neither_people_nor_runs_waiting(stage: Stage, traffic: Any) -> None:
    def fail(when: str, name: str) -> None:
        raise UnreachableError("no answer")

    stage.tracker.on_call = fail
    traffic.send(400, seed=3, dearer=1.6)
    stage.world.clock.move(seconds=2)
    stage.watcher.tick()
    assert len(stage.world.api.runs) == 1
    assert len(stage.world.notes.sent) == 1
    assert stage.watcher.status()["publishing"] == "no answer"
    stage.tracker.on_call = lambda when, name: None
    stage.watcher.tick()
    assert stage.watcher.status()["publishing"] is None
    assert stage.watcher.status()["unpublished"] == 0
    assert all(row.report_uri for row in stage.read())


def test_broken_service_leaves_the_others_alone(stage: Stage, traffic: Any) -> None:
    stage.problems["other"] = "its bundle is gone"
    traffic.send(200, seed=2)
    stage.watcher.tick()
    assert len(stage.read()) == 1
    status = stage.watcher.status()["services"]
    assert status["other"]["problem"] == "its bundle is gone"
    assert status["churn"]["problem"] is None


def test_missing_backend_is_said_and_new_data_still_counts(stage: Stage, traffic: Any) -> None:
    champion = stage.world.champion
    drift = champion.project.drift.model_copy(update={"backend": "alibi-detect"})
    object.__setattr__(champion, "project", champion.project.model_copy(update={"drift": drift}))
    traffic.send(200, seed=2)
    stage.watcher.tick()
    assert "environment-detector" in stage.watcher.status()["services"]["churn"]["problem"]


def test_outcomes_that_the_contract_does_not_know_are_named(stage: Stage) -> None:
    assert stage.watcher.find_problem("churn", "maybe") is None
    stage.watcher.tick()
    assert stage.watcher.find_problem("churn", "Yes") is None
    assert (
        stage.watcher.find_problem("churn", "maybe") == "'maybe' is no value of left: expected 'Yes' or 'No'"
    )


def test_it_runs_in_the_background_until_told(stage: Stage, traffic: Any) -> None:
    traffic.send(200, seed=2)
    stop = threading.Event()
    thread = threading.Thread(target=stage.watcher.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 30
    while not (stage.read() and stage.read()[0].report_uri):
        assert time.monotonic() < deadline
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_follower_only_tells_and_goes_on_where_the_leader_was(stage: Stage, traffic: Any) -> None:
    leads = {"one": True, "other": False}
    one = stage.start(lead=lambda: leads["one"])
    other = stage.start(lead=lambda: leads["other"])
    traffic.send(250, seed=2)
    other.tick()
    assert stage.read() == []
    one.tick()
    other.tick()
    assert [row.number for row in stage.read()] == [1]
    told = other.status()
    assert not told["leads"]
    assert told["services"]["churn"]["windows"]["inputs"] == {"windows": 1, "last_seq": 200}
    assert one.status()["services"] == told["services"]
    traffic.send(200, seed=3, dearer=1.5)
    leads.update(one=False, other=True)
    one.tick()
    other.tick()
    assert [row.number for row in stage.read()] == [1, 2]
    assert stage.read()[-1].alarm
    # Back again: what it remembers of the time before must not stand in the way.
    traffic.send(200, seed=4, dearer=1.5)
    leads.update(one=True, other=False)
    other.tick()
    one.tick()
    assert [row.number for row in stage.read()] == [1, 2, 3]
    assert len(stage.world.read()) == 1
    assert all(row.report_uri for row in stage.read())


def test_a_ledger_that_does_not_answer_makes_nobody_lead(stage: Stage, traffic: Any) -> None:
    def fail() -> bool:
        raise LedgerError("no database")

    watcher = stage.start(lead=fail)
    traffic.send(250, seed=2)
    watcher.tick()
    assert stage.read() == []
    assert watcher.status()["problem"] == "no database"
