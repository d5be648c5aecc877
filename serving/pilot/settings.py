"""Where the pilot itself listens."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class PilotSettings(BaseSettings):
    """`TENURE_PILOT_*`; the addresses of everything else are in `clients.settings`."""

    model_config = SettingsConfigDict(env_prefix="TENURE_PILOT_", extra="ignore")

    host: str = Field(default="127.0.0.1", description="Where health and metrics are served.")
    port: int | None = Field(default=None, ge=0, le=65535, description="Its port; without one nothing is.")
