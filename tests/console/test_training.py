from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.runs import Run, Step
from console.training import make_arguments, read_rejection
from tenure.project import load_project

LOG = """\
[KFP Executor 2026-01-01 10:00:00,000 INFO]: Got executor_input:
[KFP Executor 2026-01-01 10:00:01,000 INFO]: passed champion: 0.84 is not worse than 0.84
[KFP Executor 2026-01-01 10:00:01,001 INFO]: FAILED floor:roc_auc: 0.84 is below 0.99
[KFP Executor 2026-01-01 10:00:01,002 INFO]: FAILED slice: contract=Two year lost 0.2
"""


@dataclass
class Runs:
    def log(self, run_id: str, step: str) -> str:
        assert (run_id, step) == ("r", "gate")
        return LOG


def make_run(state: str, **steps: str) -> Run:
    return Run("r", "run", state, steps=tuple(Step(name, found) for name, found in steps.items()))


@pytest.mark.parametrize("steps", [{"rollout": "SKIPPED"}, {}])
def test_a_rejection_is_read_from_the_gates_log(steps: dict[str, str]) -> None:
    runs: Any = Runs()
    assert read_rejection(runs, make_run("SUCCEEDED", gate="SUCCEEDED", **steps)) == [
        "floor:roc_auc: 0.84 is below 0.99",
        "slice: contract=Two year lost 0.2",
    ]


def test_other_runs_are_no_rejection() -> None:
    runs: Any = Runs()
    assert read_rejection(runs, make_run("SUCCEEDED", gate="SUCCEEDED", rollout="SUCCEEDED")) == []
    assert read_rejection(runs, make_run("FAILED", tune="FAILED", gate="PENDING", rollout="SKIPPED")) == []
    assert read_rejection(runs, make_run("SUCCEEDED", other="SUCCEEDED")) == []


def test_a_run_is_told_the_image_of_its_steps() -> None:
    project = load_project(Path(__file__).parents[2] / "projects" / "telco.yaml")
    pinned = make_arguments(project, "s3://b/c.csv", "why", "registry.example.com/steps@sha256:0")
    assert pinned["image"] == "registry.example.com/steps@sha256:0"
    assert "image" not in make_arguments(project, "s3://b/c.csv", "why")
