from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from clients.errors import RefusedError, UnreachableError
from clients.run import Step
from tenure.drift.verdict import Finding, Verdict
from tenure.project import parse_project


class Killed(BaseException):
    """The process ends here: nothing catches it, nothing after it happens."""


def make_verdict(world: Any, number: int = 1, kind: str = "covariate", alarm: bool = True) -> Verdict:
    """A verdict whose window lies around the clock's time."""
    now = world.clock()
    finding = Finding(
        column="charge",
        kind=kind,  # type: ignore[arg-type]
        p_value=0.0,
        level=1e-5,
        effect=0.5,
        measure="psi",
        threshold=0.1,
        scale=1,
        since=now,
        significant=alarm,
        material=alarm,
    )
    return Verdict(
        service="churn",
        version=world.champion.version,
        family="inputs",
        number=number,
        rows=200,
        since=now,
        until=now + timedelta(seconds=1),
        findings=(finding,),
    )


def raise_alarm(world: Any, traffic: Any, rows: int = 400) -> Verdict:
    """Let customers change, with their outcomes known soon after."""
    verdict = make_verdict(world)
    traffic.send(rows, seed=5, dearer=1.5)
    world.clock.move(seconds=2)
    return verdict


def test_alarm_becomes_one_run_with_its_reason_and_its_customers(world: Any, traffic: Any) -> None:
    verdict = raise_alarm(world, traffic)
    trigger = world.make_trigger()
    cause = trigger.open(verdict, world.champion)
    assert cause is not None
    assert trigger.open(make_verdict(world, 2), world.champion) is None
    trigger.advance("churn", world.champion)
    row = world.read()[0]
    assert (row["state"], row["run_id"]) == ("running", "run-0")
    assert cause.id in world.api.runs[0].name
    arguments = world.api.started[0]["arguments"]
    assert arguments["reason"] == verdict.describe() == row["reason"]
    assert parse_project(arguments["project"]) == world.champion.project
    assert arguments["image"] == "registry.example.com/tenure-components@sha256:0"
    source = urlsplit(arguments["source"])
    assert (source.scheme, source.netloc) == ("ledger", "churn")
    query = {name: values[0] for name, values in parse_qs(source.query).items()}
    assert query["min_rows"] == "300"
    assert query["since"] == verdict.since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    world.api.finish()
    trigger.advance("churn", world.champion)
    assert world.read()[0]["state"] == "succeeded"
    assert len(world.api.runs) == 1
    assert world.notes.sent == []


def test_calm_or_unwanted_kinds_start_nothing(world: Any) -> None:
    trigger = world.make_trigger()
    assert trigger.open(make_verdict(world, alarm=False), world.champion) is None
    world.change(on=("performance",))
    assert trigger.open(make_verdict(world), world.champion) is None
    assert trigger.open(make_verdict(world, kind="performance"), world.champion) is not None


def test_cause_waits_for_labels_and_says_so(world: Any, traffic: Any) -> None:
    verdict = raise_alarm(world, traffic, rows=250)
    world.make_trigger().open(verdict, world.champion)
    world.make_trigger().advance("churn", world.champion)
    row = world.read()[0]
    assert row["state"] == "waiting"
    assert row["note"].startswith("waits for labels: 0 of 300 customers")
    traffic.send(100, seed=6, dearer=1.5, outcomes=False)
    world.make_trigger().advance("churn", world.champion)
    assert world.read()[0]["note"].startswith("waits for labels: 250 of 300 customers")
    traffic.send(50, seed=7, dearer=1.5)
    world.clock.move(seconds=2)
    world.make_trigger().advance("churn", world.champion)
    assert world.read()[0]["state"] == "running"


def test_canary_under_way_is_not_replaced(world: Any, traffic: Any) -> None:
    trigger = world.make_trigger()
    trigger.open(raise_alarm(world, traffic), world.champion)
    trigger.advance("churn", replace(world.champion, canaries=("b123",)))
    assert world.read()[0]["note"] == "waits until canary b123 is promoted or taken back"
    assert world.api.runs == []
    trigger.advance("churn", world.champion)
    assert len(world.api.runs) == 1


