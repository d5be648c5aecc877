"""What the runs API tells of runs, pipeline versions and schedules, as plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

FINISHED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR"})
"""States that a run does not leave."""


@dataclass(frozen=True)
class PipelineVersion:
    """An uploaded pipeline: what runs and schedules are started from.

    Attributes:
        pipeline_id: The pipeline, a named series of versions.
        version_id: This version of it.
        name: The version's name; `Runs.upload` takes the first 12 digits of the package's SHA-256.
    """

    pipeline_id: str
    version_id: str
    name: str


@dataclass(frozen=True)
class Step:
    """One task of a run; times are UTC, None until known."""

    name: str
    state: str
    started: datetime | None = None
    finished: datetime | None = None
    error: str | None = None
    node: str | None = None
    """What the runs API calls the process or pod that ran it."""


@dataclass(frozen=True)
class Run:
    """A pipeline run as the runs API tells it."""

    id: str
    name: str
    state: str
    created: datetime | None = None
    finished: datetime | None = None
    steps: tuple[Step, ...] = ()
    error: str | None = None

    @property
    def done(self) -> bool:
        """Whether its state is final."""
        return self.state in FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether it ended well (a rejected challenger is a good end too)."""
        return self.state == "SUCCEEDED"


@dataclass(frozen=True)
class Schedule:
    """A recurring run.

    Attributes:
        id: Its id.
        name: What it is called, and what the names of its runs begin with.
        cron: Six fields: second, minute, hour, day of month, month, day of week (UTC); empty for an interval.
        interval_seconds: Seconds from one run to the next; None with `cron`.
        enabled: Whether it starts runs.
        version_id: The pipeline version that it starts; None for the newest one each time.
        arguments: Pipeline parameters by name.
        created: When it was made.
    """

    id: str
    name: str
    cron: str
    interval_seconds: int | None
    enabled: bool
    version_id: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    created: datetime | None = None


def read_run(run: Any) -> Run:
    """Read a V2beta1Run."""
    details = run.run_details.task_details if run.run_details else None
    steps = [_read_step(task) for task in details or () if _is_step(task)]
    steps.sort(key=lambda step: (step.started is None, step.started.timestamp() if step.started else 0.0))
    error = run.error.message if run.error else None
    if error is None:
        error = next((f"{step.name}: {step.error}" for step in steps if step.error), None)
    state = str(run.state or "PENDING").upper()
    return Run(
        id=str(run.run_id),
        name=str(run.display_name),
        state=state,
        created=run.created_at,
        finished=run.finished_at if state in FINISHED else None,
        steps=tuple(steps),
        error=error,
    )


def read_version(version: Any) -> PipelineVersion:
    """Read a V2beta1PipelineVersion."""
    return PipelineVersion(
        pipeline_id=str(version.pipeline_id),
        version_id=str(version.pipeline_version_id),
        name=str(version.display_name),
    )


def read_schedule(found: Any) -> Schedule:
    """Read a V2beta1RecurringRun."""
    cron = found.trigger.cron_schedule if found.trigger else None
    periodic = found.trigger.periodic_schedule if found.trigger else None
    reference = found.pipeline_version_reference
    return Schedule(
        id=str(found.recurring_run_id),
        name=str(found.display_name),
        cron=str(cron.cron) if cron else "",
        interval_seconds=int(periodic.interval_second) if periodic else None,
        enabled=str(found.status or found.mode).upper() in ("ENABLED", "ENABLE"),
        version_id=str(reference.pipeline_version_id)
        if reference and reference.pipeline_version_id
        else None,
        arguments=dict((found.runtime_config.parameters if found.runtime_config else None) or {}),
        created=found.created_at,
    )


def _is_step(task: Any) -> bool:
    """Leave out what a backend adds: the graph itself, its conditions, and the driver of each task."""
    name = str(task.display_name or "")
    return (
        bool(name) and name != "root" and not name.endswith("-driver") and not name.startswith("condition-")
    )


def _read_step(task: Any) -> Step:
    pods = [child.pod_name for child in task.child_tasks or () if child.pod_name]
    return Step(
        name=str(task.display_name),
        state=str(task.state or "PENDING").upper(),
        started=task.start_time,
        finished=task.end_time,
        error=task.error.message if task.error else None,
        node=task.pod_name or (pods[-1] if pods else None),
    )
