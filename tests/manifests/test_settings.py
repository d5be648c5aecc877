"""What containers get from their environment: settings that exist, and Secrets by reference only."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from clients.names import events_url
from clients.settings import Settings
from console.web.settings import ConsoleSettings
from serving.detector.settings import Settings as DetectorSettings
from serving.pilot.settings import PilotSettings
from serving.predictor.settings import VARIABLES, parse_settings

ROOT = Path(__file__).parents[2]
SECRETS = {
    "tenure-s3": {"accesskey", "secretkey"},
    "tenure-tracking": {"username", "password", "flask-secret-key"},
    "tenure-detector": {"token"},
    "tenure-databases": {
        "ledger-url",
        "ledger-reader-url",
        "ledger-password",
        "ledger-reader-password",
        "mlflow-password",
    },
    "tenure-notifications": {"urls"},
}
"""Every Secret that the manifests refer to, and its keys. `make up` makes all but the last."""

OF_MLFLOW = {"TENURE_S3_REGION"}
"""Settings that only MLflow's pod reads: our own clients ask the store where it is."""

OWN = {"tenure-detector": DetectorSettings, "tenure-pilot": Settings, "tenure-console": Settings}
SAMPLES = {
    "urls": "json://example.com",
    "ledger-url": "postgresql://l@d/l",
    "ledger-reader-url": "postgresql://r@d/l",
}


def list_variables(*classes: type[BaseSettings]) -> set[str]:
    """Return the variables that fill the classes' fields."""
    return {
        f"{one.model_config['env_prefix']}{field}".upper() for one in classes for field in one.model_fields
    }


