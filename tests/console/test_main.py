from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tenure(tmp_path):
    """Run the command as a person does, in an empty folder where nothing runs."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TENURE_")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "console.main", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_help_names_every_command_and_the_exit_codes(tenure):
    answer = tenure("--help")
    assert answer.returncode == 0
    for word in ("up", "down", "status", "run", "predict", "rollout", "logs", "project", "Exit codes"):
        assert word in answer.stdout


def test_check_accepts_the_project_that_comes_with_it(tenure):
    answer = tenure("project", "check", str(ROOT / "projects" / "telco.yaml"))
    assert answer.returncode == 0, answer.stderr
    assert "19 features" in answer.stdout


def test_check_prints_json_for_machines(tenure):
    answer = tenure("project", "check", str(ROOT / "projects" / "telco.yaml"), "--json")
    assert json.loads(answer.stdout)["name"] == "telco-churn"


def test_check_names_file_path_and_what_is_allowed(tenure, tmp_path):
    text = (ROOT / "projects" / "telco.yaml").read_text(encoding="utf-8")
    file = tmp_path / "wrong.yaml"
    file.write_text(
        text.replace("objective: roc_auc", "objective: accuracy").replace("folds: 5", "fold: 5"),
        encoding="utf-8",
    )
    answer = tenure("project", "check", str(file))
    assert answer.returncode == 3
    assert "wrong.yaml" in answer.stderr
    assert "training.objective" in answer.stderr
    assert "average_precision" in answer.stderr
    assert "training.fold" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("run", "-p", "{root}/projects/telco.yaml"),
        ("rollout", "status", "-p", "{root}/projects/telco.yaml"),
    ],
)
def test_without_a_platform_the_exit_code_is_4_and_the_way_out_is_told(tenure, arguments):
    answer = tenure(*(argument.format(root=ROOT) for argument in arguments))
    assert answer.returncode == 4, answer.stderr
    assert "tenure up" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_wrong_usage_is_exit_code_2(tenure):
    assert tenure("predcit").returncode == 2
