"""The two demonstrations, from nothing to their last line, on the shared platform."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def demonstration_file(platform: Any) -> Iterator[Path]:
    """The shared project, with few trials as it is; nothing is left of the demonstration's service."""
    yield platform.project_file
    platform.reset()


@pytest.mark.timeout(900)
def test_demo_comes_from_a_price_rise_to_a_better_model(platform: Any, demonstration_file: Path) -> None:
    answer = platform.run(
        "tenure", "demo", "--anew", check=False, timeout=850, TENURE_PROJECT=str(demonstration_file)
    )
    assert answer.returncode == 0, f"{answer.stdout}\n{answer.stderr[-6000:]}"
    assert "drift since" in answer.stderr
    found = re.findall(r"^(before|during|after) +(\w{12}) +(\d+) +\d+% +(\S+) ", answer.stdout, re.MULTILINE)
    champion, retrained = found[0][1], found[-1][1]
    areas = {(phase, version): float(area) for phase, version, _, area in found if area != "–"}
    during = {version: area for (phase, version), area in areas.items() if phase == "during"}
    assert min(during.values()) < 0.75, answer.stdout
    assert areas["after", retrained] > 0.8, answer.stdout
    assert retrained != champion
    assert re.search(r" 0 failed", answer.stdout)


@pytest.mark.timeout(600)
def test_a_harmful_canary_is_taken_back(platform: Any, demonstration_file: Path) -> None:
    answer = platform.run(
        "tenure", "demo-rollback", "--anew", check=False, timeout=550, TENURE_PROJECT=str(demonstration_file)
    )
    assert answer.returncode == 0, f"{answer.stdout}\n{answer.stderr[-6000:]}"
    assert "rolled back" in answer.stdout
    assert "monthly_charges" in answer.stdout
    assert re.search(r"[1-9]\d* of \d+ customers met a refusal, afterwards 0 of \d+", answer.stdout)
