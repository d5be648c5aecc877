"""`tenure schedule` against the laptop platform's real server of pipeline runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from embedded.access import write_env_file
from embedded.home import Home

ROOT = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tenure(tmp_path: Path) -> Iterator[Command]:
    """Run the command as a person does, where only the runs API is up."""
    home = Home.open(tmp_path / "home", create=True)
    write_env_file(home)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TENURE_")}
    environment["TENURE_HOME"] = str(home.path)
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded.runs"], stdout=output, stderr=subprocess.STDOUT, env=environment
        )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "console.main", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    url = f"http://127.0.0.1:{home.state.ports.runs}/apis/v2beta1/healthz"
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            httpx.get(url, trust_env=False)
        except httpx.TransportError:
            continue
        break
    yield run
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def test_a_schedule_is_added_shown_and_removed(tenure: Command) -> None:
    source = "ledger://telco?days=30"
    added = tenure("schedule", "add", "0 0 3 * * *", "--source", source, "--json")
    assert added.returncode == 0, added.stderr
    again = tenure("schedule", "add", "0 0 4 * * *")
    assert again.returncode == 5
    assert "tenure schedule remove telco-churn" in again.stderr
    wrong = tenure("schedule", "add", "0 3 * * *", "--name", "nightly")
    assert wrong.returncode == 5
    assert "six are needed" in wrong.stderr
    (shown,) = json.loads(tenure("schedule", "list", "--json").stdout)
    assert shown == json.loads(added.stdout)
    expected = {"name": "telco-churn", "when": "0 0 3 * * *", "enabled": True, "source": source}
    assert expected.items() <= shown.items()
    assert "0 0 3 * * *" in tenure("schedule", "list").stdout
    assert tenure("schedule", "remove", "telco-churn").returncode == 0
    assert json.loads(tenure("schedule", "list", "--json").stdout) == []
    missing = tenure("schedule", "remove", "telco-churn")
    assert missing.returncode == 3
    assert "Traceback" not in missing.stderr
