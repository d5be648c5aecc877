"""The training pipeline: from a source of customers to a canary.

`python -m pipelines.training` compiles it to `training.yaml` beside this file, which is committed: what is
submitted is that file. Every step is one call into `components`, so nothing is installed when it starts.

What may be cached, and under which key: `validate` and `tune` by project, snapshot digest and code version
(an edited package is another version). `ingest` looks at the source every time; `evaluate`, `gate` and
`rollout` depend on who serves now.
"""

# No `from __future__ import annotations` here: kfp reads the annotations as objects.
from pathlib import Path
from typing import NamedTuple

from kfp import compiler, dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from pipelines.pod import LEDGER, NOTIFICATIONS, TRACKING, Pod, fit_pod

IMAGE = "tenure-components:0.1.0"
"""Image of all steps unless a run says otherwise."""

PODS = {
    "ingest": Pod("100m", "2", "512Mi", "4Gi", seconds=1800, secrets=(LEDGER,)),
    "validate": Pod("100m", "2", "512Mi", "4Gi", seconds=1800),
    "tune": Pod("500m", "4", "1Gi", "8Gi", seconds=4 * 3600, secrets=(TRACKING,)),
    "evaluate": Pod("200m", "2", "1Gi", "8Gi", seconds=3600, secrets=(TRACKING,)),
    "gate": Pod("100m", "1", "256Mi", "1Gi", seconds=600, secrets=(TRACKING, NOTIFICATIONS)),
    # It may wait for an hour (`rollout.ready_timeout_seconds`), and takes back what it cannot prove.
    "rollout": Pod("100m", "1", "512Mi", "2Gi", seconds=2 * 3600, retries=1, secrets=(TRACKING,)),
}
"""What each step gets on a cluster."""

PACKAGE = Path(__file__).with_suffix(".yaml")
"""The compiled pipeline."""


def ingest(
    project: str,
    source: str,
    snapshot: Output[Dataset],
) -> NamedTuple("Ingested", digest=str, code_version=str):  # type: ignore[valid-type]
    """Read the customers and store them as an immutable snapshot."""
    from components import ingest
    from components.attempt import attempt

    with attempt():
        found = ingest.run(project, source, snapshot.path)
    snapshot.metadata["rows"] = found.rows
    snapshot.metadata["digest"] = found.digest
    snapshot.metadata["stored_at"] = found.uri
    snapshot.metadata["time"] = found.time.isoformat()
    return found.digest, found.code_version


def validate(
    project: str,
    digest: str,
    code_version: str,
    rows: Output[Dataset],
    bad_rows: Output[Dataset],
    profile: Output[HTML],
    counts: Output[Metrics],
) -> None:
    """Check the snapshot against the contract and set bad rows aside."""
    from components import validate
    from components.attempt import attempt

    with attempt():
        found = validate.run(
            project, digest, code_version, rows.path, bad_rows.path, profile.path, counts.path
        )
    for name, value in found.items():
        counts.log_metric(name, value)


def tune(
    project: str, rows: Input[Dataset], digest: str, code_version: str, bundle: Output[Model]
) -> NamedTuple("Tuned", run_id=str):  # type: ignore[valid-type]
    """Search for a model on the training part and write it as a bundle."""
    from components import tune
    from components.attempt import attempt

    with attempt():
        name, run_id = tune.run(project, rows.path, digest, code_version, bundle.path)
    bundle.metadata["digest"] = name
    return (run_id,)


def evaluate(
    project: str,
    rows: Input[Dataset],
    bundle: Input[Model],
    run_id: str,
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    roc: Output[ClassificationMetrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
) -> None:
    """Judge the bundle on the held-out customers, beside the champion and two baselines."""
    from components import evaluate
    from components.attempt import attempt

    with attempt():
        found = evaluate.run(project, rows.path, bundle.path, run_id, evaluation.path, report.path)
    for name, value in found.metrics.items():
        metrics.log_metric(name, value)
    roc.log_roc_curve(*found.roc)
    confusion.log_confusion_matrix(["stays", "leaves"], found.confusion)


def gate(project: str, evaluation: Input[Artifact], run_id: str, decision: Output[Markdown]) -> bool:
    """Decide whether the challenger may meet customers."""
    from components import gate
    from components.attempt import attempt

    with attempt():
        return gate.run(project, evaluation.path, run_id, decision.path)


def rollout(project: str, bundle: Input[Model], run_id: str, reason: str, rollout: Output[Markdown]) -> None:
    """Make the bundle the stable model, or a canary in front of it."""
    from components import rollout as component
    from components.attempt import attempt

    with attempt():
        component.run(project, bundle.path, run_id, rollout.path, reason)


_component = dsl.component(base_image=IMAGE, install_kfp_package=False)
_ingest, _validate, _tune, _evaluate, _gate, _rollout = (
    _component(function) for function in (ingest, validate, tune, evaluate, gate, rollout)
)


def training(project: str, source: str = "", image: str = IMAGE, reason: str = "manual") -> None:
    """Train a churn model, judge it on held-out customers, and roll it out if the gate approves.

    Args:
        project: The project as JSON (`tenure.project.Project`).
        source: A path or s3:// address that stands in for the project's own source.
        image: Image of all steps, best by digest.
        reason: Why this run was started; it is kept with the registered version.
    """
    ingested = _ingest(project=project, source=source)
    ingested.set_caching_options(False)
    digest, code_version = ingested.outputs["digest"], ingested.outputs["code_version"]
    validated = _validate(project=project, digest=digest, code_version=code_version)
    rows = validated.outputs["rows"]
    tuned = _tune(project=project, rows=rows, digest=digest, code_version=code_version)
    bundle, run_id = tuned.outputs["bundle"], tuned.outputs["run_id"]
    evaluated = _evaluate(project=project, rows=rows, bundle=bundle, run_id=run_id)
    evaluated.set_caching_options(False)
    decided = _gate(project=project, evaluation=evaluated.outputs["evaluation"], run_id=run_id)
    decided.set_caching_options(False)
    # The bool is the component's return value: an If on a named output would be skipped without a word.
    with dsl.If(decided.outputs["Output"] == True):  # noqa: E712 - builds a condition
        rolled_out = _rollout(project=project, bundle=bundle, run_id=run_id, reason=reason)
        rolled_out.set_caching_options(False)
    for task in (ingested, validated, tuned, evaluated, decided, rolled_out):
        task.set_container_image(image)
        fit_pod(task, PODS[task.name])


training_pipeline = dsl.pipeline(name="tenure-training")(training)


def compile_training(path: Path = PACKAGE) -> Path:
    """Write the compiled pipeline to `path` and return it; the same code gives the same bytes."""
    compiler.Compiler().compile(training_pipeline, str(path))
    return path


if __name__ == "__main__":
    compile_training()
