"""`tenure schedule`: train by the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.errors import ConflictError, NotFoundError
from clients.runs import Runs, Schedule
from console import display
from console.context import open_settings
from console.options import DEFAULT_PROJECT, Json, ProjectFile
from console.source import place_source
from console.training import PIPELINE, make_arguments
from tenure.project import load_project

app = typer.Typer(no_args_is_help=True, help="Train by the clock.")


@app.command()
def add(
    cron: Annotated[
        str, typer.Argument(help="Six fields in UTC, seconds first: '0 0 3 * * *' is every night at three.")
    ],
    project: ProjectFile = DEFAULT_PROJECT,
    source: Annotated[
        str, typer.Option(help="Read the customers from here instead, e.g. ledger://telco?days=30.")
    ] = "",
    name: Annotated[str, typer.Option(help="What it is called; by default like the project.")] = "",
    pipeline: Annotated[Path, typer.Option(help="The compiled pipeline.", dir_okay=False)] = PIPELINE,
    as_json: Json = False,
) -> None:
    """Train, judge, and roll out if the gate approves, whenever the clock says so.

    Project, pipeline and image are taken as they are now: add the schedule anew when they have changed. A run
    is put off while the one before goes on; of several that were missed the last is made up for.
    """
    plan = load_project(project)
    source = place_source(plan, source)
    runs = Runs.connect(open_settings("runs"))
    title = name or plan.name
    if any(known.name == title for known in runs.list_schedules()):
        raise ConflictError(f"there is a schedule {title!r} already; `tenure schedule remove {title}` first")
    arguments = make_arguments(plan, source, f"the schedule {cron}", runs.image)
    made = runs.schedule(runs.upload(pipeline), arguments, title, plan.name, cron)
    if as_json:
        display.print_json(describe_schedule(made))
    else:
        display.out.print(made.name)


@app.command("list")
def show(as_json: Json = False) -> None:
    """List the schedules."""
    found = [describe_schedule(one) for one in Runs.connect(open_settings("runs")).list_schedules()]
    if as_json:
        display.print_json(found)
        return
    rows = [
        (one["name"], one["when"], "on" if one["enabled"] else "off", one["source"] or "") for one in found
    ]
    display.out.print(display.build_table(("SCHEDULE", "WHEN (UTC)", "STATE", "SOURCE"), rows))


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Its name or its id.")]) -> None:
    """Remove a schedule; runs that it has started go on."""
    runs = Runs.connect(open_settings("runs"))
    found = [one for one in runs.list_schedules() if name in (one.name, one.id)]
    if not found:
        raise NotFoundError(f"there is no schedule {name!r}; `tenure schedule list` shows them")
    for one in found:
        runs.delete_schedule(one.id)


def describe_schedule(schedule: Schedule) -> dict[str, str | bool | None]:
    """Return a schedule as JSON."""
    return {
        "id": schedule.id,
        "name": schedule.name,
        "when": schedule.cron or f"every {schedule.interval_seconds} s",
        "enabled": schedule.enabled,
        "source": str(schedule.arguments.get("source") or "") or None,
        "version": schedule.version_id,
    }
