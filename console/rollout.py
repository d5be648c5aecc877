"""Who serves, and a person's say in it: `tenure rollout`."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from clients import names
from clients.errors import ClientError, NotFoundError
from clients.services import Services
from console import display
from console.cockpit import build_history, build_view
from console.context import open_settings
from console.errors import FAILED, REFUSED, ConsoleError
from console.options import DEFAULT_PROJECT, Json, ProjectFile
from console.standing import State, Variant, describe_service
from tenure.canary import Rollout
from tenure.project import load_project

__all__ = ["State", "Variant", "app", "describe_service"]

app = typer.Typer(
    no_args_is_help=True,
    help="Show the rollout and decide about it. The pilot carries out what you ask within seconds.",
)

Wait = Annotated[
    float, typer.Option("--timeout", min=1, help="Seconds to wait for the pilot to carry it out.")
]


@app.command()
def status(
    project: ProjectFile = DEFAULT_PROJECT,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it until Ctrl+C.")] = False,
    as_json: Json = False,
) -> None:
    """Show each version's share, the canary's step, what is known of it, and what it waits for."""
    cluster, name, rollout = _connect(project)
    if watch:
        if as_json:
            raise ConsoleError(
                "--watch draws for people; for machines ask again and again with --json", REFUSED
            )
        _watch(cluster, name, rollout)
        return
    state = _read(cluster, name)
    if as_json:
        display.print_json(state.model_dump(mode="json"))
    else:
        display.out.print(build_view(state, rollout.steps))


@app.command()
def history(
    at: Annotated[
        datetime | None, typer.Option("--at", help="What was live at this time (UTC) instead of everything.")
    ] = None,
    project: ProjectFile = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show all transitions from the ledger; or, with --at, which versions were live at any time."""
    from clients.ledger.reader import Ledger

    name = load_project(project).rollout.service
    ledger = Ledger.connect(open_settings("ledger"))
    if at is not None:
        moment = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        live = ledger.find_live(name, moment)
        if live is None:
            raise ConsoleError(f"{name}: the ledger knows of nothing live at {moment.isoformat()}", REFUSED)
        if as_json:
            display.print_json({"at": moment.isoformat(), "shares": live})
        else:
            rows = [(version, f"{share} %") for version, share in live.items()]
            display.out.print(display.build_table(("VERSION", "TRAFFIC"), rows, right=(1,)))
        return
    transitions = [
        {
            "at": one.at.isoformat(timespec="milliseconds"),
            "outcome": one.outcome,
            "shares": one.shares,
            "reason": one.reason,
            "evidence": one.evidence,
        }
        for one in ledger.read_transitions(name)
    ]
    if as_json:
        display.print_json(transitions)
    else:
        display.out.print(build_history(transitions))


@app.command()
def promote(project: ProjectFile = DEFAULT_PROJECT, timeout: Wait = 60, as_json: Json = False) -> None:
    """Let the canary take over: all traffic first, then the InferenceService. No request is lost."""
    cluster, name, _ = _connect(project)
    state = _read(cluster, name)
    canary = _find_canary(state)
    if canary is None:
        raise ConsoleError(f"{name} has no canary to promote; a run of the pipeline makes one", REFUSED)
    _ask(cluster, name, names.PROMOTE, canary.name, {"promoted"}, timeout, as_json)


@app.command()
def rollback(project: ProjectFile = DEFAULT_PROJECT, timeout: Wait = 180, as_json: Json = False) -> None:
    """Take the canary away; or, when there is none, bring back the version that was stable before."""
    cluster, name, _ = _connect(project)
    state = _read(cluster, name)
    variant = _find_canary(state) or state.variants[0]
    _ask(cluster, name, names.ROLLBACK, variant.name, {"rolled_back"}, timeout, as_json)


@app.command()
def abort(project: ProjectFile = DEFAULT_PROJECT, timeout: Wait = 60, as_json: Json = False) -> None:
    """Take the canary away. Unlike `rollback` it never touches the stable version."""
    cluster, name, _ = _connect(project)
    state = _read(cluster, name)
    canary = _find_canary(state)
    if canary is None:
        raise ConsoleError(
            f"{name} has no canary to take away; `tenure rollout rollback` brings the version before back",
            REFUSED,
        )
    _ask(cluster, name, names.ROLLBACK, canary.name, {"rolled_back"}, timeout, as_json)


@app.command()
def pause(project: ProjectFile = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Freeze the shares as they are; a rollback still works."""
    _set_pause(project, "true", as_json)


@app.command()
def resume(project: ProjectFile = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Go on after a pause."""
    _set_pause(project, None, as_json)


def _find_canary(state: State) -> Variant | None:
    return next((variant for variant in state.variants if variant.role == "canary"), None)


def _set_pause(project: Path, value: str | None, as_json: bool) -> None:
    cluster, name, _ = _connect(project)
    state = _read(cluster, name)
    cluster.inference.patch(name, {"metadata": {"annotations": {names.PAUSE: value}}})
    if as_json:
        display.print_json(state.model_copy(update={"paused": value is not None}).model_dump(mode="json"))
    else:
        display.out.print(f"{name}: {'resumed' if value is None else 'paused'}")


def _watch(cluster: Services, name: str, rollout: Rollout) -> None:
    """Draw the rollout anew twice a second until Ctrl+C; while the platform does not answer, say so."""
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

    view: RenderableType = Text("")
    with Live(view, console=display.out, refresh_per_second=4) as live:
        try:
            while True:
                try:
                    view = build_view(_read(cluster, name), rollout.steps)
                    live.update(view)
                except ClientError as error:
                    live.update(Text(str(error), style="red"))
                time.sleep(0.5)
        except KeyboardInterrupt:
            return


def _connect(project: Path) -> tuple[Services, str, Rollout]:
    rollout = load_project(project).rollout
    return Services.connect(open_settings()), rollout.service, rollout


def _read(cluster: Services, name: str) -> State:
    service = cluster.inference.find(name)
    if service is None:
        raise NotFoundError(f"there is no InferenceService {name} yet; `tenure run` trains and makes one")
    return describe_service(service, cluster.routes.find(names.route_name(name)))


def _ask(
    cluster: Services, name: str, annotation: str, value: str, goals: set[str], timeout: float, as_json: bool
) -> None:
    """Annotate the InferenceService, then wait until the pilot says what became of it."""
    before = cluster.inference.get(name)["metadata"].get("annotations", {}).get(names.TRANSITION)
    finals = goals | {"refused", "failed"}
    cluster.inference.patch(name, {"metadata": {"annotations": {annotation: value}}})
    deadline = time.monotonic() + timeout
    transition: dict[str, Any] = {}
    while time.monotonic() < deadline:
        now = cluster.inference.get(name)["metadata"].get("annotations", {})
        if now.get(names.TRANSITION) not in (None, before):
            transition = json.loads(now[names.TRANSITION])
            if transition["outcome"] in finals:
                break
        time.sleep(0.2)
    else:
        asked = annotation.rpartition("/")[2]
        raise ConsoleError(
            f"{name}: {asked} was asked for, but not carried out within {timeout:.0f} s. "
            "It stays asked for; look at `tenure rollout status` and `tenure logs pilot`.",
            FAILED,
        )
    state = _read(cluster, name)
    if as_json:
        display.print_json(state.model_dump(mode="json"))
    if transition["outcome"] not in goals:
        raise ConsoleError(f"{name}: {transition['outcome']}: {transition.get('reason', '')}", REFUSED)
    if not as_json:
        display.out.print(f"{name}: {transition['outcome'].replace('_', ' ')} ({transition['digest'][:12]})")
