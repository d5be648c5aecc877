"""Clients that nobody here wrote, against the whole platform, with the environment of `tenure env`."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import minio
import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton
import yaml

from clients import names
from clients.inference import DATATYPES, InferenceClient, build_request
from clients.split import read_shares
from tenure.snapshot import read_source
from tenure.validation import validate_frame

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("programs")
SECOND = "second-opinion"
DTYPES = {"BOOL": np.bool_, "INT64": np.int64, "FP64": np.float64, "BYTES": np.object_}
Wait = Callable[..., Any]


@pytest.fixture(scope="module")
def canary(platform: Any) -> str:
    """The name of a canary that is in front of a stable model."""
    return str(platform.ensure_canary())


@pytest.fixture(scope="module")
def customers(platform: Any) -> pd.DataFrame:
    """Forty customers without a missing value, in the contract's types."""
    contract = platform.project.contract
    frame = validate_frame(read_source(ROOT / "data" / "telco.csv", None, contract), contract).good
    return frame.dropna().head(40).reset_index(drop=True)


@pytest.fixture(scope="module")
def rows(platform: Any, customers: pd.DataFrame) -> list[dict[str, Any]]:
    features = [column.name for column in platform.project.contract.features]
    found: list[dict[str, Any]] = customers[features].to_dict("records")
    return found


@pytest.fixture(scope="module")
def expected(platform: Any, canary: str, rows: list[dict[str, Any]]) -> Any:
    """What the stable model says of them, through the gateway."""
    service = platform.project.rollout.service
    host = names.hostname(service, "default", platform.settings.ingress_domain)
    with InferenceClient(platform.settings.gateway_url, host) as client:
        return client.predict(service, rows, platform.project.contract, variant="stable")


def read_uris(service: dict[str, Any]) -> tuple[str, str]:
    """Return where the stable and the canary's bundle are stored."""
    (canary,) = service["spec"]["canary"]
    return service["spec"]["predictor"]["model"]["storageUri"], canary["predictor"]["model"]["storageUri"]


@pytest.fixture
def kubectl(platform: Any) -> Callable[..., str]:
    def run(*arguments: str, check: bool = True) -> str:
        answer = platform.run("kubectl", *arguments, check=check, timeout=120)
        return str(answer.stdout + answer.stderr)

    return run


def test_kubectl_shows_what_serves(platform: Any, canary: str, kubectl: Callable[..., str]) -> None:
    service = platform.project.rollout.service
    line = next(line for line in kubectl("get", "inferenceservices").splitlines() if service in line)
    assert {"True", "20%", canary} <= set(line.split())
    document = yaml.safe_load(kubectl("get", "isvc", service, "-o", "yaml"))
    assert document["spec"] == platform.read_service()["spec"]
    text = kubectl("describe", "inferenceservice", service)
    assert canary in text
    assert "PredictorReady" in text
    assert f"{service}-predictor=80" in kubectl("get", "httproutes")
    assert "tenure" in kubectl("get", "servingruntimes")


