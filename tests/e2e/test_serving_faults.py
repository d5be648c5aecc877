"""Killing what serves, under load: docs/architecture.md's "What survives what", line by line."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from clients import names
from embedded.home import Home
from embedded.leftovers import find_leftovers

RATE = 800
# An answer that a process was just writing when it died is lost; the gateway asks somebody else for the rest.
LOST_WITH_A_SERVER = 2
DOWN = {("False", "CrashLoopBackOff"), ("False", "Restarted")}


def test_a_killed_canary_is_replaced_by_the_stable_model(
    stage: Any, record_property: Callable[..., None]
) -> None:
    stage.set_up(percent=50)
    stable, canary = stage.find_pid(), stage.find_pid(stage.canary)
    (program,) = [name for name, state in stage.list_programs().items() if state.pid == canary]
    with stage.load(rate=RATE) as load:
        load.pass_by(1000)
        killed = time.monotonic()
        assert stage.kill_program(program) == canary
        # It is started again, becomes ready, and gets its half of the customers back.
        again = stage.wait_for_restart(program, canary)
        # The condition of before its death is still there for a moment.
        stage.wait_until(lambda: stage.condition("CanaryPredictorReady").get("message") == "restarted 1 time")
        stage.wait_for_weights({stage.canary: 50})
        settled = time.monotonic() + 0.5
        load.pass_by(RATE)
        condition = stage.condition("CanaryPredictorReady")
        load.pass_by(int(max(0, 8000 - load.count()["answered"])))
    report = load.stop()
    assert len(report.failures) <= LOST_WITH_A_SERVER, report.explain()
    share, _ = report.share(stage.new.version, settled, float("inf"))
    assert 0.4 < share < 0.6, report.explain()
    assert report.count(killed)[stage.old.version] > 1000
    assert stage.find_pid() == stable
    assert stage.find_pid(stage.canary) == again
    assert stage.find_program(stage.canary).restarts == 1
    assert condition["status"] == "True"
    assert condition["message"] == "restarted 1 time"
    record_property("requests", len(report.answers))
    record_property("failures", len(report.failures))
    print(f"killed canary: {report.explain()}")  # noqa: T201


@pytest.mark.parametrize("percent", [50, None])
def test_the_only_stable_server_comes_back(
    stage: Any, percent: int | None, record_property: Callable[..., None]
) -> None:
    stage.set_up(percent=percent)
    before = stage.find_program()
    with stage.load(rate=200) as load:
        load.pass_by(200)
        killed = time.monotonic()
        pid = stage.kill_program(before.name)

        def look() -> bool:
            condition = stage.condition("PredictorReady")
            return (condition["status"], condition.get("reason")) in DOWN

        stage.wait_until(look, 15)
        stage.wait_for_restart(before.name, pid)
        stage.wait_for_weights({} if percent is None else {stage.canary: percent})
        recovered = time.monotonic()
        load.pass_by(600)
    report = load.stop()
    late = [failure for failure in report.failures if failure.at > recovered + 0.5]
    assert not late, late
    # Meanwhile every answer says that nobody is there, at once; nothing hangs, nothing is answered wrongly.
    # Only an answer that the server was just writing is cut off.
    texts = [failure.text for failure in report.failures]
    cut = [text for text in texts if not text.startswith(("502:", "503:"))]
    assert len(cut) <= LOST_WITH_A_SERVER, report.explain()
    assert all(text.startswith("IncompleteReadError") for text in cut), report.explain()
    if percent is not None:
        # The canary's customers never notice.
        assert report.count(killed, recovered)[stage.new.version] > 50
    assert stage.find_program().restarts == before.restarts + 1
    message = stage.condition("PredictorReady")["message"]
    assert re.match(rf"restarted {before.restarts + 1} times?", message), message
    outage = report.fail_window()
    assert outage < 15
    record_property("outage", outage)
    print(f"killed stable, canary {percent}: away for {outage:.1f} s; {report.explain()}")  # noqa: T201


def test_of_two_stable_servers_one_may_die(stage: Any) -> None:
    stage.set_up()
    first = stage.find_program()
    stage.services.inference.patch(stage.name, {"spec": {"predictor": {"minReplicas": 2}}})
    stage.wait_until(lambda: len(stage.list_programs()) == 2)
    stage.wait_for_weights({})
    with stage.load(rate=RATE) as load:
        load.pass_by(400)
        pid = stage.kill_program(first.name)
        load.pass_by(400)
        stage.wait_for_restart(first.name, pid)
        stage.wait_for_weights({})
        load.pass_by(800)
        # One replica less again: its process is told to stop once it gets nothing more.
        stage.services.inference.patch(stage.name, {"spec": {"predictor": {"minReplicas": 1}}})
        stage.wait_until(lambda: len(stage.list_programs()) == 1)
        load.pass_by(400)
    report = load.stop()
    assert len(report.failures) <= LOST_WITH_A_SERVER, report.explain()
    print(f"killed one of two: {report.explain()}")  # noqa: T201


def test_repeated_deaths_are_met_with_growing_pauses(stage: Any) -> None:
    stage.set_up()
    name = stage.find_program().name
    gaps = []
    for _ in range(3):
        pid = stage.kill_program(name)
        died = time.monotonic()
        stage.wait_for_restart(name, pid, 30)
        gaps.append(time.monotonic() - died)
    assert gaps[-1] > gaps[0], gaps
    stage.wait_for_weights({})


@pytest.mark.parametrize("name", ["kubernetes", "pilot", "runs", "store", "tracking"])
def test_serving_does_not_notice_who_else_dies(stage: Any, name: str) -> None:
    """Nothing that serves is restarted: who comes back adopts it."""
    stage.set_up(percent=50)
    pids = {stage.find_pid(), stage.find_pid(stage.canary)}
    with stage.load(rate=200) as load:
        load.pass_by(100)
        pid = stage.kill_program(name)
        stage.wait_for_restart(name, pid)
        # What it does is done again; first of all, a change of the weights.
        stage.wait_until(lambda: is_healthy(stage, name), 60)
        stage.set_percent(20)
        load.pass_by(100)
        stage.set_percent(50)
        load.pass_by(100)
    report = load.stop()
    assert not report.failures, report.explain()
    assert {stage.find_pid(), stage.find_pid(stage.canary)} == pids
    assert {state.pid for state in stage.list_programs().values()} == pids


def is_healthy(stage: Any, name: str) -> bool:
    answer = stage.embedded("status", "--json", check=False)
    (status,) = [entry for entry in json.loads(answer.stdout)["services"] if entry["name"] == name]
    return bool(status["ready"])


def test_a_change_while_the_reconciler_is_dead_is_made_good(stage: Any) -> None:
    """A model server that dies while nobody watches for it is found missing."""
    stage.set_up(percent=50)
    stable = stage.find_pid()
    program = stage.find_program(stage.canary)
    with stage.load(rate=RATE) as load:
        load.pass_by(400)
        pid = stage.kill_program("kubernetes")
        stage.kill_program(program.name)
        stage.wait_for_restart("kubernetes", pid)
        stage.wait_for_restart(program.name, program.pid)
        stage.wait_until(lambda: is_healthy(stage, "kubernetes"), 60)
        stage.wait_for_weights({stage.canary: 50})
        load.pass_by(800)
    report = load.stop()
    assert len(report.failures) <= LOST_WITH_A_SERVER, report.explain()
    assert stage.find_pid() == stable


def test_a_promotion_asked_for_while_the_pilot_is_dead_is_carried_out(stage: Any) -> None:
    stage.set_up(percent=20)
    pids = stage.find_pid(), stage.find_pid(stage.canary)
    with stage.load(rate=300) as load:
        pid = stage.kill_program("pilot")
        mark = {"metadata": {"annotations": {names.PROMOTE: stage.canary}}}
        stage.services.inference.patch(stage.name, mark)
        stage.wait_for_restart("pilot", pid)
        stage.wait_until(lambda: stage.stable == stage.canary, 30)
        stage.wait_for_weights({})
        load.pass_by(300)
    report = load.stop()
    assert not report.failures, report.explain()
    assert stage.find_pid() == pids[1]


def test_the_gateway_comes_back_with_its_routes(stage: Any, record_property: Callable[..., None]) -> None:
    stage.set_up(percent=50)
    pids = {stage.find_pid(), stage.find_pid(stage.canary)}
    with stage.load(rate=200) as load:
        load.pass_by(100)
        pid = stage.kill_program("gateway")
        stage.wait_for_restart("gateway", pid)
        stage.wait_until(lambda: is_healthy(stage, "gateway"), 30)
        recovered = time.monotonic()
        load.pass_by(600)
    report = load.stop()
    assert not [failure for failure in report.failures if failure.at > recovered + 1], report.explain()
    outage = report.fail_window()
    assert outage < 10
    counts = report.count(recovered + 1)
    assert set(counts) == {stage.old.version, stage.new.version}
    assert {stage.find_pid(), stage.find_pid(stage.canary)} == pids
    record_property("outage", outage)
    print(f"killed gateway: away for {outage:.1f} s; {report.explain()}")  # noqa: T201


def test_every_port_is_on_loopback_only(stage: Any) -> None:
    stage.set_up(percent=50)
    # API, runs, store, tracking, gateway, and two ports of each model server, at least.
    assert len(stage.list_listeners()) >= 9
    assert stage.find_open_listeners() == []


def test_no_secret_is_in_an_argument(stage: Any) -> None:
    stage.set_up(percent=50)
    processes = find_leftovers(Home.open(stage.home).state.id)
    assert len(processes) >= 9
    for process in processes:
        line = " ".join(process.cmdline())
        assert not any(secret in line for secret in stage.secrets)
