"""Settings of the detector: those of every client, and its own, from the environment or the env file."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from clients.errors import SettingsError
from clients.settings import Settings as ClientSettings

_MEBIBYTE = 1024 * 1024


class Settings(ClientSettings):
    """How one detector runs; each field is the variable TENURE_ with its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="TENURE_", env_file_encoding="utf-8", extra="ignore")

    ledger_url: SecretStr = Field(description="SQLAlchemy URL of the ledger, SQLite or PostgreSQL.")
    detector_host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a pod must; the laptop sets TENURE_DETECTOR_HOST
        description="Address to listen on.",
    )
    detector_port: int = Field(default=8080, ge=1, le=65_535, description="Port to listen on.")
    open_events: bool = Field(
        default=False,
        description="Take events without TENURE_DETECTOR_TOKEN, which KServe's agent cannot send.",
    )
    id_tensor: str = Field(
        default="customer_id",
        min_length=1,
        description="Tensor (V2) or key (V1) with the customer's id.",
    )
    queue_items: int = Field(
        default=20_000,
        ge=1,
        description="Most events and labels that may wait; more get a 503.",
    )
    queue_bytes: int = Field(
        default=128 * _MEBIBYTE, ge=1024, description="Most bytes of bodies that are read or wait."
    )
    max_body_bytes: int = Field(default=32 * _MEBIBYTE, ge=1024, description="Longest body of one request.")
    grace_seconds: int = Field(
        default=15, ge=0, le=3600, description="How long requests in flight may take after SIGTERM."
    )
    retention_days: int = Field(
        default=400, ge=1, description="Age at which exported rows are deleted from the ledger."
    )
    dead_letter_days: int = Field(default=14, ge=1, description="Age at which dead letters are deleted.")
    export_minutes: int = Field(default=60, ge=1, description="Minutes between exports to the object store.")
    pairing_minutes: int = Field(
        default=10, ge=1, description="How long a request waits for its response before it counts as lost."
    )

    @model_validator(mode="after")
    def _fit_bodies(self) -> Self:
        if self.queue_bytes < self.max_body_bytes:
            raise ValueError("queue_bytes is less than max_body_bytes: the longest body would never fit")
        return self


def read_settings(file: Path) -> Settings:
    """Read the settings from the environment and, if it exists, from the env file.

    Raises:
        SettingsError: Naming each missing or wrong variable.
    """
    try:
        return Settings(_env_file=file if file.is_file() else None)
    except ValidationError as error:
        problems = "; ".join(
            f"TENURE_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SettingsError(
            f"the detector's settings are missing or wrong: {problems}. On a laptop run `tenure up` first "
            f"(it writes {file}); elsewhere set them in the environment."
        ) from error
