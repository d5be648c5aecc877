"""Records as the API's JSON documents (v2beta1, snake case as its gateway writes them)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from embedded.runs import graph
from embedded.runs.clock import write_time
from embedded.runs.graph import Step
from embedded.runs.progress import FINAL_STATES, PENDING, SKIPPED, Progress, StepRecord
from embedded.runs.records import Experiment, Pipeline, Recurring, Run, Version

_CODE_ABORTED = 10
_CODE_UNKNOWN = 2


def show_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return a V2beta1Experiment."""
    document = {
        "experiment_id": experiment.id,
        "display_name": experiment.display_name,
        "description": experiment.description,
        "created_at": experiment.created_at,
        "storage_state": experiment.storage_state,
    }
    if experiment.last_run_created_at is not None:
        document["last_run_created_at"] = experiment.last_run_created_at
    return document


def show_pipeline(pipeline: Pipeline) -> dict[str, Any]:
    """Return a V2beta1Pipeline."""
    return {
        "pipeline_id": pipeline.id,
        "display_name": pipeline.display_name,
        "name": pipeline.name,
        "description": pipeline.description,
        "created_at": pipeline.created_at,
        "tags": pipeline.tags,
    }


def show_version(version: Version) -> dict[str, Any]:
    """Return a V2beta1PipelineVersion."""
    return {
        "pipeline_id": version.pipeline_id,
        "pipeline_version_id": version.id,
        "display_name": version.display_name,
        "name": version.name,
        "description": version.description,
        "created_at": version.created_at,
        "code_source_url": version.code_source_url,
        "pipeline_spec": version.spec,
        "tags": version.tags,
    }


def show_recurring(recurring: Recurring) -> dict[str, Any]:
    """Return a V2beta1RecurringRun; 64-bit numbers are texts, as in Kubeflow's JSON."""
    schedule: dict[str, Any] = {
        name: write_time(time)
        for name, time in (("start_time", recurring.start_time), ("end_time", recurring.end_time))
        if time is not None
    }
    if recurring.cron:
        trigger = {"cron_schedule": {**schedule, "cron": recurring.cron}}
    else:
        trigger = {"periodic_schedule": {**schedule, "interval_second": str(recurring.interval)}}
    document: dict[str, Any] = {
        "recurring_run_id": recurring.id,
        "display_name": recurring.display_name,
        "description": recurring.description,
        "experiment_id": recurring.experiment_id,
        "runtime_config": {"parameters": recurring.parameters},
        "service_account": recurring.service_account,
        "max_concurrency": str(recurring.max_concurrency),
        "no_catchup": not recurring.catch_up,
        "trigger": trigger,
        "mode": "ENABLE" if recurring.enabled else "DISABLE",
        "status": "ENABLED" if recurring.enabled else "DISABLED",
        "created_at": recurring.created_at,
        "updated_at": recurring.updated_at,
    }
    if recurring.pipeline_id is not None:
        document["pipeline_version_reference"] = {
            "pipeline_id": recurring.pipeline_id,
            "pipeline_version_id": recurring.pipeline_version_id,
        }
    elif recurring.spec is not None:
        spec = recurring.spec
        document["pipeline_spec"] = spec if "platform_spec" in spec else spec["pipeline_spec"]
    if recurring.error is not None:
        document["error"] = {"code": _CODE_UNKNOWN, "message": recurring.error}
    return document


def show_run(run: Run) -> dict[str, Any]:
    """Return a V2beta1Run without its details, as in lists."""
    document: dict[str, Any] = {
        "run_id": run.id,
        "experiment_id": run.experiment_id,
        "display_name": run.display_name,
        "description": run.description,
        "storage_state": run.storage_state,
        "service_account": run.service_account,
        "created_at": run.created_at,
        "scheduled_at": run.scheduled_at,
        "state": run.state,
        "state_history": [_show_state(change.time, change.state, change.error) for change in run.history],
    }
    if run.pipeline_id is not None:
        document["pipeline_version_reference"] = {
            "pipeline_id": run.pipeline_id,
            "pipeline_version_id": run.pipeline_version_id,
        }
    if run.recurring_run_id is not None:
        document["recurring_run_id"] = run.recurring_run_id
    if run.finished_at is not None:
        document["finished_at"] = run.finished_at
    if run.error is not None:
        document["error"] = _show_error(run.error, run.state)
    return document


def show_run_details(
    run: Run, spec: dict[str, Any], parameters: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Return a V2beta1Run with its parameters and a task for each step, begun or not.

    Args:
        run: The run.
        spec: Its pipeline, {"pipeline_spec": the IR, "platform_spec"?: ...}.
        parameters: Those it was given.
        progress: What its executor reported.
    """
    document = show_run(run)
    if run.pipeline_id is None:
        document["pipeline_spec"] = spec if "platform_spec" in spec else spec["pipeline_spec"]
    document["runtime_config"] = {"parameters": parameters}
    steps = graph.list_steps(spec["pipeline_spec"])
    document["run_details"] = {"task_details": show_tasks(run, steps, progress)}
    return document


def show_tasks(run: Run, steps: Sequence[Step], progress: Progress) -> list[dict[str, Any]]:
    """Return V2beta1PipelineTaskDetails in the graph's order; a step in a loop once per iteration."""
    reported: defaultdict[graph.Path, list[graph.Path]] = defaultdict(list)
    for name in progress.steps:
        path = tuple(name.split("/"))
        reported[graph.canonical_path(path)].append(path)
    ended = {tuple(name.split("/")) for name in progress.ended_groups}
    tasks = []
    for step in steps:
        paths = (
            [step.path]
            if step.path in reported[step.path]
            else sorted(reported[step.path], key=graph.iteration_of)
        )
        for path in paths:
            label = step.name + "".join(f"[{number}]" for number in graph.iteration_of(path))
            tasks.append(_show_task(run, path, label, progress.steps["/".join(path)]))
        if not paths:
            over = run.state in FINAL_STATES or any(
                step.path[:length] in ended for length in range(1, len(step.path))
            )
            tasks.append(_show_waiting(run, step, SKIPPED if over else PENDING))
    return tasks


def _show_task(run: Run, path: graph.Path, label: str, record: StepRecord) -> dict[str, Any]:
    identity = graph.task_id(run.id, path)
    document: dict[str, Any] = {
        "run_id": run.id,
        "task_id": identity,
        # Where the API says `pod`, e.g. in the log's address, a step's id stands on the laptop.
        "pod_name": identity,
        "display_name": label,
        "create_time": run.created_at,
        "start_time": record.started,
        "state": record.state,
        "state_history": [
            _show_state(time, state, record.error if time == record.finished else None)
            for time, state in record.history
        ],
    }
    if record.finished is not None:
        document["end_time"] = record.finished
    if record.error is not None:
        document["error"] = _show_error(record.error, record.state)
    return document


def _show_waiting(run: Run, step: Step, state: str) -> dict[str, Any]:
    identity = graph.task_id(run.id, step.path)
    return {
        "run_id": run.id,
        "task_id": identity,
        "pod_name": identity,
        "display_name": step.name,
        "create_time": run.created_at,
        "state": state,
    }


def _show_state(time: str, state: str, error: str | None) -> dict[str, Any]:
    document: dict[str, Any] = {"update_time": time, "state": state}
    if error is not None:
        document["error"] = _show_error(error, state)
    return document


def _show_error(text: str, state: str) -> dict[str, Any]:
    return {"code": _CODE_ABORTED if state == "CANCELED" else _CODE_UNKNOWN, "message": text}
