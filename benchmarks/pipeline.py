"""What the pipeline costs: the same search, fits and judgement as a pipeline run and as one plain script.

Both train on all of data/telco.csv with the settings of projects/telco.yaml. The script calls the domain's
functions one after the other in a new interpreter, imports included. The pipeline is submitted to the laptop
platform, and adds processes, artifacts, MLflow, the store and the rollout of the model. The first run starts
without a cached step; the second finds `validate` and `tune` cached.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from _laptop import start_platform

from clients.runs import Runs
from console.training import PIPELINE
from tenure.project import load_project

ROOT = Path(__file__).resolve().parents[1]

SCRIPT = """
import sys, tempfile
from pathlib import Path
from tenure.bundle import load_bundle, write_bundle
from tenure.evaluation import evaluate
from tenure.featuriser import encode_labels
from tenure.gate import decide
from tenure.partition import Part, assign_parts
from tenure.project import load_project
from tenure.scorer import Scorer
from tenure.snapshot import read_source
from tenure.training import train
from tenure.validation import validate_frame

project = load_project(sys.argv[1])
frame = validate_frame(read_source(Path(project.source.uri), None, project.contract), project.contract).good
parts = assign_parts(frame, project.contract, project.split, project.name)
trained, held_out = frame[parts == Part.TRAIN], frame[parts == Part.HELD_OUT]
folder = Path(tempfile.mkdtemp()) / "bundle"
write_bundle(folder, train(trained, project), project=project, snapshot="0" * 64, code_version="benchmark")
bundle = load_bundle(folder)
scores = Scorer(bundle).score_matrix(bundle.featuriser.transform_frame(held_out))
report = evaluate(held_out, trained, scores, bundle.threshold, None, project)
assert decide(report, project.gate).approved
"""


def time_script(project: Path) -> float:
    """Return the seconds of the plain script in a new interpreter."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT, str(project)], check=True, cwd=ROOT)
    return time.perf_counter() - started


def time_run(runs: Runs, project: Path) -> tuple[float, dict[str, float]]:
    """Return the seconds of a pipeline run from its submission to its end, and of each step."""
    plan = load_project(project)
    started = time.perf_counter()
    run_id = runs.start(runs.upload(PIPELINE), {"project": plan.model_dump_json()}, "benchmark", plan.name)
    run = runs.wait(run_id, 900)
    seconds = time.perf_counter() - started
    if not run.succeeded:
        raise SystemExit(f"the run ended {run.state}: {run.error}")
    steps = {
        step.name: (step.finished - step.started).total_seconds()
        for step in run.steps
        if step.started and step.finished
    }
    return seconds, steps


def main() -> None:
    """Run script, pipeline, script, cached pipeline, and print seconds and ratios."""
    project = ROOT / "projects" / "telco.yaml"
    with start_platform() as settings:
        runs = Runs.connect(settings)
        before = time_script(project)
        fresh, steps = time_run(runs, project)
        after = time_script(project)
        cached, _ = time_run(runs, project)
    script = (before + after) / 2
    print(f"plain script            {script:6.1f} s  (twice: {before:.1f} and {after:.1f})")
    print(f"pipeline, nothing cached{fresh:6.1f} s  {fresh / script:.2f} x the script")
    print(f"pipeline, tune cached   {cached:6.1f} s  {cached / script:.2f} x the script")
    print("steps: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.items()))


if __name__ == "__main__":
    main()