def test_kubectl_makes_changes_and_deletes_a_service(
    platform: Any, canary: str, kubectl: Callable[..., str], rows: Any, wait_for: Wait, tmp_path: Path
) -> None:
    service = platform.project.rollout.service
    document = yaml.safe_load(kubectl("get", "isvc", service, "-o", "yaml"))
    stable, other = read_uris(document)
    manifest = {key: document[key] for key in ("apiVersion", "kind")}
    manifest["metadata"] = {
        "name": SECOND,
        "labels": {names.PROJECT_LABEL: SECOND},
        "annotations": {names.DEPLOYMENT_MODE: "Standard"},
    }
    manifest["spec"] = {"predictor": {"minReplicas": 1, "model": document["spec"]["predictor"]["model"]}}
    file = tmp_path / "second.yaml"

    def apply() -> str:
        file.write_text(yaml.safe_dump(manifest), encoding="utf-8")
        return kubectl("apply", "-f", str(file))

    def ask(**headers: str) -> str:
        url = f"{platform.settings.gateway_url}/v2/models/{SECOND}/infer"
        body = build_request(rows[:3], platform.project.contract)
        answer = httpx.post(url, json=body, headers=headers, trust_env=False)
        return str(answer.json()["model_version"]) if answer.status_code == 200 else answer.text

    def read_weights() -> dict[str, int]:
        return read_shares(json.loads(kubectl("get", "httproute", names.route_name(SECOND), "-o", "json")))

    try:
        assert "created" in apply()
        kubectl("wait", "isvc", SECOND, "--for=condition=Ready", "--timeout=90s")
        version = names.digest_of(stable)[:12]
        wait_for(lambda: ask() == version, 30, "an answer through the gateway")

        entry = dict(document["spec"]["canary"][0]["predictor"], name="green")
        manifest["spec"]["canary"] = [{"predictor": entry, "trafficPercent": 30}]
        assert "configured" in apply()
        weights = {f"{SECOND}-predictor": 70, f"{SECOND}-green-predictor": 30}
        wait_for(lambda: read_weights() == weights, 60, "the canary's share")
        assert ask(**{names.VARIANT_HEADER: "green"}) == names.digest_of(other)[:12]
        patch = '[{"op": "replace", "path": "/spec/canary/0/trafficPercent", "value": 55}]'
        kubectl("patch", "isvc", SECOND, "--type", "json", "-p", patch)
        wait_for(lambda: read_weights()[f"{SECOND}-green-predictor"] == 55, 30, "the new share")
        patch = json.dumps({"spec": {"canary": None}})
        kubectl("patch", "isvc", SECOND, "--type", "merge", "-p", patch)
        wait_for(lambda: read_weights() == {f"{SECOND}-predictor": 100}, 30, "the canary's end")
        manifest["spec"]["predictor"]["tolerations"] = []
        file.write_text(yaml.safe_dump(manifest), encoding="utf-8")
        assert "spec.predictor.tolerations" in kubectl("apply", "-f", str(file), check=False)
    finally:
        kubectl("delete", "isvc", SECOND, "--ignore-not-found")
    kubectl("wait", "isvc", SECOND, "--for=delete", "--timeout=60s")
    wait_for(lambda: SECOND not in kubectl("get", "httproutes"), 20, "the route's end")
    wait_for(lambda: SECOND not in platform.tenure("status", "--json").stdout, 30, "the processes' end")


def test_kserve_sdk_makes_a_service(platform: Any, canary: str, wait_for: Wait) -> None:
    script = str(PROGRAMS / "kserve_service.py")
    uris = read_uris(platform.read_service())
    answer = platform.run(sys.executable, "-W", "ignore", script, "by-sdk", *uris, timeout=150)
    seen = json.loads(answer.stdout[answer.stdout.rindex('{"ready"') :])
    assert seen["ready"]["Ready"] == "True"
    assert "by-sdk" in seen["url"]
    assert seen["percent"] == 40
    wait_for(lambda: platform.services.inference.find("by-sdk") is None, 60, "the deletion")
    wait_for(lambda: platform.services.routes.find(names.route_name("by-sdk")) is None, 20, "the route's end")


def test_kfp_command_line_runs_the_pipeline(platform: Any, canary: str) -> None:
    # kfp's command line reads every argument as JSON: a text that is JSON is written as a JSON string.
    project = json.dumps(platform.project.model_dump_json())
    arguments = ("-f", "pipelines/training.yaml", "-e", "by-hand", "-r", "by-hand", "-t", "300")
    parameters = (f"project={project}", f"source={ROOT / 'data' / 'telco.csv'}", "reason=by hand")
    before = platform.read_service()["spec"]
    platform.run("kfp", "--output", "json", "run", "create", *arguments, *parameters)
    listed = json.loads(platform.run("kfp", "--output", "json", "run", "list").stdout)
    run_id = next(run["run_id"] for run in listed if run["display_name"] == "by-hand")
    assert "SUCCEEDED" in platform.run("kfp", "run", "get", run_id).stdout
    run = platform.run("kfp", "--output", "json", "run", "get", "--detail", run_id).stdout
    assert '"rollout"' in run
    assert "by-hand" in platform.run("kfp", "experiment", "list").stdout
    assert platform.read_service()["spec"] == before