def test_next_cause_opens_behind_the_end_of_the_last_and_rests(world: Any, traffic: Any) -> None:
    trigger = world.make_trigger()
    verdict = raise_alarm(world, traffic)
    trigger.open(verdict, world.champion)
    trigger.advance("churn", world.champion)
    world.api.finish("SUCCEEDED", Step("gate", "SUCCEEDED"), Step("rollout", "SKIPPED"))
    straddling = make_verdict(world, 2)
    world.clock.move(seconds=1)
    trigger.advance("churn", world.champion)
    assert world.read()[0]["note"].startswith("the gate said no")
    world.clock.move(seconds=1)
    assert trigger.open(straddling, world.champion) is None, "its window began before the run had ended"
    assert world.make_trigger().open(verdict, world.champion) is None, "a restart sees the old alarm again"
    second = trigger.open(make_verdict(world, 3), world.champion)
    assert second is not None
    assert second.id != world.read()[0]["id"]
    traffic.send(400, seed=8, dearer=1.5)
    trigger.advance("churn", world.champion)
    assert world.read()[1]["note"].startswith("rests until")
    world.clock.move(minutes=61)
    trigger.advance("churn", world.champion)
    assert len(world.api.runs) == 2
    assert len({run.name for run in world.api.runs}) == 2


def test_one_run_at_a_time(world: Any, traffic: Any) -> None:
    world.change(cooldown_minutes=0)
    trigger = world.make_trigger()
    trigger.open(raise_alarm(world, traffic), world.champion)
    detail = {"uri": "s3://b/new/one.csv"}
    world.writer.save_cause(id="d" * 32, service="churn", kind="data", reason="new data", detail=detail)
    trigger.advance("churn", world.champion)
    assert [row["state"] for row in world.read()] == ["running", "waiting"]
    assert "waits for the run of cause" in world.read()[1]["note"]
    world.api.finish()
    trigger.advance("churn", world.champion)
    assert [row["state"] for row in world.read()] == ["succeeded", "running"]
    assert world.api.started[1]["arguments"]["source"] == "s3://b/new/one.csv"


def test_another_champion_drops_what_waits_but_not_what_runs(world: Any, traffic: Any) -> None:
    other = replace(world.champion, bundle=SimpleNamespace(version="another"))
    trigger = world.make_trigger()
    verdict = raise_alarm(world, traffic)
    trigger.open(verdict, world.champion)
    trigger.advance("churn", other)
    row = world.read()[0]
    assert (row["state"], row["note"]) == ("dropped", "another serves by now")
    # The old one is back, and its customers are still changed.
    world.clock.move(seconds=1)
    trigger.open(make_verdict(world, 2), world.champion)
    traffic.send(400, seed=9, dearer=1.5)
    trigger.advance("churn", world.champion)
    trigger.advance("churn", other)
    assert [row["state"] for row in world.read()] == ["dropped", "running"]


@pytest.mark.parametrize(
    ("end", "note"), [("FAILED", "failed: the disk is full"), ("CANCELED", "canceled: the disk is full")]
)
def test_failed_run_is_told(world: Any, traffic: Any, end: str, note: str) -> None:
    trigger = world.make_trigger()
    trigger.open(raise_alarm(world, traffic), world.champion)
    trigger.advance("churn", world.champion)
    world.api.finish(end, error="the disk is full")
    trigger.advance("churn", None)  # also while nobody knows who serves
    assert world.read()[0]["state"] == "failed"
    assert note in world.read()[0]["note"]
    [(kind, title, body)] = world.notes.sent
    assert kind == "run"
    assert "churn" in title
    assert "the disk is full" in body
    trigger.advance("churn", world.champion)
    assert len(world.notes.sent) == 1


def test_run_that_is_gone_has_failed(world: Any, traffic: Any) -> None:
    trigger = world.make_trigger()
    trigger.open(raise_alarm(world, traffic), world.champion)
    trigger.advance("churn", world.champion)
    world.api.runs.clear()
    trigger.advance("churn", world.champion)
    assert world.read()[0]["state"] == "failed"
    assert len(world.notes.sent) == 1


def test_missing_pipeline_is_waited_for(world: Any, traffic: Any) -> None:
    trigger = world.make_trigger()
    trigger.open(raise_alarm(world, traffic), world.champion)
    world.api.version = None
    trigger.advance("churn", world.champion)
    assert world.read()[0]["note"] == "waits for the pipeline: no pipeline was uploaded"


