"""The training pipeline: compiled as committed, both branches of the gate, caching."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clients.services import Collection
from clients.settings import Settings
from clients.store import Store
from clients.tracking import CHALLENGER, CHAMPION, Tracking
from tenure.project import Metric, Project

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pipelines.training import IMAGE, PACKAGE, compile_training

STEPS = ("ingest", "validate", "tune", "evaluate", "gate", "rollout")


def test_committed_package_is_what_the_code_compiles_to(tmp_path: Path) -> None:
    compiled = compile_training(tmp_path / "training.yaml")
    assert compiled.read_bytes() == PACKAGE.read_bytes(), "run `python -m pipelines.training` and commit"


def read_tasks() -> dict[str, Any]:
    """Return every task of the package by name, those inside the condition too."""
    document, _ = yaml.safe_load_all(PACKAGE.read_text())
    tasks = dict(document["root"]["dag"]["tasks"])
    return tasks | document["components"]["comp-condition-1"]["dag"]["tasks"]


def test_only_validate_and_tune_are_cached() -> None:
    cached = {
        name: bool(task["cachingOptions"].get("enableCache"))
        for name, task in read_tasks().items()
        if name in STEPS
    }
    assert cached == {name: name in ("validate", "tune") for name in STEPS}
    for name in ("validate", "tune"):
        assert {"project", "digest", "code_version"} <= set(read_tasks()[name]["inputs"]["parameters"])


def test_steps_install_nothing_and_take_the_image_of_the_run() -> None:
    document, _ = yaml.safe_load_all(PACKAGE.read_text())
    assert document["root"]["inputDefinitions"]["parameters"]["image"]["defaultValue"] == IMAGE
    executors = document["deploymentSpec"]["executors"]
    assert len(executors) == len(STEPS)
    for executor in executors.values():
        assert "pip install" not in json.dumps(executor)
        assert executor["container"]["image"] == "{{$.inputs.parameters['pipelinechannel--image']}}"


@dataclass
class Local:
    """Runs the committed package with kfp.local."""

    directory: Path
    count: int = 0

    def run(self, project: Project, source: str, environment: dict[str, str] | None = None) -> Path:
        self.count += 1
        root = self.directory / f"root-{self.count}"
        parameters = {"project": project.model_dump_json(), "source": source, "reason": "test"}
        script = Path(__file__).with_name("run_locally.py")
        command = [sys.executable, str(script), str(PACKAGE), str(root), str(self.directory / "cache")]
        done = subprocess.run(
            [*command, json.dumps(parameters)],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output[-6000:]
        return next(path for path in root.iterdir() if path.is_dir())

    def steps(self, run: Path) -> set[str]:
        """Return the steps that left an output, cached ones aside."""
        return {path.parent.name for path in run.glob("*/executor_output.json")}


@pytest.fixture
def local(tmp_path: Path, settings: Settings) -> Local:
    return Local(tmp_path)


@pytest.mark.timeout(900)
def test_both_branches_and_the_cache(
    local: Local,
    services: Collection,
    tracking: Tracking,
    store: Store,
    make: Any,
    part: Any,
    tmp_path: Path,
) -> None:
    project = make()
    source = part(tmp_path / "part.csv", 5000)

    run = local.run(project, source)
    assert local.steps(run) == set(STEPS)
    snapshot = json.loads((run / "ingest" / "executor_output.json").read_text())
    metadata = snapshot["artifacts"]["snapshot"]["artifacts"][0]["metadata"]
    assert metadata["rows"] == 5000
    assert store.exists(metadata["stored_at"])
    roc = json.loads((run / "evaluate" / "executor_output.json").read_text())["artifacts"]["roc"]
    assert 10 < len(roc["artifacts"][0]["metadata"]["confidenceMetrics"]) <= 100
    assert "# Approved" in (run / "gate" / "decision").read_text()
    assert "# Stable" in (run / "rollout" / "rollout").read_text()
    champion = tracking.find_alias(project.name, CHAMPION)
    assert champion is not None
    assert champion.tags["tenure.reason"] == "test"
    stable = services.get(project.rollout.service)["spec"]
    assert stable["predictor"]["model"]["storageUri"] == champion.uri

    # The same again: the model comes from the cache, the rest looks anew.
    run = local.run(project, source)
    assert local.steps(run) == set(STEPS) - {"validate", "tune"}
    assert "stable model already" in (run / "rollout" / "rollout").read_text()

    # More customers, but a gate that nobody passes: a good end without a roll-out.
    gate = project.gate.model_copy(update={"floors": {Metric.ROC_AUC: 0.99}})
    run = local.run(project.model_copy(update={"gate": gate}), "")
    assert local.steps(run) == set(STEPS) - {"rollout"}
    assert "# Rejected" in (run / "gate" / "decision").read_text()
    assert services.get(project.rollout.service)["spec"] == stable
    assert tracking.find_alias(project.name, CHALLENGER) is None

    # Other code: nothing of the old code's results is taken.
    run = local.run(project, source, {"TENURE_CODE_VERSION": "edited"})
    assert local.steps(run) == set(STEPS)
    challenger = tracking.find_alias(project.name, CHALLENGER)
    assert challenger is not None
    assert challenger.digest != champion.digest
    assert "# Canary" in (run / "rollout" / "rollout").read_text()


def test_failing_step_ends_the_run_with_its_cause(local: Local, make: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_bytes(b"")
    with pytest.raises(AssertionError, match="the file is empty"):
        local.run(make(), str(path))
