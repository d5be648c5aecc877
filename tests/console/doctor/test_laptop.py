from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from console.doctor import machine
from console.doctor.finding import Finding, Group, Mark, examine
from console.doctor.laptop import BEFORE_KIND, LAPTOP
from console.doctor.machine import Machine, Process, Tool
from console.doctor.observation import Answer

GIB = 2**30


def make_machine(**changes: Any) -> Machine:
    """Return a machine on which all is well."""
    service = Process(name="store", kind="service", ready=True, state="running")
    values: dict[str, Any] = {
        "python": (3, 11, 7),
        "home": "/home/ada/.tenure",
        "exists": True,
        "processes": [service, Process(name="model-telco", kind="model", ready=True, state="running")],
        "free": 50 * GIB,
        "memory": 8 * GIB,
        "inotify": (8192, 524288),
        "tools": {
            "docker": Tool(path="/usr/bin/docker", version="28.0.1"),
            "kind": Tool(path="/usr/bin/kind", version="0.33.0"),
            "kubectl": Tool(path="/usr/bin/kubectl", version="1.34.1"),
        },
        "docker": {"MemTotal": 16 * GIB, "NCPU": 8},
        "room": 50 * GIB,
        "answers": {name: Answer(good=True, text="fine") for name in ("store", "tracking", "ledger", "runs")},
    }
    return Machine(**{**values, **changes})


def find(groups: Iterable[Group[Machine]], seen: Machine, *marks: Mark) -> list[Finding]:
    return [
        finding
        for section in examine(groups, seen)
        for finding in section.findings
        if finding.mark in (marks or (Mark.BAD,))
    ]


def test_nothing_is_wrong_with_a_healthy_machine() -> None:
    every = (Mark.BAD, Mark.WARNING, Mark.UNKNOWN)
    assert find(LAPTOP, make_machine(), *every) == []
    assert find(BEFORE_KIND, make_machine(), *every) == []


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"python": (3, 13, 0)}, "python", "3.13"),
        ({"free": GIB // 2}, "disk", "only 0.5 GiB"),
        ({"exists": False, "processes": None}, "state", "no platform"),
        ({"processes": None, "problem": "written by another version"}, "state", "another version"),
        ({"ahead": 3600.0}, "clock", "3600 s from the future"),
        (
            {
                "processes": [
                    Process(name="a", kind="service", ready=False, state="stopped", problem="not running")
                ]
            },
            "processes",
            "does not run",
        ),
        ({"answers": {"store": Answer(good=False, text="AccessDenied")}}, "store", "AccessDenied"),
        ({"answers": {"runs": Answer(good=False, text="the token is refused")}}, "runs", "token"),
        ({"answers": {"model telco": Answer(good=False, text="(503)")}}, "models", "telco"),
    ],
)
def test_what_is_wrong_with_the_platform_is_told(changes: dict[str, Any], check: str, words: str) -> None:
    found = find(LAPTOP, make_machine(**changes))
    assert [one.check for one in found] == [check]
    assert words in found[0].text
    assert found[0].fix


def test_one_process_among_others_is_named() -> None:
    down = Process(name="pilot", kind="service", ready=False, state="backoff", problem="exits at once")
    up = Process(name="store", kind="service", ready=True, state="running")
    (found,) = find(LAPTOP, make_machine(processes=[up, down]))
    assert "pilot (service): exits at once" in found.text
    assert found.fix is not None
    assert "tenure logs pilot" in found.fix


def test_variables_of_another_platform_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("TENURE_S3_URL='http://here:1'\nTENURE_RUNS_URL='http://here:2'\n")
    monkeypatch.delenv("TENURE_ENV_FILE", raising=False)
    monkeypatch.setenv("TENURE_HOME", str(tmp_path))
    monkeypatch.setenv("TENURE_S3_URL", "http://elsewhere:1")
    monkeypatch.setenv("TENURE_RUNS_URL", "http://here:2")
    seen = machine.observe()
    assert seen.overrides == ["TENURE_S3_URL"]
    assert not seen.exists
    (found,) = find(LAPTOP, make_machine(overrides=seen.overrides), Mark.WARNING)
    assert "TENURE_S3_URL" in found.text


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"tools": {"kind": Tool()}}, "kind", "not there"),
        ({"tools": {"kubectl": Tool(path="/kubectl", version="1.20.0")}}, "kubectl", "older than 1.32"),
        (
            {"tools": {"docker": Tool(path="/docker", problem="Cannot connect to the Docker daemon")}},
            "docker",
            "Cannot connect",
        ),
        ({"docker": {"MemTotal": 4 * GIB, "NCPU": 4}}, "docker-memory", "4.0 GiB"),
        ({"room": 5 * GIB}, "disk", "5.0 GiB"),
        ({"port_free": False}, "port", "8880"),
        ({"inotify": (128, 8192)}, "inotify", "instances 128"),
    ],
)
def test_what_keeps_kind_from_running_is_told(changes: dict[str, Any], check: str, words: str) -> None:
    found = find(BEFORE_KIND, make_machine(**changes))
    assert [one.check for one in found] == [check]
    assert words in found[0].text
    assert found[0].fix
