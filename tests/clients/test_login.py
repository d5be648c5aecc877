"""MLflow behind a login."""

from __future__ import annotations

import base64
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from clients.errors import RefusedError
from clients.settings import Settings
from clients.tracking import Tracking

_spec = importlib.util.spec_from_file_location("kubeflow_api", Path(__file__).with_name("kubeflow_api.py"))
assert _spec is not None
assert _spec.loader is not None
api = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = api
_spec.loader.exec_module(api)

LOOKUP = "GET", "/api/2.0/mlflow/experiments/get-by-name"
PASSWORD = "p4ss:wörd"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    # MLflow reads them from the environment, where `connect` puts them: put back what was there.
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "of somebody else")
    return Settings(
        _env_file=None,
        runs_url="http://127.0.0.1:9",
        s3_url="http://127.0.0.1:9",
        s3_access_key=SecretStr("a"),
        s3_secret_key=SecretStr("b"),
        tracking_url="http://127.0.0.1:9",
        tracking_username="tenure",
        tracking_password=SecretStr(PASSWORD),
        gateway_url="http://127.0.0.1:9",
    )


def test_the_settings_login_is_used(settings: Settings) -> None:
    experiment: dict[str, Any] = {"experiment_id": "7", "name": "telco", "lifecycle_stage": "active"}
    with api.play() as server:
        server.answers[LOOKUP] = 200, {"experiment": experiment}
        tracking = Tracking.connect(settings.model_copy(update={"tracking_url": server.url}))
        assert tracking.find_experiment("telco") == "7"
        (call,) = server.calls
    assert call.token is not None
    kind, _, encoded = call.token.partition(" ")
    assert (kind, base64.b64decode(encoded).decode()) == ("Basic", f"tenure:{PASSWORD}")


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (401, "You are not authenticated. Please see https://www.mlflow.org/docs/latest/auth for more."),
        (403, "Permission denied"),
    ],
)
def test_a_refused_login_names_its_settings_and_not_the_password(
    settings: Settings, status: int, document: str
) -> None:
    with api.play() as server:
        server.answers[LOOKUP] = status, document
        tracking = Tracking.connect(settings.model_copy(update={"tracking_url": server.url}))
        with pytest.raises(RefusedError, match="TENURE_TRACKING_USERNAME") as caught:
            tracking.find_experiment("telco")
    assert PASSWORD not in str(caught.value)
