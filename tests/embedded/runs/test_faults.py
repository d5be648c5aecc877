"""Termination, sudden deaths and restarts; each test has a server of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from embedded.runs.records import Run
from embedded.runs.storage import Storage


def alter(server, run_id, change):
    """Change what a dead server remembers of a run."""
    storage = Storage(server.home.runs_dir / "runs.db")
    storage.update(Run, run_id, lambda run: run.model_copy(update=change))
    storage.close()


def find_executor(server, run_id):
    """Return the process of a run."""
    for child in psutil.process_iter():
        try:
            if run_id in " ".join(child.cmdline()) and "embedded.runs.executor" in child.cmdline():
                return child
        except psutil.NoSuchProcess:
            continue
    pytest.fail(f"run {run_id} has no process")


def test_terminate_a_running_and_a_queued_run(make_server, packages, folder, read_pids, are_gone, until):
    server = make_server()
    running = server.submit(packages["waiting"], {"folder": str(folder), "stubborn": True})
    queued = server.submit(packages["branch"])
    last = server.submit(packages["branch"])
    pids = read_pids()
    assert server.get(queued)["state"] == "PENDING"
    assert set(server.list_steps(queued).values()) == {"PENDING"}
    assert server.list_steps(running) == {"linger": "RUNNING", "say": "PENDING"}
    for run_id in (queued, running):
        assert server.http.post(f"/apis/v2beta1/runs/{run_id}:terminate").json() == {}
    assert server.get(queued)["state"] == "CANCELED"
    run = server.wait(running)
    assert run["state"] == "CANCELED"
    assert [entry["state"] for entry in run["state_history"]][-2:] == ["CANCELING", "CANCELED"]
    assert server.list_steps(running) == {"linger": "CANCELED", "say": "SKIPPED"}
    assert are_gone(pids), "also the one that ignores SIGTERM in a session of its own"
    assert server.wait(last)["state"] == "SUCCEEDED"
    answer = server.http.post(f"/apis/v2beta1/runs/{running}:terminate")
    assert answer.status_code == 400
    assert "ended already, as CANCELED" in answer.json()["message"]


def test_kill_the_executor(make_server, packages, folder, read_pids, are_gone, until):
    server = make_server()
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    after = server.submit(packages["branch"])
    pids = read_pids()
    find_executor(server, run_id).kill()
    run = server.wait(run_id, 30)
    assert run["state"] == "FAILED"
    assert "was ended by SIGKILL before the run was finished" in run["error"]["message"]
    assert server.list_steps(run_id) == {"linger": "FAILED", "say": "SKIPPED"}
    assert are_gone(pids)
    assert server.wait(after)["state"] == "SUCCEEDED"


def test_a_killed_step_fails_the_run_with_the_reason(make_server, packages, folder, read_pids, are_gone):
    server = make_server()
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    pids = read_pids()
    psutil.Process(pids[0]).kill()
    run = server.wait(run_id)
    assert run["state"] == "FAILED"
    assert "step 'linger' failed: the process was ended by SIGKILL" in run["error"]["message"]
    assert are_gone(pids), "what the step started ends with the run"


def test_a_killed_server_finds_its_run_again(make_server, packages, folder, read_pids):
    server = make_server()
    running = server.submit(packages["waiting"], {"folder": str(folder)})
    queued = server.submit(packages["branch"])
    read_pids()
    executor = find_executor(server, running)
    server.end(signal.SIGKILL)
    assert executor.is_running()
    server = make_server()
    assert server.get(running)["state"] == "RUNNING"
    assert server.list_steps(running) == {"linger": "RUNNING", "say": "PENDING"}
    assert server.get(queued)["state"] == "PENDING"
    (folder / "go").touch()
    assert server.wait(running)["state"] == "SUCCEEDED"
    assert server.wait(queued)["state"] == "SUCCEEDED"


def test_an_adopted_run_can_be_terminated(make_server, packages, folder, read_pids, are_gone):
    server = make_server()
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    pids = read_pids()
    server.end(signal.SIGKILL)
    server = make_server()
    server.client().terminate_run(run_id)
    assert server.wait(run_id)["state"] == "CANCELED"
    assert are_gone(pids)


@pytest.mark.parametrize("change", [{"pid": None, "started": None}, {"started": 5.0}])
def test_an_executor_is_known_by_its_mark(make_server, packages, folder, read_pids, change):
    """The server died before it wrote the process down, or the clock was set since."""
    server = make_server()
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    read_pids()
    server.end(signal.SIGKILL)
    alter(server, run_id, change)
    server = make_server()
    (folder / "go").touch()
    assert server.wait(run_id)["state"] == "SUCCEEDED"


def test_a_run_whose_start_did_not_happen_is_queued_again(make_server, packages, folder, read_pids):
    server = make_server()
    server.submit(packages["waiting"], {"folder": str(folder)})
    run_id = server.submit(packages["branch"])
    read_pids()
    server.end(signal.SIGKILL)
    alter(server, run_id, {"state": "RUNNING"})
    server = make_server()
    (folder / "go").touch()
    run = server.wait(run_id)
    assert run["state"] == "SUCCEEDED"
    assert [entry["state"] for entry in run["state_history"]].count("PENDING") == 2


def test_a_run_that_cannot_be_started_does_not_stop_the_others(make_server, packages, folder, read_pids):
    server = make_server()
    server.submit(packages["waiting"], {"folder": str(folder)})
    broken, after = server.submit(packages["branch"]), server.submit(packages["branch"])
    read_pids()
    shutil.rmtree(server.home.runs_dir / "runs" / broken)
    (folder / "go").touch()
    assert server.wait(after)["state"] == "SUCCEEDED"
    listed = {run["run_id"]: run for run in server.http.get("/apis/v2beta1/runs").json()["runs"]}
    assert listed[broken]["state"] == "FAILED"
    assert "could not be started" in listed[broken]["error"]["message"]
    answer = server.http.get(f"/apis/v2beta1/runs/{broken}")
    assert (answer.status_code, "damaged or gone" in answer.json()["message"]) == (500, True)


def test_one_server_per_home(make_server):
    server = make_server()
    second = subprocess.run(
        [sys.executable, "-m", "embedded.runs"],
        env={**os.environ, "TENURE_HOME": str(server.home.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 2
    assert "another server of pipeline runs is at work" in second.stderr
    assert server.is_ready()


def test_a_run_that_ended_while_the_server_was_away(make_server, packages, folder, read_pids, until):
    server = make_server()
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    read_pids()
    executor = find_executor(server, run_id)
    server.end(signal.SIGKILL)
    (folder / "go").touch()
    until(lambda: not executor.is_running() or executor.status() == psutil.STATUS_ZOMBIE, 60)
    server = make_server()
    assert server.wait(run_id, 30)["state"] == "SUCCEEDED"


def test_server_and_executor_killed_together(make_server, packages, folder, read_pids, are_gone):
    server = make_server()
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    queued = server.submit(packages["branch"])
    pids = read_pids()
    executor = find_executor(server, run_id)
    server.end(signal.SIGKILL)
    executor.kill()
    server = make_server()
    run = server.wait(run_id, 30)
    assert run["state"] == "FAILED"
    assert "was gone when the server looked for it" in run["error"]["message"]
    assert are_gone(pids)
    assert server.wait(queued)["state"] == "SUCCEEDED"


def test_an_orderly_stop_ends_the_run_and_leaves_no_process(
    make_server, packages, folder, read_pids, are_gone
):
    server = make_server()
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    queued = server.submit(packages["branch"])
    pids = read_pids()
    executor = find_executor(server, run_id)
    assert server.end(signal.SIGTERM) == 0
    assert are_gone([*pids, executor.pid])
    server = make_server()
    run = server.get(run_id)
    assert run["state"] == "FAILED"
    assert "the platform was stopped" in run["error"]["message"]
    assert server.wait(queued)["state"] == "SUCCEEDED"


def test_retry_of_a_terminated_run(make_server, packages, folder, read_pids):
    server = make_server()
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    read_pids()
    assert server.http.post(f"/apis/v2beta1/runs/{run_id}:retry").status_code == 400
    server.http.post(f"/apis/v2beta1/runs/{run_id}:terminate")
    assert server.wait(run_id)["state"] == "CANCELED"
    (folder / "go").touch()
    assert server.http.post(f"/apis/v2beta1/runs/{run_id}:retry").json() == {}
    run = server.wait(run_id)
    assert run["state"] == "SUCCEEDED"
    assert "error" not in run
    assert "run again, attempt 2" in server.log(run_id)