def test_tritonclient_http(platform: Any, rows: Any, expected: Any) -> None:
    service, contract = platform.project.rollout.service, platform.project.contract
    address = urlsplit(platform.settings.gateway_url).netloc
    inputs = []
    for column in contract.features:
        datatype = DATATYPES[column.type]
        values = np.array([row[column.name] for row in rows], dtype=DTYPES[datatype])
        inputs.append(triton.InferInput(column.name, [len(rows)], datatype))
        inputs[-1].set_data_from_numpy(values)
    headers = {names.VARIANT_HEADER: "stable"}
    with triton.InferenceServerClient(address) as client:
        assert client.is_model_ready(service)
        metadata = client.get_model_metadata(service, headers=headers)
        assert metadata["versions"] == [expected.version]
        result = client.infer(service, inputs, headers=headers)
    assert result.get_response()["model_version"] == expected.version
    assert result.as_numpy("churn_probability").tolist() == expected.probabilities
    assert result.as_numpy("churn").tolist() == expected.churn


def test_tritonclient_grpc(platform: Any, rows: Any, expected: Any) -> None:
    service, contract = platform.project.rollout.service, platform.project.contract
    tensors = {
        column.name: (DATATYPES[column.type], [row[column.name] for row in rows])
        for column in contract.features
    }
    address = urlsplit(platform.settings.gateway_url).netloc
    host = names.hostname(service, "default", platform.settings.ingress_domain)
    script = PROGRAMS / "triton_grpc.py"
    answer = json.loads(
        platform.run(sys.executable, str(script), address, host, service, stdin=json.dumps(tensors)).stdout
    )
    assert answer["ready"]
    assert answer["version"] == expected.version
    assert answer["churn_probability"] == expected.probabilities
    assert answer["churn"] == expected.churn


def test_mlflow_loads_the_champion(
    platform: Any, customers: pd.DataFrame, expected: Any, tmp_path: Path
) -> None:
    file = tmp_path / "customers.parquet"
    customers.to_parquet(file)
    script = str(PROGRAMS / "mlflow_champion.py")
    model = f"models:/{platform.project.name}@champion"
    answer = json.loads(platform.run(sys.executable, "-W", "ignore", script, model, str(file)).stdout)
    assert list(answer) == customers["customer_id"].tolist()
    assert [score for score, _ in answer.values()] == expected.probabilities
    assert [churn for _, churn in answer.values()] == expected.churn


def test_minio_client_reads_the_snapshots(platform: Any, canary: str) -> None:
    settings = platform.settings
    client = minio.Minio(
        urlsplit(settings.s3_url).netloc,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=False,
    )
    for alias in ("champion", "challenger"):
        version = platform.tracking.find_alias(platform.project.name, alias)
        digest = version.tags["tenure.snapshot"]
        answer = client.get_object(settings.s3_bucket, f"snapshots/{digest}.parquet")
        try:
            content = answer.read()
        finally:
            answer.close()
            answer.release_conn()
        assert hashlib.sha256(content).hexdigest() == digest
        snapshot = pd.read_parquet(io.BytesIO(content))
        assert len(snapshot) in (4200, 7043)
        assert snapshot["customer_id"].is_unique
        bundle = client.get_object(settings.s3_bucket, f"bundles/{version.digest}/manifest.json")
        try:
            assert hashlib.sha256(bundle.read()).hexdigest() == version.digest
        finally:
            bundle.close()
            bundle.release_conn()
