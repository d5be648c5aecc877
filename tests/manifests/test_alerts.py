"""The alerts: what they say, and that each fires when its tests say so and at no other time."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monitoring_queries as queries
import pytest
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "manifests" / "monitoring"
ALERTS = Path(__file__).with_name("alerts.yaml")


def test_alerts_say_what_a_person_needs() -> None:
    page = (ROOT / "docs" / "observe.md").read_text()
    for name, rule in queries.read_alerts().items():
        assert name.startswith("Tenure")
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert set(rule["annotations"]) == {"summary", "description"}, name
        assert f"`{name}`" in page, f"docs/observe.md does not say what to do about {name}"
    mentioned = set(re.findall(r"`(Tenure[A-Za-z]+)`", page))
    assert mentioned == set(queries.read_alerts())


ALERT_TESTS: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["tests"]
ASKED = re.compile(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}')
FAILED = re.compile(r'expr: "ALERTS\{alertname=\\"(\w+)\\"')
COMPARISON = re.compile(r"([<>])\s*([0-9.]+)")
"""A threshold. What is equal to 0 or 1 is a state."""


def find_alerts(test: dict[str, Any]) -> set[str]:
    """Return the alerts that a test of alerts.yaml asks for."""
    found = set()
    for case in test["promql_expr_test"]:
        match = ASKED.fullmatch(case["expr"])
        assert match is not None, case["expr"]
        found.add(match[1])
    return found


def play(directory: Path, alerts: dict[str, Any]) -> set[str]:
    """Return the alerts whose tests fail, given their rules.

    Each test is played with its own rules alone: days pass quickly so.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool; on Debian and Ubuntu: apt install prometheus")
    files = []
    for number, test in enumerate(ALERT_TESTS):
        rules = [alerts[name] for name in sorted(find_alerts(test))]
        own = {"groups": [{"name": "tested", "rules": rules}]}
        (directory / f"rules-{number}.yaml").write_text(yaml.safe_dump(own))
        head = {"rule_files": [f"rules-{number}.yaml"], "evaluation_interval": "1m"}
        files.append(f"test-{number}.yaml")
        (directory / files[-1]).write_text(yaml.safe_dump({**head, "tests": [test]}))
    answer = subprocess.run(
        [promtool, "test", "rules", *files],
        cwd=directory, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    failed = set(FAILED.findall(answer.stdout + answer.stderr))
    assert bool(failed) is (answer.returncode != 0), answer.stdout + answer.stderr
    return failed


def change_threshold(rule: dict[str, Any], place: int, *, up: bool) -> dict[str, Any] | None:
    """Return the alert with one of its thresholds twice or half as large, None when it has not so many.

    Twice nothing is 2; half of nothing is that nothing itself suffices.
    """
    found = list(COMPARISON.finditer(rule["expr"]))
    if place >= len(found):
        return None
    match = found[place]
    sign, value = match[1], float(match[2])
    nothing = f"{sign} 2" if up else f"{sign}= 0"
    changed = f"{sign} {value * 2 if up else value / 2:.6g}" if value else nothing
    return {**rule, "expr": rule["expr"][: match.start()] + changed + rule["expr"][match.end() :]}


def change_patience(rule: dict[str, Any], factor: float) -> dict[str, Any] | None:
    """Return the alert with another `for`, None when it has none."""
    if "for" not in rule:
        return None
    minutes = float(rule["for"].removesuffix("m"))
    return {**rule, "for": f"{minutes * 60 * factor:.0f}s"}


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "first threshold doubled": lambda rule: change_threshold(rule, 0, up=True),
    "first threshold halved": lambda rule: change_threshold(rule, 0, up=False),
    "second threshold doubled": lambda rule: change_threshold(rule, 1, up=True),
    "second threshold halved": lambda rule: change_threshold(rule, 1, up=False),
    "for doubled": lambda rule: change_patience(rule, 2),
    "for halved": lambda rule: change_patience(rule, 0.5),
    "for removed": lambda rule: change_patience(rule, 0),
}


def test_every_alert_is_tested_both_ways() -> None:
    tested: dict[str, set[bool]] = {}
    for test in ALERT_TESTS:
        for case in test["promql_expr_test"]:
            match = ASKED.fullmatch(case["expr"])
            assert match is not None, case["expr"]
            tested.setdefault(match[1], set()).add(bool(case["exp_samples"]))
    assert tested == {name: {True, False} for name in queries.read_alerts()}


def test_alerts_fire_and_do_not(tmp_path: Path) -> None:
    assert play(tmp_path, queries.read_alerts()) == set()


def test_rules_are_what_prometheus_takes(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool; on Debian and Ubuntu: apt install prometheus")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(queries.read_rules()))
    answer = subprocess.run(
        [promtool, "check", "rules", "rules.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_no_alert_has_more_thresholds_than_are_changed() -> None:
    for name, rule in queries.read_alerts().items():
        assert len(COMPARISON.findall(rule["expr"])) <= 2, name


@pytest.mark.parametrize("change", CHANGES)
def test_tests_notice_another(change: str, tmp_path: Path) -> None:
    """Each alert's threshold and patience stand where its tests say: any other fails one of them."""
    alerts = queries.read_alerts()
    changed = {name: CHANGES[change](rule) for name, rule in alerts.items()}
    touched = {name for name, rule in changed.items() if rule is not None}
    assert touched
    failed = play(tmp_path, {name: changed[name] or rule for name, rule in alerts.items()})
    assert failed == touched, f"not noticed: {sorted(touched - failed)}"