def read_environment(rendered: Any, container: dict[str, Any]) -> dict[str, str]:
    """Return what a container's process finds, with made-up values of Secrets."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= rendered.get("ConfigMap", source["configMapRef"]["name"])["data"]
    for one in container.get("env", ()):
        if "value" in one:
            found[one["name"]] = one["value"]
        elif "fieldRef" in one["valueFrom"]:
            assert one["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
            found[one["name"]] = "tenure"
        elif "secretKeyRef" in one["valueFrom"]:
            key = one["valueFrom"]["secretKeyRef"]["key"]
            found[one["name"]] = SAMPLES.get(key, f"a-{key}")
        else:
            reference = one["valueFrom"]["configMapKeyRef"]
            found[one["name"]] = rendered.get("ConfigMap", reference["name"])["data"][reference["key"]]
    return found


def test_variables_exist(rendered: Any) -> None:
    known = list_variables(Settings, DetectorSettings, PilotSettings, ConsoleSettings)
    known |= {f"TENURE_{variable}" for variable in VARIABLES}
    for name, container in rendered.containers():
        own = {one for one in read_environment(rendered, container) if one.startswith("TENURE_")}
        assert own <= known | OF_MLFLOW, f"{name}: {own - known}"


def test_the_predictor_logs_what_the_agent_does_not_see(rendered: Any) -> None:
    (container,) = rendered.get("ServingRuntime", "tenure")["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    settings = parse_settings([], {**environment, "TENURE_MODEL_NAME": "churn"})
    assert settings.logger_scope == "direct"
    # KServe fills both in, from the InferenceService.
    detector = rendered.get("ConfigMap", "tenure-settings")["data"]["TENURE_DETECTOR_URL"]
    url = events_url(detector, "{{.Name}}", "{version}")
    assert settings.logger_url == url.replace(".tenure.svc", ".{{.Namespace}}.svc")


def test_all_of_it_in_another_namespace(render_directory: Any, tmp_path: Path) -> None:
    """By the kustomization that docs/decisions/manifests.md shows nothing is left in ours."""
    page = (ROOT / "docs" / "decisions" / "manifests.md").read_text(encoding="utf-8")
    match = re.search(r"```yaml\n(.+?)```", page, re.S)
    assert match is not None
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    (tmp_path / "kustomization.yaml").write_text(match[1], encoding="utf-8")
    documents = render_directory(tmp_path)
    assert {one["metadata"].get("namespace") for one in documents} == {"churn", None}
    assert "churn" in [one["metadata"]["name"] for one in documents if one["kind"] == "Namespace"]
    text = yaml.safe_dump_all(documents)
    assert "tenure.svc" not in text
    settings = [one["data"] for one in documents if one["metadata"]["name"] == "tenure-settings"]
    assert [one["TENURE_NAMESPACE"] for one in settings] == ["churn"]
    for one in documents:
        for subject in one.get("subjects", ()):
            assert subject["namespace"] == ("kubeflow" if subject["name"] == "tenure-pipeline" else "churn")


def test_settings_are_of_every_client(rendered: Any) -> None:
    keys = set(rendered.get("ConfigMap", "tenure-settings")["data"])
    assert keys <= list_variables(Settings) | OF_MLFLOW


@pytest.mark.parametrize("name", OWN)
def test_programs_would_start(rendered: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = rendered.get("Deployment", name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for variable in [one for one in os.environ if one.startswith("TENURE_")]:
        monkeypatch.delenv(variable)
    for variable, value in read_environment(rendered, container).items():
        monkeypatch.setenv(variable, value)
    settings = OWN[name](_env_file=None)
    assert settings.namespace == "tenure"
    assert settings.ledger_url is not None
    assert settings.model_account == "tenure-predictor"
    rendered.get("ServiceAccount", settings.model_account)
    if name == "tenure-pilot":
        assert PilotSettings().port == 8080


def test_addresses_are_services_of_ours(rendered: Any) -> None:
    data = rendered.get("ConfigMap", "tenure-settings")["data"]
    for variable, value in data.items():
        matched = re.fullmatch(r"http://(tenure-[a-z-]+)\.([a-z-]+)\.svc(?::(\d+))?(/.*)?", value)
        if matched is None:
            assert "tenure-" not in value or not value.startswith("http"), f"{variable}: {value}"
            continue
        service = rendered.get("Service", matched[1], matched[2])
        assert int(matched[3] or 80) in {port["port"] for port in service["spec"]["ports"]}


def test_only_the_detector_writes_the_ledger(rendered: Any) -> None:
    for name, container in rendered.containers():
        for one in container.get("env", ()):
            if one["name"] == "TENURE_LEDGER_URL":
                key = one["valueFrom"]["secretKeyRef"]["key"]
                assert key == ("ledger-url" if name.startswith("tenure-detector/") else "ledger-reader-url")


def test_secrets_are_references(rendered: Any) -> None:
    assert not rendered.list("Secret")
    used: dict[str, set[str]] = {}
    for name, container in rendered.containers():
        for one in container.get("env", ()):
            reference = one.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                used.setdefault(reference["name"], set()).add(reference["key"])
            elif re.search(r"PASSWORD|SECRET|TOKEN|_KEY$", one["name"]):
                value = one["value"]
                assert value.startswith("/"), f"{name}: {one['name']} is no path of a file"
    for _, template in rendered.pods():
        for volume in template["spec"].get("volumes", ()):
            if "secret" in volume:
                keys = {item["key"] for item in volume["secret"]["items"]}
                used.setdefault(volume["secret"]["secretName"], set()).update(keys)
    for name, keys in used.items():
        assert keys <= SECRETS[name], f"{name}: {keys - SECRETS[name]}"
    if rendered.overlay == "kind":
        assert used == SECRETS


def test_nothing_that_looks_like_a_password(rendered: Any) -> None:
    text = yaml.safe_dump_all(rendered.documents)
    assert not re.search(r"://[^/\s:@]+:[^/\s@$]+@", text), "an address with a password"
    assert not re.search(r"(?<!@sha256:)\b[0-9a-f]{32,}\b", text), "a long hexadecimal number"


def test_model_servers_have_the_key_of_readers(rendered: Any) -> None:
    account = rendered.get("ServiceAccount", "tenure-predictor")
    assert account["secrets"] == [{"name": "tenure-s3"}]


def test_settings_are_found_by_name(rendered: Any) -> None:
    names = [one["metadata"]["name"] for one in rendered.list("ConfigMap", "tenure")]
    assert "tenure-settings" in names  # no hash behind it: runs and `tenure --context` ask for it
