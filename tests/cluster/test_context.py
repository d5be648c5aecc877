"""`tenure --context` against a real API server: real tunnels, and what an account with few rights is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from clients.errors import NotFoundError, RefusedError
from clients.services import Services
from console.context import enter, open_settings
from console.errors import ConsoleError

STORE = "http://seaweedfs.kubeflow.svc:9000"
SETTINGS = {
    "TENURE_RUNS_URL": "http://nobody.kubeflow:8888",
    "TENURE_S3_URL": STORE,
    "TENURE_TRACKING_URL": "http://tenure-mlflow:5000",
    "TENURE_GATEWAY_URL": "http://gateway.example.com",
}


@pytest.fixture
def installed(cluster: Any, namespace: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace with the settings and the S3 Secret, and nothing that runs; returns the context's name."""
    for name in [name for name in os.environ if name.startswith("TENURE_") and "TEST" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    secret = {"accesskey": "a", "secretkey": "b"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tenure-settings"}, "data": SETTINGS},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tenure-s3"}, "stringData": secret},
        namespace=namespace,
    )
    return cluster.run("config", "current-context").stdout.strip()


@pytest.fixture
def clerk(
    cluster: Any, installed: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Become an account that may read the settings and InferenceServices; returns what grants it more."""

    def grant(resource: str, *verbs: str) -> None:
        words = ("--role", resource.replace("/", "-"), "--serviceaccount", f"{namespace}:clerk")
        role = ("create", "role", words[1], *(f"--verb={verb}" for verb in verbs), f"--resource={resource}")
        cluster.run("-n", namespace, *role)
        cluster.run("-n", namespace, "create", "rolebinding", words[1], *words)

    cluster.run("-n", namespace, "create", "serviceaccount", "clerk")
    grant("configmaps", "get")
    grant("inferenceservices.serving.kserve.io", "get", "list")
    document = yaml.safe_load(cluster.run("config", "view", "--raw", "--minify", "--flatten").stdout)
    token = cluster.run("-n", namespace, "create", "token", "clerk").stdout.strip()
    document["users"][0]["user"] = {"token": token}
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(file))
    return grant


def test_a_tunnel_leads_to_a_service_of_the_cluster(installed: str, namespace: str) -> None:
    with enter(installed, namespace):
        settings = open_settings("store")
        assert settings.s3_url.startswith("http://127.0.0.1:")
        answers = [httpx.get(settings.s3_url, trust_env=False).status_code for _ in range(20)]
        assert set(answers) <= {200, 403}
    with pytest.raises(httpx.TransportError):
        httpx.get(settings.s3_url, trust_env=False)


def test_a_service_that_is_missing_is_named(installed: str, namespace: str) -> None:
    with (
        enter(installed, namespace),
        pytest.raises(ConsoleError, match="no Service nobody in namespace kubeflow"),
    ):
        open_settings("runs")
    with enter(installed, namespace), pytest.raises(ConsoleError, match="no Service nobody"):
        open_settings("store", "runs")


def test_a_context_without_tenure_says_so(installed: str) -> None:
    with (
        enter(installed, "kube-public"),
        pytest.raises(ConsoleError, match="not installed in namespace kube-p"),
    ):
        open_settings()


def test_few_rights_are_enough_for_what_needs_few(clerk: Any, installed: str, namespace: str) -> None:
    with enter(installed, namespace):
        with pytest.raises(NotFoundError):
            Services.connect(open_settings()).inference.get("telco-churn")
        with pytest.raises(RefusedError, match=f"auth can-i get secrets -n {namespace}"):
            open_settings("store")
    clerk("secrets", "get")
    with enter(installed, namespace), pytest.raises(ConsoleError, match=r"(?i)no way to .*forbidden"):
        open_settings("store")