def fail_once(name: str, error: Exception, when: str = "before") -> Callable[[str, str], None]:
    """Raise at the first call of a method."""
    done: list[int] = []

    def call(now: str, method: str) -> None:
        if (now, method) == (when, name) and not done:
            done.append(1)
            raise error

    return call


def test_refused_run_fails_and_is_told(world: Any, traffic: Any) -> None:
    trigger = world.make_trigger()
    trigger.open(raise_alarm(world, traffic), world.champion)
    world.api.on_call = fail_once("start", RefusedError("no such parameter"))
    trigger.advance("churn", world.champion)
    assert world.read()[0]["state"] == "failed"
    assert "no such parameter" in world.notes.sent[0][2]
    trigger.advance("churn", world.champion)
    assert world.api.runs == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_lost_answer_to_the_start_starts_nothing_twice(world: Any, traffic: Any, when: str) -> None:
    trigger = world.make_trigger()
    trigger.open(raise_alarm(world, traffic), world.champion)
    world.api.on_call = fail_once("start", UnreachableError("reset by peer"), when)
    trigger.advance("churn", world.champion)
    assert world.read()[0]["state"] == "submitting"
    trigger.advance("churn", world.champion)
    # The request may still be on its way: nothing is sent again at once.
    assert len(world.api.runs) == (1 if when == "after" else 0)
    world.clock.move(seconds=11)
    trigger.advance("churn", world.champion)
    assert world.read()[0]["state"] == "running"
    assert len(world.api.runs) == 1


def test_request_that_is_still_on_its_way_is_waited_for(world: Any, traffic: Any) -> None:
    """The client gave up and the process died, but the server works on the request a little later."""
    trigger = world.make_trigger()
    trigger.open(raise_alarm(world, traffic), world.champion)
    world.api.on_call = fail_once("start", UnreachableError("timed out"))
    trigger.advance("churn", world.champion)
    world.clock.move(seconds=5)
    world.make_trigger().advance("churn", world.champion)
    order = world.read()[0]["detail"]["order"]
    world.api.start(world.api.version, {}, order["name"], order["experiment"])
    world.clock.move(seconds=20)
    world.make_trigger().advance("churn", world.champion)
    assert world.read()[0]["state"] == "running"
    assert len(world.api.runs) == 1


def drive(world: Any, verdict: Verdict, kills: list[int]) -> int:
    """Lead a cause to its end through processes of which the n-th is killed at its kills[n]-th step.

    A step is either side of a commit or of a call to the runs API. Returns the steps of the last process.
    """
    for limit in [*kills, 10**9]:
        steps = 0

        def count(when: str, name: str, limit: int = limit) -> None:
            nonlocal steps
            steps += 1
            if steps == limit:
                raise Killed(f"{when} {name}")

        world.shelf.on_call = world.api.on_call = count
        trigger = world.make_trigger()
        try:
            for look in range(6):
                trigger.open(verdict, world.champion)
                trigger.advance("churn", world.champion)
                if world.api.runs and look > 1:
                    world.api.finish()
                world.clock.move(seconds=6)
        except Killed:
            world.clock.move(seconds=1)
            continue
    world.shelf.on_call = world.api.on_call = lambda when, name: None
    return steps


def check_end(world: Any) -> None:
    rows = world.read()
    assert [row["state"] for row in rows] == ["succeeded"]
    assert [run.id for run in world.api.runs] == [rows[0]["run_id"]]
    assert rows[0]["arguments"] == world.api.started[0]["arguments"]


@pytest.fixture
def alarmed(world: Any, traffic: Any) -> tuple[Any, Verdict]:
    """A world whose customers have changed, to be copied."""
    return world, raise_alarm(world, traffic)


def test_killed_at_any_step_it_runs_once(make_world: Any, alarmed: tuple[Any, Verdict]) -> None:
    """Every step of the fault-free course is the last one of a process once."""
    world = make_world(alarmed[0])
    steps = drive(world, alarmed[1], [])
    check_end(world)
    assert steps >= 15
    for step in range(1, steps + 1):
        world = make_world(alarmed[0])
        drive(world, alarmed[1], [step])
        check_end(world)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(1, 24), min_size=2, max_size=8))
def test_killed_again_and_again_it_runs_once(
    make_world: Any, alarmed: tuple[Any, Verdict], kills: list[int]
) -> None:
    world = make_world(alarmed[0])
    drive(world, alarmed[1], kills)
    check_end(world)
