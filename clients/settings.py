"""The five addresses and their credentials, from the environment (`TENURE_*`) or the laptop's env file."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from clients.errors import SettingsError


class Settings(BaseSettings):
    """What differs between a laptop and a cluster, and nothing else does.

    Variables of the environment win over the env file that `tenure up` writes (`.tenure/env`, `env` in
    `TENURE_HOME`, or whatever `TENURE_ENV_FILE` names).
    """

    # A key of a ConfigMap that a site leaves empty is a setting that it does not have.
    model_config = SettingsConfigDict(
        env_prefix="TENURE_", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore"
    )

    kubeconfig: Path | None = Field(
        default=None, description="Kubernetes API with InferenceServices; by default the pod's own account."
    )
    kube_context: str | None = Field(
        default=None, description="Context of the kubeconfig; by default its current one."
    )
    namespace: str = Field(default="default", description="Namespace of the InferenceServices.")
    runs_url: str = Field(description="Kubeflow Pipelines API, e.g. http://ml-pipeline.kubeflow:8888.")
    runs_token: SecretStr | None = Field(default=None, description="Bearer token for the pipelines API.")
    runs_token_file: Path | None = Field(
        default=None,
        description="A file with that token, read anew as it rotates: a projected account token.",
    )
    runs_namespace: str | None = Field(
        default=None, description="Namespace of the runs, where Kubeflow Pipelines has several users."
    )
    runs_account: str | None = Field(
        default=None, description="Account that the pods of a run get; by default the backend's own choice."
    )
    components_image: str | None = Field(
        default=None,
        description="Image of the pipeline's steps, best by digest; by default the pipeline's own.",
    )
    s3_url: str = Field(description="Object store, e.g. http://seaweedfs.kubeflow:9000.")
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_bucket: str = Field(default="tenure", description="Bucket of snapshots and bundles.")
    tracking_url: str = Field(description="MLflow server.")
    tracking_username: str | None = Field(default=None, description="Who logs in there.")
    tracking_password: SecretStr | None = None
    ledger_url: SecretStr | None = Field(default=None, description="SQLAlchemy URL of the ledger.")
    detector_url: str | None = Field(
        default=None, description="Where events, labels and transitions go, e.g. http://detector:8080."
    )
    detector_token: SecretStr | None = Field(
        default=None, description="Bearer token of what is posted there; by default it asks for none."
    )
    notify_urls: SecretStr | None = Field(
        default=None, description="Whom to tell of alarms: Apprise URLs, separated by spaces."
    )
    gateway_stats_url: str | None = Field(
        default=None, description="Envoy's statistics, e.g. http://127.0.0.1:9901/stats/prometheus."
    )
    gateway: str = Field(
        default="kserve/kserve-ingress-gateway",
        pattern=r"^[a-z0-9-]+/[a-z0-9.-]+$",
        description="The Gateway that customers' requests pass, as NAMESPACE/NAME.",
    )
    model_account: str | None = Field(
        default=None, description="ServiceAccount of the model servers; by default the namespace's."
    )
    gateway_url: str = Field(description="Where customers' requests enter, e.g. http://127.0.0.1:8080.")
    ingress_domain: str = Field(
        default="tenure.example.com", description="Services answer as NAME-NAMESPACE.DOMAIN at the gateway."
    )


def find_env_file() -> Path:
    """Return the env file that settings are read from, whether it exists or not."""
    named = os.environ.get("TENURE_ENV_FILE")
    return Path(named) if named else Path(os.environ.get("TENURE_HOME") or ".tenure") / "env"


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Read the settings once per process.

    Raises:
        SettingsError: Naming each missing or wrong variable.
    """
    file = find_env_file()
    try:
        return Settings(_env_file=file if file.is_file() else None)
    except ValidationError as error:
        names = ", ".join(
            f"TENURE_{'_'.join(map(str, problem['loc'])).upper()}" for problem in error.errors()
        )
        raise SettingsError(
            f"these settings are missing or wrong: {names}. On a laptop run `tenure up` first "
            f"(it writes {file}); elsewhere set them in the environment."
        ) from error
