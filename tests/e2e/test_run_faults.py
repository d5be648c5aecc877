"""Killing runs, and the whole platform: nothing is lost, nothing is left behind, serving does not notice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2e_machine import call, make_environment

from clients.errors import UnreachableError
from clients.runs import Run, Runs
from embedded.home import PLATFORM_VARIABLE, Home
from embedded.leftovers import find_leftovers, is_alive
from embedded.ports import is_port_open
from embedded.runs.processes import EXECUTOR_MODULE, list_processes

TRIALS = 12
# Long enough to be caught at, on any machine: five trials a second at the very best.
LONG = {"trials": TRIALS, "folds": 5, "max_rounds": 400}


@pytest.fixture(scope="module")
def runs(platform: Any) -> Runs:
    return Runs.connect(platform.settings)


def submit(stage: Any, **training: Any) -> tuple[str, str]:
    """Submit a run that trains for a while; returns its id and the project file."""
    file = stage.write_project(training=LONG | training, gate={"margin": 0.5, "slice_margin": 0.9})
    answer = stage.tenure("run", "--json", "--no-follow", "-p", str(file))
    return str(json.loads(answer.stdout)["id"]), str(file)


def list_trials(platform: Any, name: str, since: float = 0.0) -> list[Any]:
    """Return the study's child runs in MLflow that were begun after a time (seconds)."""
    client = platform.tracking.client
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return []
    found = client.search_runs(
        [experiment.experiment_id], "tags.mlflow.parentRunId LIKE '%'", max_results=500
    )
    return [run for run in found if run.info.start_time >= 1000 * since]


def find_executor(run_id: str) -> psutil.Process:
    (executor,) = [
        process
        for process in list_processes(run_id)
        if EXECUTOR_MODULE in process.cmdline() and os.getsid(process.pid) == process.pid
    ]
    return executor


def wait_for_trials(stage: Any, platform: Any, since: float, count: int) -> None:
    stage.wait_until(lambda: len(list_trials(platform, stage.name, since)) >= count, 120)


def wait_for_end(stage: Any, runs: Runs, run_id: str, seconds: float) -> Run:
    stage.wait_until(lambda: runs.get(run_id).done, seconds)
    return runs.get(run_id)


def check_nothing_left(stage: Any, run_id: str) -> None:
    stage.wait_until(lambda: not list_processes(run_id), 10)


def test_a_killed_run_fails_with_the_reason_and_its_successor_resumes_the_study(
    stage: Any, platform: Any, runs: Runs
) -> None:
    stage.set_up()
    pid = stage.find_pid()
    with stage.load(rate=50) as load:
        began = time.time()
        run_id, file = submit(stage, seed=101)
        wait_for_trials(stage, platform, began, 3)
        processes = list_processes(run_id)
        executor = find_executor(run_id)
        assert len(processes) >= 2, "the executor and its step"
        os.kill(executor.pid, signal.SIGKILL)
        killed = time.monotonic()
        run = wait_for_end(stage, runs, run_id, 15)
        seconds = time.monotonic() - killed
        check_nothing_left(stage, run_id)
        assert not any(is_alive(process) for process in processes)
        load.pass_by(50)
    assert run.state == "FAILED"
    assert "was ended by SIGKILL" in str(run.error), run.error
    assert read_states(runs, run_id)["tune"] == "FAILED"
    report = load.stop()
    assert not report.failures, report.explain()
    assert stage.find_pid() == pid

    # The same again goes on where the first one was when it died.
    done = len(list_trials(platform, stage.name, began))
    assert 3 <= done < TRIALS
    again = time.time()
    answer = stage.tenure("run", "--json", "-p", file)
    assert json.loads(answer.stdout)["state"] == "SUCCEEDED"
    new = list_trials(platform, stage.name, again)
    trials = list_trials(platform, stage.name, began)
    numbers = {trial.data.tags.get("tenure.trial.number") for trial in trials}
    assert len(new) < TRIALS
    assert len(new) >= TRIALS - done
    print(f"{seconds:.1f} s to FAILED; {done} trials before, {len(new)} after, of {TRIALS}")  # noqa: T201
    assert numbers - {None} == {str(number) for number in range(TRIALS)}
    stage.set_up()


