from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import typer

from console import platform


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `tenure status --json` over processes that are made up; returns what it prints."""
    monkeypatch.setattr(platform, "_list_services", lambda: ["a service"])
    monkeypatch.setattr(platform, "_list_runs", lambda: ["a run"])

    def run(*processes: tuple[str, bool]) -> dict[str, Any]:
        rows = [{"name": kind, "kind": kind, "ready": ready} for kind, ready in processes]
        code = 0 if all(ready for _, ready in processes) else 3
        answer = subprocess.CompletedProcess([], code, json.dumps({"services": rows}))
        monkeypatch.setattr(platform, "call_platform", lambda *arguments, capture: answer)
        platform.status(as_json=True)
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return run


def test_a_model_server_that_starts_or_stops_is_no_failure(show: Any) -> None:
    document = show(("service", True), ("model", False))
    assert document["services"] == ["a service"]
    assert document["runs"] == ["a run"]


def test_a_service_that_does_not_run_is_one(show: Any) -> None:
    with pytest.raises(typer.Exit) as caught:
        show(("service", False), ("model", True))
    assert caught.value.exit_code == 4
