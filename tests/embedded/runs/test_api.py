"""What is refused, and how."""

from __future__ import annotations

import io
import tarfile
import zipfile

import httpx
import pytest
import yaml


def test_token_is_required(server):
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": f"Basic {server.token}"}):
        answer = httpx.get(f"{server.url}/apis/v2beta1/healthz", headers=headers, trust_env=False)
        assert answer.status_code == 401
        assert answer.json()["code"] == 16


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("evil.example.com", 403),
        ("127.0.0.1.evil.example.com", 403),
        ("10.0.0.1", 403),
    ],
)
def test_host_must_be_this_machine(server, host, status):
    answer = server.http.get("/apis/v2beta1/healthz", headers={"Host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("GET", "/", 404, "no such path"),
        ("GET", "/apis/v1beta1/runs", 404, "no such path"),
        ("GET", "/apis/v2beta1/runs/nobody", 404, "no run with the id 'nobody'"),
        ("POST", "/apis/v2beta1/runs/nobody:terminate", 404, "no run"),
        ("POST", "/apis/v2beta1/runs/nobody:dance", 405, "not with this method"),
        ("PUT", "/apis/v2beta1/runs", 405, "not with this method"),
        ("GET", "/apis/v2beta1/pipelines/nobody/versions", 404, "no pipeline"),
        ("GET", "/apis/v2beta1/pipelines/names/nobody", 404, "named 'nobody'"),
        ("POST", "/apis/v2beta1/pipelines/create", 501, "downloads no packages"),
        ("PATCH", "/apis/v2beta1/pipelines/x", 501, "upload a new version"),
        ("POST", "/apis/v2beta1/recurringruns/x:enable", 404, "no recurring run"),
        ("POST", "/apis/v2beta1/recurringruns", 400, "Invalid JSON"),
        ("GET", "/apis/v2beta1/visualizations/x", 501, "not done by the laptop"),
        ("POST", "/apis/v2beta1/runs", 400, "Invalid JSON"),
        ("POST", "/apis/v2beta1/pipelines/upload", 400, "uploadfile"),
        ("GET", "/apis/v2beta1/runs?page_size=-1", 400, "page_size"),
        ("GET", "/apis/v2beta1/runs?page_token=abc", 400, "page_token"),
        ("GET", "/apis/v2beta1/runs?sort_by=colour", 400, "cannot sort by 'colour'"),
        ("GET", "/apis/v2beta1/runs?filter=x", 400, "not JSON"),
        ("GET", "/apis/v2beta1/runs?experiment_id=x", 404, "no experiment"),
    ],
)
def test_errors_are_status_documents(server, method, path, status, word):
    answer = server.http.request(method, path)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert word in body["message"]
    assert body["message"] == body["error"] == body["details"][0]["message"]


def test_unknown_fields_are_named(server):
    body = {"display_name": "x", "pipeline_spec": {}, "colour": "red"}
    answer = server.http.post("/apis/v2beta1/runs", json=body)
    assert answer.status_code == 400
    assert "colour" in answer.json()["message"]


def test_camel_case_is_taken_too(server, unique):
    answer = server.http.post("/apis/v2beta1/experiments", json={"displayName": unique})
    assert answer.json()["display_name"] == unique
    answer = server.http.post("/apis/v2beta1/experiments", json={"displayName": unique})
    assert answer.status_code == 409


def test_a_large_body_is_refused(server):
    answer = server.http.post("/apis/v2beta1/runs", content=b" " * (34 * 1024 * 1024))
    assert answer.status_code == 413


def upload(server, name, data):
    files = {"uploadfile": ("pipeline", data)}
    return server.http.post("/apis/v2beta1/pipelines/upload", params={"name": name}, files=files)


def test_archives_are_packages(server, packages, unique):
    text = packages["branch"].read_bytes()
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("some.yaml", text)
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        entry = tarfile.TarInfo("pipeline.yaml")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    assert upload(server, f"zip-{unique}", zipped.getvalue()).status_code == 200
    assert upload(server, f"tar-{unique}", tarred.getvalue()).status_code == 200


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "holds no pipeline"),
        (b"{{{", "not readable as YAML"),
        (b"- 1", "holds no pipeline"),
        (b"a: 2024-01-01", "JSON cannot carry"),
        (b"a: &a [*a]", "JSON cannot carry"),
        (b"a: 1", "pipelineInfo"),
        (b"PK\x03\x04broken", "damaged"),
        (b"\x1f\x8bbroken", "damaged"),
        (b"!!python/object/apply:os.getcwd []", "not readable as YAML"),
    ],
)
def test_broken_packages_are_refused(server, unique, data, word):
    answer = upload(server, unique, data)
    assert answer.status_code == 400
    assert word in answer.json()["message"]


def change_container(spec):
    spec["deploymentSpec"]["executors"]["exec-add"]["container"] = {"image": "alpine", "command": ["echo"]}


def change_pip(spec):
    command = spec["deploymentSpec"]["executors"]["exec-add"]["container"]["command"]
    command[:0] = ["sh", "-c", 'python3 -m pip install --quiet kfp && "$0" "$@"']


def change_condition(spec):
    group = spec["root"]["dag"]["tasks"]["condition-branches-1"]
    group["triggerPolicy"] = {
        "condition": "inputs.parameter_values['pipelinechannel--decide-approved'] == true"
    }
    group["inputs"]["parameters"]["pipelinechannel--decide-approved"] = {
        "taskOutputParameter": {"outputParameterKey": "approved", "producerTask": "decide"}
    }


def change_dependency(spec):
    spec["root"]["dag"]["tasks"]["add"]["dependentTasks"] = ["decide"]


def change_reference(spec):
    spec["root"]["dag"]["tasks"]["add"]["componentRef"]["name"] = "comp-nobody"


def change_recursion(spec):
    tasks = spec["components"]["comp-condition-branches-1"]["dag"]["tasks"]
    next(iter(tasks.values()))["componentRef"]["name"] = "comp-condition-branches-1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_container, ["step 'add'", "container component"]),
        (change_pip, ["step 'add'", "install_kfp_package=False"]),
        (change_condition, ["'condition-branches-1'", "'approved' of 'decide'"]),
        (change_dependency, ["in a circle"]),
        (change_reference, ["task 'add'", "'comp-nobody'"]),
        (change_recursion, ["contains itself"]),
    ],
)
def test_what_the_local_runner_cannot_do_is_refused(server, packages, change, words):
    spec = yaml.safe_load(packages["branch"].read_text())
    change(spec)
    answer = server.http.post("/apis/v2beta1/runs", json={"display_name": "x", "pipeline_spec": spec})
    assert answer.status_code == 400, answer.text
    for word in words:
        assert word in answer.json()["message"]


def test_a_loop_that_would_get_wrong_values_is_refused(server, packages):
    spec = yaml.safe_load(packages["everything"].read_text())
    group = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    loop = next(task for name, task in group.items() if name.startswith("for-loop"))
    loop["inputs"]["parameters"]["pipelinechannel--flaky-Output"] = {
        "taskOutputParameter": {"outputParameterKey": "Output", "producerTask": "flaky"}
    }
    body = {
        "display_name": "x",
        "pipeline_spec": spec,
        "runtime_config": {"parameters": {"folder": "x"}},
    }
    answer = server.http.post("/apis/v2beta1/runs", json=body)
    assert answer.status_code == 400
    assert "the loop's item in place of" in answer.json()["message"]
