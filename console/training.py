"""`tenure run`: submit the training pipeline and follow it step by step."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clients.runs import Run, Runs
from console import display
from console.context import open_settings
from console.errors import FAILED, ConsoleError
from console.options import DEFAULT_PROJECT, Json, ProjectFile
from console.source import place_source
from tenure.project import Project, load_project

PIPELINE = Path(__file__).resolve().parent.parent / "pipelines" / "training.yaml"
"""The compiled pipeline that comes with this package."""

_LOG_LINES = 30
_FAILED_RULE = re.compile(r"\]: FAILED (.+)$", re.MULTILINE)
"""How the gate's log tells a rule that was not kept."""

_QUIET = ("PENDING", "RUNTIME_STATE_UNSPECIFIED")


def run(
    project: ProjectFile = DEFAULT_PROJECT,
    source: Annotated[
        str, typer.Option(help="Read the customers from here instead (a path or s3://bucket/key).")
    ] = "",
    name: Annotated[str, typer.Option(help="What the run is called.")] = "",
    reason: Annotated[str, typer.Option(help="Why it is run; kept with the run.")] = "asked for by a person",
    pipeline: Annotated[Path, typer.Option(help="The compiled pipeline.", dir_okay=False)] = PIPELINE,
    follow: Annotated[bool, typer.Option(help="Wait and show each step.")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to follow at most.")] = 3600,
    as_json: Json = False,
) -> None:
    """Train, judge, and roll out if the gate approves: one run of the pipeline.

    A rejected challenger is a successful run: the exit code is 0 and the gate's reasons are shown here, in
    MLflow and in the run. It is 1 when a step fails; the stable model then serves on untouched.
    """
    plan = load_project(project)
    source = place_source(plan, source)
    runs = Runs.connect(open_settings("runs"))
    run_id = submit(runs, plan, source=source, name=name, reason=reason, pipeline=pipeline)
    if not follow:
        if as_json:
            display.print_json({"id": run_id})
        else:
            display.out.print(run_id)
        return
    finished = follow_run(runs, run_id, timeout=timeout)
    reasons = read_rejection(runs, finished)
    if as_json:
        display.print_json({**describe_run(finished), "rejected": reasons})
    elif reasons:
        display.out.print(Text("the gate said no, so nothing was rolled out:", "bold"))
        for reason in reasons:
            display.out.print(Text("  ✗ ", "red") + Text(reason))
    check_run(runs, finished)


def submit(
    runs: Runs, project: Project, *, source: str, name: str, reason: str, pipeline: Path = PIPELINE
) -> str:
    """Upload the training pipeline unless it is the newest there, start a run of it, return its id."""
    arguments = make_arguments(project, source, reason, runs.image)
    title = name or f"{project.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    return runs.start(runs.upload(pipeline), arguments, title, project.name)


def make_arguments(project: Project, source: str, reason: str, image: str | None = None) -> dict[str, str]:
    """Return the parameters of the training pipeline; a path in `source` is made absolute."""
    if source and "://" not in source:
        source = str(Path(source).resolve())
    arguments = {"project": project.model_dump_json(), "source": source, "reason": reason}
    return {**arguments, "image": image} if image else arguments


def follow_run(runs: Runs, run_id: str, timeout: float = 3600) -> Run:
    """Show a run's steps until it is done; returns it in its final state.

    On a terminal the table is drawn anew; elsewhere each change of a step is a line.
    """
    if display.err.is_terminal:
        with Live(console=display.err, refresh_per_second=4, transient=False) as live:
            return runs.wait(run_id, timeout, on_change=lambda run: live.update(_draw_run(run)))
    seen: dict[str, str] = {}

    def tell(run: Run) -> None:
        for step in run.steps:
            if seen.get(step.name) != step.state and step.state not in (
                "PENDING",
                "RUNTIME_STATE_UNSPECIFIED",
            ):
                seen[step.name] = step.state
                seconds = display.measure(step.started, step.finished) if step.finished else None
                display.err.print(
                    f"  {step.name:<10}", display.style_state(step.state), display.format_seconds(seconds)
                )

    return runs.wait(run_id, timeout, on_change=tell)


def check_run(runs: Runs, run: Run) -> None:
    """Raise when a run did not succeed, with the failed step's last lines.

    Raises:
        ConsoleError: The run failed or was ended.
    """
    if run.succeeded:
        return
    lines = [f"run {run.id} {run.state.lower()}: {run.error or 'no reason was given'}"]
    failed = next((step for step in run.steps if step.state == "FAILED"), None)
    if failed is not None:
        log = runs.log(run.id, failed.name).rstrip().splitlines()
        lines += [f"the last lines of step {failed.name}:", *(f"  {line}" for line in log[-_LOG_LINES:])]
        lines.append(f"all of it: tenure logs {run.id} {failed.name}")
    raise ConsoleError("\n".join(lines), FAILED)


def read_rejection(runs: Runs, run: Run) -> list[str]:
    """Return the gate's reasons for its no, as `rule: text`; empty when it said yes or was not reached."""
    states = {step.name: step.state for step in run.steps}
    rolled_out = states.get("rollout", "SKIPPED") != "SKIPPED"
    if not run.succeeded or "gate" not in states or rolled_out:
        return []
    return _FAILED_RULE.findall(runs.log(run.id, "gate"))


def describe_run(run: Run) -> dict[str, Any]:
    """Return a run as JSON."""
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state,
        "error": run.error,
        "steps": [
            {
                "name": step.name,
                "state": step.state,
                "seconds": display.measure(step.started, step.finished),
                "error": step.error,
            }
            for step in run.steps
        ],
    }


def _draw_run(run: Run) -> Table:
    rows = [
        (
            step.name,
            display.style_state(step.state),
            display.format_seconds(display.measure(step.started, step.finished)),
        )
        for step in run.steps
    ]
    return display.build_table((run.name, "", ""), rows, right=(2,))
