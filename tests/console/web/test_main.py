"""`python -m console.web` as a process, and its settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients.settings import Settings
from console.web.__main__ import choose_links
from console.web.settings import ConsoleSettings
from embedded.ports import find_free_port

ROOT = Path(__file__).parents[3]
ADDRESSES = {
    "TENURE_RUNS_URL": "http://127.0.0.1:9",
    "TENURE_S3_URL": "http://127.0.0.1:9",
    "TENURE_S3_ACCESS_KEY": "a",
    "TENURE_S3_SECRET_KEY": "hunter2",
    "TENURE_TRACKING_URL": "http://127.0.0.1:9",
    "TENURE_GATEWAY_URL": "http://127.0.0.1:9",
}


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Start the page's process; it is ended with the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    processes = []

    def start(**variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "console.web"],
            cwd=ROOT,
            env={**kept, "TENURE_HOME": str(tmp_path), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=20)


def test_it_serves_where_nothing_else_is_up_and_ends_when_told(start: Any, wait: Any) -> None:
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    process = start(**ADDRESSES, TENURE_CONSOLE_PORT=str(port))

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            assert process.poll() is None, process.communicate()
            return False

    wait(answers)
    page = httpx.get(url, trust_env=False, timeout=30)
    assert page.status_code == 200
    assert "Not everything can be read" in page.text
    assert "hunter2" not in page.text
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ("TENURE_RUNS_URL", "tenure up")),
        ({**ADDRESSES, "TENURE_CONSOLE_PORT": "high"}, ("TENURE_CONSOLE_PORT",)),
        ({**ADDRESSES, "TENURE_CONSOLE_GRAFANA_URL": "javascript:alert(1)"}, ("TENURE_CONSOLE_GRAFANA_URL",)),
    ],
)
def test_wrong_settings_are_named(start: Any, variables: dict[str, str], words: tuple[str, ...]) -> None:
    process = start(**variables)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_names_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_CONSOLE_HOSTS", "Console.example.com, tenure-console ,")
    assert ConsoleSettings().hosts == ("console.example.com", "tenure-console")


@pytest.mark.parametrize(
    ("tracking", "own", "expected"),
    [
        ("http://127.0.0.1:5000", None, "http://127.0.0.1:5000"),
        ("http://tenure-mlflow:5000", None, None),
        ("http://tenure-mlflow:5000", "https://mlflow.example.com/", "https://mlflow.example.com"),
    ],
)
def test_only_pages_that_a_browser_reaches_are_linked(
    store_settings: Settings, tracking: str, own: str | None, expected: str | None
) -> None:
    settings = store_settings.model_copy(update={"tracking_url": tracking})
    links = choose_links(ConsoleSettings.model_validate({"mlflow_url": own}), settings)
    assert links.mlflow == expected
    assert (links.kubeflow, links.grafana) == (None, None)