def test_a_terminated_run_is_gone_at_once(stage: Any, platform: Any, runs: Runs) -> None:
    stage.set_up()
    began = time.time()
    run_id, _ = submit(stage, seed=102)
    wait_for_trials(stage, platform, began, 1)
    runs.terminate(run_id)
    run = wait_for_end(stage, runs, run_id, 15)
    assert run.state == "CANCELED"
    assert read_states(runs, run_id)["tune"] == "CANCELED"
    check_nothing_left(stage, run_id)


def test_a_run_outlives_the_runs_api(stage: Any, platform: Any, runs: Runs) -> None:
    stage.set_up()
    began = time.time()
    run_id, _ = submit(stage, seed=103, trials=4)
    wait_for_trials(stage, platform, began, 1)
    executor = find_executor(run_id)
    pid = stage.kill_program("runs")
    stage.wait_for_restart("runs", pid)
    assert is_alive(executor)
    # The new server knows it, and that it runs.
    stage.wait_until(lambda: is_known(runs, run_id), 30)
    assert runs.get(run_id).state == "RUNNING"
    assert find_executor(run_id) == executor
    # It goes on step by step, and is still under control.
    stage.wait_until(lambda: read_states(runs, run_id)["tune"] == "SUCCEEDED", 120)
    stage.wait_until(lambda: read_states(runs, run_id).get("evaluate") == "RUNNING", 30)
    assert find_executor(run_id) == executor
    runs.terminate(run_id)
    assert wait_for_end(stage, runs, run_id, 15).state == "CANCELED"
    check_nothing_left(stage, run_id)


def read_states(runs: Runs, run_id: str) -> dict[str, str]:
    return {step.name: step.state for step in runs.get(run_id).steps}


def is_known(runs: Runs, run_id: str) -> bool:
    try:
        return not runs.get(run_id).done
    except UnreachableError:
        return False


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A home for a platform of the test's own; whatever is left of it is ended."""
    home = tmp_path / "home"
    environment = make_environment(home)
    try:
        yield home, environment
    finally:
        call(environment, "down")


def test_the_platform_survives_a_hard_reboot_and_leaves_nothing(
    own_home: tuple[Path, dict[str, str]], stage_at: Callable[..., Any]
) -> None:
    home, environment = own_home
    call(environment, "up")
    stage = stage_at(home, environment)
    stage.upload()
    stage.set_up(percent=25)
    with stage.load(rate=100) as load:
        load.pass_by(200)
    before = load.stop()
    assert not before.failures, before.explain()
    state = Home.open(home).state
    # All at once and without a word, as when the power goes.
    victims = find_leftovers(state.id)
    assert len(victims) >= 9  # supervisord, six services, two model servers, and what these started
    for process in victims:
        process.send_signal(signal.SIGSTOP)
    for process in victims:
        process.kill()
    psutil.wait_procs(victims, 10)
    assert not find_leftovers(state.id)

    started = time.monotonic()
    call(environment, "up")
    stage = stage_at(home, environment)
    stage.wait_for_weights({stage.canary: 25}, 60)
    seconds = time.monotonic() - started
    with stage.load(rate=100) as load:
        load.pass_by(300)
    after = load.stop()
    assert not after.failures, after.explain()
    assert set(after.count()) == {stage.old.version, stage.new.version}
    print(f"served again {seconds:.1f} s after `up`")  # noqa: T201

    ports = {*Home.open(home).state.ports.model_dump().values()}
    ports |= {port for _, port in stage.list_listeners()}
    processes = find_leftovers(state.id)
    call(environment, "down")
    assert not find_leftovers(state.id)
    assert not any(is_alive(process) for process in processes)
    assert not [port for port in ports if is_port_open(port)]
    marked = [
        process.pid
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get(PLATFORM_VARIABLE) == state.id
    ]
    assert not marked
