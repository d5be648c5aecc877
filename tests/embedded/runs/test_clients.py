"""The clients that people use: kfp.Client and the kfp command line."""

from __future__ import annotations

import json
import warnings

import kfp_server_api
import pytest


@pytest.fixture(scope="module")
def client(shared_server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield shared_server.client()


def names_of(items):
    return [item.display_name for item in items or []]


def test_experiments(client, unique):
    assert client.get_kfp_healthz().multi_user is False
    made = client.create_experiment(f"e-{unique}", description="mine")
    assert client.create_experiment(f"e-{unique}").experiment_id == made.experiment_id
    assert client.get_experiment(experiment_name=f"e-{unique}").description == "mine"
    assert "Default" in names_of(client.list_experiments(page_size=100).experiments)
    client.archive_experiment(made.experiment_id)
    assert client.get_experiment(made.experiment_id).storage_state == "ARCHIVED"
    client.unarchive_experiment(made.experiment_id)
    assert client.get_experiment(made.experiment_id).storage_state == "AVAILABLE"
    client.delete_experiment(made.experiment_id)
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.get_experiment(made.experiment_id)
    assert caught.value.status == 404
    assert json.loads(caught.value.body)["code"] == 5


def test_pipelines_and_versions(client, packages, unique):
    name = f"p-{unique}"
    pipeline = client.upload_pipeline(str(packages["branch"]), pipeline_name=name, description="two ways")
    assert client.get_pipeline_id(name) == pipeline.pipeline_id
    assert client.get_pipeline(pipeline.pipeline_id).description == "two ways"
    version = client.upload_pipeline_version(str(packages["failing"]), "v2", pipeline_name=name)
    found = client.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    assert found.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] == "failing"
    listed = client.list_pipeline_versions(pipeline.pipeline_id, sort_by="created_at desc")
    assert names_of(listed.pipeline_versions) == ["v2", name]
    for call in (
        lambda: client.upload_pipeline_version(
            str(packages["branch"]), "v2", pipeline_id=pipeline.pipeline_id
        ),
        lambda: client.upload_pipeline(str(packages["branch"]), pipeline_name=name),
    ):
        with pytest.raises(kfp_server_api.ApiException) as caught:
            call()
        assert caught.value.status == 409
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.delete_pipeline(pipeline.pipeline_id)
    assert caught.value.status == 400
    for entry in listed.pipeline_versions:
        client.delete_pipeline_version(pipeline.pipeline_id, entry.pipeline_version_id)
    client.delete_pipeline(pipeline.pipeline_id)
    assert client.get_pipeline_id(name) is None


def test_runs_of_a_package_and_of_a_version(client, packages, unique):
    experiment = client.create_experiment(f"runs-{unique}")
    result = client.create_run_from_pipeline_package(
        str(packages["branch"]), arguments={"left": 3}, run_name="first", experiment_name=f"runs-{unique}"
    )
    pipeline = client.upload_pipeline(str(packages["branch"]), pipeline_name=f"p-{unique}")
    version = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions[0]
    second = client.run_pipeline(
        experiment.experiment_id,
        "second",
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
        params={"left": 30},
    )
    done = client.wait_for_run_completion(result.run_id, 60, sleep_duration=0.1)
    assert done.state == "SUCCEEDED"
    assert client.wait_for_run_completion(second.run_id, 60, sleep_duration=0.1).state == "SUCCEEDED"
    run = client.get_run(second.run_id)
    assert run.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert {task.display_name for task in run.run_details.task_details} == {"add", "decide", "say", "say-2"}
    assert run.finished_at >= run.created_at
    again = client.create_run_from_pipeline_package(str(packages["branch"]), arguments={"left": 3})
    assert client.wait_for_run_completion(again.run_id, 60, sleep_duration=0.1).state == "SUCCEEDED"
    tasks = client.get_run(again.run_id).run_details.task_details
    assert {task.display_name: task.state for task in tasks}["add"] == "CACHED"
    listed = client.list_runs(experiment_id=experiment.experiment_id, sort_by="created_at desc")
    assert names_of(listed.runs) == ["second", "first"]
    page = client.list_runs(experiment_id=experiment.experiment_id, page_size=1)
    assert names_of(page.runs) == ["first"]
    page = client.list_runs(
        experiment_id=experiment.experiment_id, page_size=1, page_token=page.next_page_token
    )
    assert names_of(page.runs) == ["second"]
    assert page.next_page_token is None
    chosen = json.dumps(
        {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": "first"}]}
    )
    assert names_of(client.list_runs(experiment_id=experiment.experiment_id, filter=chosen).runs) == ["first"]
    client.archive_run(second.run_id)
    assert client.get_run(second.run_id).storage_state == "ARCHIVED"
    client.unarchive_run(second.run_id)
    client.delete_run(second.run_id)
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.get_run(second.run_id)
    assert caught.value.status == 404


def test_what_the_laptop_does_not_do_says_so(client, packages):
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.run_pipeline(
            "", "r", pipeline_package_path=str(packages["branch"]), pipeline_root="s3://somewhere"
        )
    assert caught.value.status == 400
    assert "pipeline_root" in json.loads(caught.value.body)["message"]


def test_command_line_run(server, packages, unique):
    made = server.run_cli(
        *("--output", "json", "run", "create", "-e", f"cli-{unique}", "-r", f"run-{unique}"),
        *("-f", str(packages["branch"]), "-w", "left=5"),
    )
    assert made.returncode == 0, made.stderr
    run, _ = json.JSONDecoder().raw_decode(made.stdout[made.stdout.index("{") :])
    assert "Run is finished with state SUCCEEDED" in made.stdout
    shown = server.run_cli("run", "get", run["run_id"])
    assert "SUCCEEDED" in shown.stdout, shown.stderr
    listed = server.run_cli("run", "list", "-e", run["experiment_id"])
    assert run["run_id"] in listed.stdout, listed.stderr
    refused = server.run_cli("run", "create", "-e", f"cli-{unique}", "-f", str(packages["branch"]), "lfet=1")
    assert refused.returncode != 0
    assert "'lfet' is not a parameter" in refused.stderr


def test_command_line_pipelines_and_experiments(server, packages, unique):
    made = server.run_cli("pipeline", "create", "-p", f"cli-{unique}", str(packages["branch"]))
    assert made.returncode == 0, made.stderr
    made = server.run_cli(
        *("pipeline", "create-version", "-n", f"cli-{unique}", "-v", "two", str(packages["failing"]))
    )
    assert made.returncode == 0, made.stderr
    listed = server.run_cli("pipeline", "list")
    assert f"cli-{unique}" in listed.stdout, listed.stderr
    listed = server.run_cli("experiment", "list")
    assert "Default" in listed.stdout, listed.stderr
