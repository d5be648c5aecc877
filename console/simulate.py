"""`tenure simulate`: play customers on the platform, with a scenario, and know the truth."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from clients.services import Services
from console import display
from console.context import open_settings, refuse_remote
from console.errors import BAD_INPUT, FAILED, ConsoleError
from console.fault import FAULTS, Fault
from console.options import DEFAULT_PROJECT, Json, ProjectFile
from console.player import Answer, Player
from tenure.project import Project, load_project
from tenure.simulation.scenario import SCENARIOS, Scenario, find_scenario
from tenure.simulation.stream import Stream

_NAMES = (*SCENARIOS, *FAULTS)
_LINE_SECONDS = 5.0  # between two lines of progress where there is no terminal
_LABEL_PATIENCE = 30.0


def list_scenarios(value: bool) -> None:
    """Print every scenario and end, when `--list` was given."""
    if value:
        known = {name: scenario.description for name, scenario in SCENARIOS.items()} | FAULTS
        display.out.print(display.format_facts(known))
        raise typer.Exit


def simulate(
    scenario: Annotated[str, typer.Option(help=f"What happens: {', '.join(_NAMES)}.")] = "none",
    rate: Annotated[float, typer.Option(min=0.1, max=5000, help="Requests a second.")] = 100,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds to send requests.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="The same seed plays the same customers.")] = 0,
    day_seconds: Annotated[
        float, typer.Option(min=0, max=86400, help="How long a day lasts until outcomes are known.")
    ] = 0.1,
    after: Annotated[float, typer.Option(min=0, help="Seconds until the scenario begins.")] = 0,
    labels: Annotated[bool, typer.Option(help="Report outcomes to the detector as they come.")] = True,
    list_: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=list_scenarios, help="Explain the scenarios.")
    ] = False,
    project: ProjectFile = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Send simulated customers through the gateway and report what they met, and how right the models were.

    The customers are those of the stream part, whom no model was trained on, under new ids. The truth is
    known here, so ROC-AUC and log-loss need not wait. Example: tenure simulate --scenario price-rise
    """
    settings = open_settings("gateway", "detector") if labels else open_settings("gateway")
    plan = load_project(project)
    if not labels:
        settings = settings.model_copy(update={"detector_url": None})
    if scenario in FAULTS:
        refuse_remote(f"simulate --scenario {scenario}", "it harms processes of this machine")
    if scenario not in _NAMES:
        raise ConsoleError(f"there is no scenario {scenario!r}; known are {', '.join(_NAMES)}", BAD_INPUT)
    services = Services.connect(settings)
    services.inference.get(plan.rollout.service)  # who asks a service that is not there is told so at once
    chosen = SCENARIOS["none"] if scenario in FAULTS else find_scenario(scenario, plan.contract)
    stream = open_stream(plan, chosen, seed, begins=round(after * rate))
    limit = max(1, round(rate * duration))
    with ExitStack() as stack:
        player = stack.enter_context(
            Player(settings, plan, stream, rate=rate, day_seconds=day_seconds, limit=limit)
        )
        if scenario in FAULTS:
            _follow(player, seconds=after)
            stack.enter_context(Fault(scenario, services, plan))
        _follow(player)
        _wait_for_labels(player)
    summary = {"scenario": scenario, "seed": seed, "series": stream.series, **summarise(player)}
    if as_json:
        display.print_json(summary)
    else:
        print_summary(summary)
    if player.failed:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in player.failures.most_common(3))
        raise ConsoleError(f"{player.failed} of {player.sent} requests failed: {reasons}", FAILED)


def open_stream(project: Project, scenario: Scenario, seed: int, *, begins: int = 0) -> Stream:
    """Make the project's stream of visits; its series is the time, so that no two share a customer."""
    series = f"{time.time_ns() // 1_000_000:x}-"
    return Stream.build(read_customers(project), project, scenario, seed, begins=begins, series=series)


def read_customers(project: Project) -> Any:
    """Return the canonical rows of a project whose source is a file."""
    from tenure.snapshot import read_source
    from tenure.validation import validate_frame

    if "://" in project.source.uri:
        raise ConsoleError(
            f"the simulation needs a project whose source is a file here, not {project.source.uri}", BAD_INPUT
        )
    frame = read_source(Path(project.source.uri), project.source.format, project.contract)
    return validate_frame(frame, project.contract).good


