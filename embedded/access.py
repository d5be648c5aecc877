"""What clients need to reach the platform: the env file and the kubeconfig, only the owner may read them."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml
from dotenv import dotenv_values

from embedded.certificates import Certificates
from embedded.errors import EmbeddedError
from embedded.home import Home, write_private
from embedded.ports import LOOPBACK

BUCKET = "tenure"
NAMESPACE = "default"
TRACKING_USER = "tenure"


def make_variables(home: Home) -> dict[str, str]:
    """Return the settings of every client: ours (`TENURE_*`), then what other tools read by themselves."""
    ports, secrets = home.state.ports, home.secrets
    runs_url = f"http://{LOOPBACK}:{ports.runs}"
    runs_token = secrets.runs_token.get_secret_value()
    tracking_url = f"http://{LOOPBACK}:{ports.tracking}"
    tracking_password = secrets.tracking_password.get_secret_value()
    return {
        "TENURE_KUBECONFIG": str(home.kubeconfig),
        "TENURE_NAMESPACE": NAMESPACE,
        "TENURE_RUNS_URL": runs_url,
        "TENURE_RUNS_TOKEN": runs_token,
        "TENURE_S3_URL": f"http://{LOOPBACK}:{ports.s3}",
        "TENURE_S3_ACCESS_KEY": secrets.s3_access_key.get_secret_value(),
        "TENURE_S3_SECRET_KEY": secrets.s3_secret_key.get_secret_value(),
        "TENURE_S3_BUCKET": BUCKET,
        "TENURE_TRACKING_URL": tracking_url,
        "TENURE_TRACKING_USERNAME": TRACKING_USER,
        "TENURE_TRACKING_PASSWORD": tracking_password,
        "TENURE_LEDGER_URL": f"sqlite:///{home.ledger}",
        "TENURE_DETECTOR_URL": f"http://{LOOPBACK}:{ports.detector}",
        "TENURE_DETECTOR_TOKEN": secrets.detector_token.get_secret_value(),
        "TENURE_GATEWAY_URL": f"http://{LOOPBACK}:{ports.gateway}",
        "TENURE_GATEWAY_STATS_URL": f"http://{LOOPBACK}:{ports.envoy_admin}/stats/prometheus",
        "KUBECONFIG": str(home.kubeconfig),
        "KF_PIPELINES_ENDPOINT": runs_url,
        "KFP_ENDPOINT": runs_url,
        "KFP_EXISTING_TOKEN": runs_token,
        "MLFLOW_TRACKING_URI": tracking_url,
        "MLFLOW_TRACKING_USERNAME": TRACKING_USER,
        "MLFLOW_TRACKING_PASSWORD": tracking_password,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def write_env_file(home: Home) -> None:
    """Write the env file, unless it says the same already."""
    lines = ['# Written by `tenure up`. Secrets: do not share. In a shell: eval "$(python -m embedded env)"']
    for name, value in make_variables(home).items():
        if "\n" in value or "${" in value:
            raise EmbeddedError(
                f"{name} cannot be written to {home.env_file}: a line break or '${{' is in {value!r}; "
                "move the checkout or set TENURE_HOME"
            )
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"{name}='{escaped}'")
    _write_if_changed(home.env_file, "\n".join(lines) + "\n")


def read_env_file(home: Home) -> dict[str, str]:
    """Return the variables of the env file.

    Raises:
        EmbeddedError: `up` has not written it yet.
    """
    if not home.env_file.is_file():
        raise EmbeddedError(f"{home.env_file} is missing; run `tenure up`")
    values = dotenv_values(home.env_file, interpolate=False, encoding="utf-8")
    return {name: value for name, value in values.items() if value is not None}


def write_kubeconfig(home: Home, certificates: Certificates) -> None:
    """Write the kubeconfig, unless it says the same already."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "tenure",
                "cluster": {
                    "server": f"https://{LOOPBACK}:{home.state.ports.api}",
                    "certificate-authority-data": base64.b64encode(certificates.ca.read_bytes()).decode(),
                },
            }
        ],
        "users": [{"name": "tenure", "user": {"token": home.secrets.api_token.get_secret_value()}}],
        "contexts": [
            {"name": "tenure", "context": {"cluster": "tenure", "user": "tenure", "namespace": NAMESPACE}}
        ],
        "current-context": "tenure",
    }
    _write_if_changed(home.kubeconfig, yaml.safe_dump(document, sort_keys=False))


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_private(path, text)
