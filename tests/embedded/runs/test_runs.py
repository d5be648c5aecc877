"""Runs of small real pipelines: states, branches, cache, loops, failures, parameters."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest


def tasks_of(run):
    return {task["display_name"]: task for task in run["run_details"]["task_details"]}


def test_both_branches_of_a_condition(server, packages):
    low = server.submit(packages["branch"], {"left": -1})
    high = server.submit(packages["branch"], {"left": 40})
    assert server.wait(low)["state"] == "SUCCEEDED"
    assert server.wait(high)["state"] == "SUCCEEDED"
    steps = server.list_steps(low)
    assert steps["say"] == "SKIPPED"
    assert steps["say-2"] in ("SUCCEEDED", "CACHED"), "other tests take this branch too"
    steps = server.list_steps(high)
    assert steps["say"] in ("SUCCEEDED", "CACHED")
    assert steps["say-2"] == "SKIPPED"


@pytest.mark.parametrize(("left", "expected"), [(1, "SKIPPED"), (11, "SUCCEEDED")])
def test_a_branch_without_else(server, packages, left, expected):
    run = server.wait(server.submit(packages["lone-branch"], {"left": left}))
    assert run["state"] == "SUCCEEDED"
    states = server.list_steps(run["run_id"])
    assert set(states) == {"decide", "add", "say"}
    assert {states["add"], states["say"]} <= {expected, expected.replace("SUCCEEDED", "CACHED")}


def test_details_of_a_run(server, packages):
    value = uuid.uuid4().int % 1_000_000
    run = server.wait(server.submit(packages["branch"], {"left": value}, name="details"))
    tasks = tasks_of(run)
    add = tasks["add"]
    assert add["state"] == "SUCCEEDED"
    assert run["created_at"] <= add["start_time"] <= add["end_time"] <= run["finished_at"]
    assert [entry["state"] for entry in add["state_history"]] == ["RUNNING", "SUCCEEDED"]
    assert "start_time" not in tasks["say-2"]
    assert [entry["state"] for entry in run["state_history"]] == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert run["runtime_config"]["parameters"] == {"left": value}
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "branch"
    assert f"adding {value} and 2" in server.log(run["run_id"], add["task_id"])
    assert "add | adding" in server.log(run["run_id"])


def test_the_second_run_takes_steps_from_the_cache(server, packages):
    value = uuid.uuid4().int % 1_000_000
    first = server.submit(packages["branch"], {"left": value})
    second = server.submit(packages["branch"], {"left": value})
    server.wait(first)
    server.wait(second)
    assert server.list_steps(first)["add"] == "SUCCEEDED"
    steps = server.list_steps(second)
    assert steps["add"] == "CACHED"
    assert steps["decide"] == "SUCCEEDED", "its cache is off"
    assert server.log(second, "add") == ""


def test_a_failing_step(server, packages):
    run = server.wait(server.submit(packages["failing"], {"text": "no luck today"}))
    assert run["state"] == "FAILED"
    assert run["error"]["message"] == "step 'fail' failed: ValueError: no luck today"
    tasks = tasks_of(run)
    assert tasks["fail"]["state"] == "FAILED"
    assert tasks["fail"]["error"]["message"] == "ValueError: no luck today"
    assert tasks["say"]["state"] == "SKIPPED"
    assert "about to fail" in server.log(run["run_id"], "fail")


def test_loop_retry_and_exit_handler(server, packages, folder):
    run = server.wait(server.submit(packages["everything"], {"folder": str(folder)}))
    assert run["state"] == "SUCCEEDED", server.log(run["run_id"])
    steps = server.list_steps(run["run_id"])
    assert {"add[0]", "add[1]", "add[2]", "count", "flaky", "report"} == set(steps)
    assert "--- attempt 2 ---" in server.log(run["run_id"], "flaky")
    assert "the state is SUCCEEDED" in server.log(run["run_id"], "report")


@pytest.mark.parametrize(("code", "attempts"), [(65, 1), (1, 3)])
def test_a_step_that_would_fail_in_the_same_way_is_not_tried_again(server, packages, code, attempts):
    run = server.wait(server.submit(packages["hopeless"], {"code": code}))
    assert run["state"] == "FAILED"
    assert f"exit code {code}" in run["error"]["message"]
    assert server.log(run["run_id"], "leave").splitlines().count("tried") == attempts
    assert "no effect in the current local runner" not in server.log(run["run_id"])


def test_exit_handler_of_a_failed_group(server, packages):
    run = server.wait(server.submit(packages["handled"]))
    assert run["state"] == "FAILED"
    assert server.list_steps(run["run_id"]) == {"fail": "FAILED", "report": "SUCCEEDED"}
    assert "the state is FAILED" in server.log(run["run_id"], "report")


def test_steps_have_the_addresses_and_no_run_leaves_temporary_files(server, packages, folder):
    server.home.env_file.write_text("TENURE_S3_URL=http://127.0.0.1:1\nTENURE_S3_SECRET_KEY='a b'\n")
    names = "TENURE_S3_URL,TENURE_S3_SECRET_KEY,TENURE_ENV_FILE,TENURE_RUN_ID,TMPDIR"
    run_id = server.submit(packages["environment"], {"names": names, "folder": str(folder)})
    assert server.wait(run_id)["state"] == "SUCCEEDED"
    lines = dict(line.split("=", 1) for line in (folder / "environment").read_text().splitlines())
    path = server.home.runs_dir / "runs" / run_id
    assert lines == {
        "TENURE_S3_URL": "http://127.0.0.1:1",
        "TENURE_S3_SECRET_KEY": "a b",
        "TENURE_ENV_FILE": str(server.home.env_file),
        "TENURE_RUN_ID": run_id,
        "TMPDIR": str(path / "tmp"),
    }
    assert not (path / "tmp").exists()
    assert "a b" not in server.log(run_id)


def test_concurrent_submissions_run_one_after_the_other(server, packages):
    with ThreadPoolExecutor(6) as pool:
        ids = list(pool.map(lambda n: server.submit(packages["branch"], {"left": n}), range(6)))
    runs = [server.wait(run_id) for run_id in ids]
    assert {run["state"] for run in runs} == {"SUCCEEDED"}
    spans = sorted(
        (run["state_history"][1]["update_time"], run["state_history"][-1]["update_time"], run["created_at"])
        for run in runs
    )
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert [span[2] for span in spans] == sorted(span[2] for span in spans)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"folder": "x"}, ["'names' is missing"]),
        ({"names": "a", "folder": "x", "fodler": 1}, ["'fodler' is not a parameter", "'folder'", "'ratio'"]),
        ({"names": 3, "folder": "x"}, ["'names' must be a string, not 3 (int)"]),
        ({"names": "a", "folder": "x", "ratio": "0.5"}, ["'ratio' must be a number"]),
        ({"names": "a", "folder": "x", "ratio": True}, ["'ratio' must be a number"]),
        ({"names": "a", "folder": "x", "flag": 1}, ["'flag' must be true or false"]),
        ({"names": "a", "folder": "x", "extra": [1]}, ["'extra' must be an object"]),
        ({"names": None, "flag": 0}, ["'names' is missing", "'folder' is missing", "'flag' must be"]),
    ],
)
def test_wrong_parameters_are_refused_by_name(server, packages, parameters, words):
    import yaml

    spec = yaml.safe_load(packages["environment"].read_text())
    body = {
        "display_name": "wrong",
        "pipeline_spec": spec,
        "runtime_config": {"parameters": parameters},
    }
    before = server.http.get("/apis/v2beta1/runs").json()["total_size"]
    answer = server.http.post("/apis/v2beta1/runs", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    for word in words:
        assert word in answer.json()["message"]
    assert server.http.get("/apis/v2beta1/runs").json()["total_size"] == before


def test_a_following_log_ends_with_the_step(server, packages, folder, read_pids):
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    read_pids()
    address = f"/apis/v1alpha1/runs/{run_id}/nodes/linger/log"
    assert "Looking for component `linger`" in server.log(run_id, "linger")
    with server.http.stream("GET", address, params={"follow": "true"}) as response:
        chunks = response.iter_text()
        assert "linger" in next(chunks)
        (folder / "go").touch()
        rest = "".join(chunks)
    assert "Wrote executor output file" in rest
    assert server.wait(run_id)["state"] == "SUCCEEDED"
    answer = server.http.get(f"/apis/v1alpha1/runs/{run_id}/nodes/nobody/log")
    assert answer.status_code == 404
    assert "it has: linger, say" in answer.json()["message"]


def test_a_broken_value_shows_the_runner_s_error(server, packages):
    import yaml

    spec = yaml.safe_load(packages["branch"].read_text())
    del spec["deploymentSpec"]["executors"]["exec-say"]["container"]["command"][0]
    answer = server.http.post("/apis/v2beta1/runs", json={"display_name": "x", "pipeline_spec": spec})
    assert answer.status_code == 400
    assert "container component" in answer.json()["message"]
    assert json.loads(answer.text)["details"][0]["@type"].endswith("google.rpc.Status")
