"""What the tests of MLflow share."""

from __future__ import annotations

from uuid import uuid4

import pytest

from clients.settings import Settings
from clients.tracking import Tracking


@pytest.fixture(scope="module")
def tracking(tracking_settings: Settings) -> Tracking:
    return Tracking.connect(tracking_settings)


@pytest.fixture
def project() -> str:
    return f"project-{uuid4().hex[:8]}"
