"""Where the page is served, under which names, and which other pages it points to."""

from __future__ import annotations

from typing import Annotated

from pydantic import AnyHttpUrl, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class ConsoleSettings(BaseSettings):
    """`TENURE_CONSOLE_*`; the addresses of everything that it reads are in `clients.settings`."""

    model_config = SettingsConfigDict(env_prefix="TENURE_CONSOLE_", env_ignore_empty=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="Address to listen at; 0.0.0.0 in a pod.")
    port: int = Field(default=8080, ge=0, le=65535, description="Its port; 0 for any free one.")
    hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names by which browsers may call it, separated by commas, besides localhost and IP "
        "addresses. Any other name is refused: it may be a stranger's that points here.",
    )
    kubeflow_url: AnyHttpUrl | None = Field(
        default=None, description="Kubeflow Pipelines' page, as a browser reaches it."
    )
    mlflow_url: AnyHttpUrl | None = Field(default=None, description="MLflow's page, as a browser reaches it.")
    grafana_url: AnyHttpUrl | None = Field(
        default=None, description="Grafana's page, as a browser reaches it."
    )

    @field_validator("hosts", mode="before")
    @classmethod
    def split_hosts(cls, value: object) -> object:
        """Take a text apart at its commas."""
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value