def summarise(player: Player) -> dict[str, Any]:
    """Return what a player's visits met, as JSON."""
    answers = list(player.answers)
    seconds = sorted(answer.seconds for answer in answers)
    phases = dict.fromkeys(answer.visit.phase for answer in answers)
    versions = dict.fromkeys(answer.version for answer in answers)
    return {
        "sent": player.sent,
        "answered": len(answers),
        "failed": player.failed,
        "failures": dict(player.failures),
        "latency_ms": {
            f"p{share}": round(1000 * seconds[min(len(seconds) - 1, len(seconds) * share // 100)], 2)
            for share in (50, 95, 99)
            if seconds
        },
        "labels": {
            "sent": player.labels_sent,
            "waiting": player.labels_waiting,
            "refused": player.labels_refused[:20],
        },
        "models": [
            {"phase": phase, "version": version, **measure_answers(group)}
            for phase in phases
            for version in versions
            if (group := [one for one in answers if (one.visit.phase, one.version) == (phase, version)])
        ],
    }


def measure_answers(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return how right the answers were; null where only leavers or only stayers came."""
    from tenure.metrics import compute_metrics

    left = np.array([answer.visit.left for answer in answers], dtype=np.float64)
    scores = np.array([answer.score for answer in answers])
    known = 0 < left.sum() < len(left)
    metrics = compute_metrics(left, scores, 0.5) if known else {}
    return {
        "answers": len(answers),
        "left": round(float(left.mean()), 4),
        "mean_score": round(float(scores.mean()), 4),
        "roc_auc": round(metrics["roc_auc"], 4) if known else None,
        "log_loss": round(metrics["log_loss"], 4) if known else None,
    }


def print_summary(summary: dict[str, Any]) -> None:
    """Print a summary for people."""
    labels, latency = summary["labels"], summary["latency_ms"]
    facts = {
        "requests": f"{summary['answered']} answered, {summary['failed']} failed",
        "latency": ", ".join(f"{name} {value:.1f} ms" for name, value in latency.items()) or "–",
        "outcomes": f"{labels['sent']} reported, {labels['waiting']} not known yet, "
        f"{len(labels['refused'])} refused",
    }
    display.out.print(display.format_facts(facts))
    for text in labels["refused"][:3]:
        display.err.print(Text(f"refused: {text}", "yellow"))
    columns = ("PHASE", "VERSION", "ANSWERS", "LEFT", "MEAN SCORE", "ROC-AUC", "LOG-LOSS")
    rows = [
        (
            one["phase"],
            one["version"],
            one["answers"],
            f"{one['left']:.1%}",
            f"{one['mean_score']:.3f}",
            *("–" if one[name] is None else f"{one[name]:.3f}" for name in ("roc_auc", "log_loss")),
        )
        for one in summary["models"]
    ]
    display.out.print()
    display.out.print(display.build_table(columns, rows, right=(2, 3, 4, 5, 6)))


def _follow(player: Player, seconds: float = float("inf")) -> None:
    """Show progress until the player stops sending, or for so many seconds."""
    end = time.monotonic() + seconds
    told = time.monotonic()
    terminal = display.err.is_terminal
    with ExitStack() as stack:
        status = stack.enter_context(display.err.status("")) if terminal else None
        while player.sending and time.monotonic() < end:
            if status is not None:
                status.update(_describe(player))
            elif time.monotonic() - told >= _LINE_SECONDS:
                told = time.monotonic()
                display.err.print(_describe(player))
            time.sleep(0.1)


def _wait_for_labels(player: Player) -> None:
    """Wait for outcomes that are still to come, as long as they do come."""
    waiting, since = player.labels_waiting, time.monotonic()
    while player.labels_waiting and time.monotonic() - since < _LABEL_PATIENCE:
        time.sleep(0.1)
        player.check()
        if player.labels_waiting < waiting:
            waiting, since = player.labels_waiting, time.monotonic()
    if player.labels_waiting:
        why = player.sink_problem or "the simulated days are too long to wait for them (--day-seconds)"
        display.err.print(Text(f"{player.labels_waiting} outcomes were not reported: {why}", "yellow"))


def _describe(player: Player) -> str:
    """Say in one line how far it is."""
    recent = player.answers[-300:]
    versions = _count(answer.version for answer in recent)
    shares = ", ".join(f"{name} {count / len(recent):.0%}" for name, count in versions.items())
    rate = player.sent / max(time.monotonic() - player.started, 1e-9)
    return (
        f"{player.answered} answered, {player.failed} failed, {rate:.0f} requests/s, "
        f"{player.labels_sent} outcomes reported" + (f"; lately {shares}" if shares else "")
    )


def _count(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
