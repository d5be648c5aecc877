"""`tenure demo` and `tenure demo-rollback`: the closed loop on this machine, with simulated customers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.text import Text

from clients.errors import NotFoundError
from clients.ledger.reader import Ledger
from clients.run import Run
from clients.tracking import Tracking
from console import display
from console.context import refuse_remote
from console.ending import print_addresses, print_history, print_measured
from console.errors import FAILED, ConsoleError
from console.options import DEFAULT_PROJECT, ProjectFile
from console.performance import Phase, measure_phases
from console.player import Player
from console.simulate import open_stream
from console.story import Story, describe_last
from console.training import read_rejection
from tenure.drift.verdict import Verdict
from tenure.evaluation import EvaluationReport
from tenure.gate import decide
from tenure.project import Project, load_project, parse_project
from tenure.simulation.scenario import find_scenario
from tenure.simulation.stream import Stream

_FIRST_SHARE = 0.6
"""Share of the source's rows, in file order, that the older snapshot has."""

_DAY_SECONDS = 0.1
_PROMOTION_SECONDS = 240.0
_DRIFT_SECONDS = 120.0
_TRIGGER_SECONDS = 120.0
_ROLLBACK_SECONDS = 120.0
_AFTER_ROWS = 600  # outcomes of the retrained model that the last line rests on
_DEAREST = 90.0  # dollars a month that the harmful contract allows

Rate = Annotated[float, typer.Option(min=1, max=2000, help="Simulated customers a second.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed plays the same customers.")]
Anew = Annotated[
    bool, typer.Option("--anew", help="Also take away a service that no demonstration has made.")
]


def demo(
    project: ProjectFile = DEFAULT_PROJECT, rate: Rate = 120, seed: Seed = 3, anew: Anew = False
) -> None:
    """Show the closed loop: train, canary, promotion on live traffic, drift, retraining, promotion.

    Nobody decides anything here but the gate, the pilot and the detector. Everything stays up afterwards;
    `tenure down` (or `make down`) stops it. It may be run again at any time: the story begins anew.
    """
    refuse_remote("demo", "there `tenure run` and `tenure simulate` do the same in steps")
    story = Story.begin(_prepare(load_project(project)))
    plan, ledger = story.project, _open_ledger(story)
    second = _train_two(story, anew)
    calm = open_stream(plan, find_scenario("none", plan.contract), seed)
    with Player(story.settings, plan, calm, rate=rate, day_seconds=_DAY_SECONDS) as player:
        began = datetime.now(UTC)
        story.tell(f"{rate:.0f} customers a second come, and the pilot watches the canary {second[:12]}")
        story.wait_for_promotion(second, _PROMOTION_SECONDS)
        story.tell(f"{second[:12]}: {describe_last(story.read())}")
        player.change(_raise_prices(calm, plan))
        drifted = datetime.now(UTC)
        story.tell("from now on everyone with internet pays 30 % more, and the loyal leave")
        third = _retrain(story, ledger, second[:12], drifted)
        story.wait_for_promotion(third, _PROMOTION_SECONDS)
        served = datetime.now(UTC)
        story.tell(f"{third[:12]}: {describe_last(story.read())}")
        _wait_for_outcomes(story, ledger, player, third[:12], served)
        player.stop()
        ended = datetime.now(UTC)
    story.tell("done")
    phases = [
        Phase("before", began, drifted),
        Phase("during", drifted, served),
        Phase("after", served, ended),
    ]
    print_history(ledger, story.service, began)
    print_measured(measure_phases(ledger, plan, phases, ended))
    seconds = (served - drifted).total_seconds()
    display.out.print()
    display.out.print(f"{player.answered} requests answered, {player.failed} failed.")
    display.out.print(
        Text(f"From the price rise until the retrained model served everyone: {seconds:.0f} s", "bold")
    )
    print_addresses(story.settings, plan)
    if player.failed:
        raise ConsoleError(
            f"{player.failed} of {player.sent} requests failed: {dict(player.failures)}", FAILED
        )


def demo_rollback(
    project: ProjectFile = DEFAULT_PROJECT, rate: Rate = 120, seed: Seed = 3, anew: Anew = False
) -> None:
    """Show a harmful canary taken back: its contract refuses customers whom the stable version serves.

    It passes its own gate, on its own rows; only live traffic shows the harm.
    """
    refuse_remote("demo-rollback", "there `tenure run` and `tenure simulate` do the same in steps")
    plan = _prepare(load_project(project))
    story = Story.begin(plan)
    ledger = _open_ledger(story)
    story.begin_anew(anew)
    older, newer = story.upload_exports(_FIRST_SHARE)
    story.tell("training a model on the older customers")
    story.train(plan, older, "demo: first model, older customers")
    story.claim()
    stable = story.read().variants[0].digest
    story.tell(f"training a challenger whose contract allows no price above {_DEAREST:.0f} dollars")
    run = story.train(_tighten(plan), newer, "demo: challenger with a contract that is too tight")
    digest = _find_canary(story, run)
    story.wait_for_split()
    calm = open_stream(plan, find_scenario("none", plan.contract), seed)
    with Player(story.settings, plan, calm, rate=rate, day_seconds=_DAY_SECONDS) as player:
        began = datetime.now(UTC)
        story.tell(f"{rate:.0f} customers a second come; {digest[:12]} gets some of them")
        state = story.wait(
            lambda: None if any(one.digest == digest for one in story.read().variants) else story.read(),
            "the pilot's rollback",
            _ROLLBACK_SECONDS,
            look="`tenure rollout status` and `tenure logs pilot`",
            describe=story.describe_rollout,
        )
        seconds = (datetime.now(UTC) - began).total_seconds()
        if state.variants[0].digest != stable:
            raise ConsoleError(f"{digest[:12]} was promoted: {describe_last(state)}", FAILED)
        story.tell(f"{digest[:12]} was taken back {seconds:.0f} s after the first customer")
        _wait_for_visits(story, player, rate)  # those that were on their way to the canary are answered
        failed, asked = player.failed, player.sent
        _wait_for_visits(story, player, 3 * rate)
        player.stop()
        afterwards = player.failed - failed
    display.out.print()
    display.out.print(Text("Why the pilot took it back", "bold"))
    display.out.print(f"  {describe_last(state)}")
    display.out.print(
        f"  {failed} of {asked} customers met a refusal, afterwards {afterwards} of {player.sent - asked}"
    )
    for reason, _ in player.failures.most_common(1):
        display.out.print(f"  for example {reason}")
    print_history(ledger, story.service, began)
    print_addresses(story.settings, plan)
    if afterwards:
        raise ConsoleError(f"{afterwards} requests failed after the rollback", FAILED)


def _wait_for_visits(story: Story, player: Player, count: float) -> None:
    goal = player.sent + count
    story.wait(lambda: True if player.sent >= goal else None, "customers", 60, look="`tenure logs gateway`")


def _prepare(project: Project) -> Project:
    """Return the project with no rest between two automatic runs: nobody wants to wait an hour for a demo."""
    retraining = project.retraining.model_copy(update={"cooldown_minutes": 0.0})
    return project.model_copy(update={"retraining": retraining})


def _tighten(project: Project) -> Project:
    """Return the project with a contract that holds dear customers for mistakes."""
    document = project.model_dump(mode="json")
    for column in document["contract"]["columns"]:
        if column["name"] == "monthly_charges":
            column["maximum"] = _DEAREST
    document["validation"]["max_bad_fraction"] = 0.5
    document["gate"]["margin"] = 0.02
    return parse_project(document)


def _open_ledger(story: Story) -> Ledger:
    """Wait until the detector has made the ledger, and open it."""

    ledger = Ledger.connect(story.settings)

    def find() -> Ledger | None:
        try:
            ledger.count_dead_letters()
        except NotFoundError:
            return None
        return ledger

    return story.wait(find, "the ledger", 60, look="`tenure logs detector`")


def _train_two(story: Story, anew: bool) -> str:
    """Make a stable version and a canary; returns the canary's digest."""
    plan = story.project
    story.begin_anew(anew)
    older, newer = story.upload_exports(_FIRST_SHARE)
    story.tell("training the first model on the older customers")
    story.train(plan, older, "demo: first model, older customers")
    story.claim()
    story.tell(f"{story.read().variants[0].version} serves; training a challenger on all customers")
    run = story.train(plan, newer, "demo: challenger, all customers")
    _print_judgement(story)
    return _find_canary(story, run)


def _find_canary(story: Story, run: Run) -> str:
    """Return the digest of the canary that a run made, or that was promoted meanwhile."""
    reasons = read_rejection(story.runs, run)
    if reasons:
        raise ConsoleError("\n".join(["the gate said no:", *(f"  {reason}" for reason in reasons)]), FAILED)
    return story.read().variants[-1].digest


def _raise_prices(calm: Stream, project: Project) -> Stream:
    """Return the stream's customers after a price rise, under ids of their own."""
    scenario = find_scenario("price-rise", project.contract)
    return replace(calm, scenario=scenario, series=f"{calm.series}rise-")


def _retrain(story: Story, ledger: Ledger, champion: str, since: datetime) -> str:
    """Follow the detector from its alarm to the run that it starts; returns the new canary's digest."""

    def find_alarm() -> Verdict | None:
        records = ledger.read_verdicts(story.service, champion)
        return next((one.verdict for one in records if one.alarm and one.created_at >= since), None)

    verdict = story.wait(find_alarm, "the detector's alarm", _DRIFT_SECONDS, look="`tenure logs detector`")
    story.tell(f"the detector: {verdict.describe()}")

    def read_cause() -> Mapping[str, Any]:
        return next((one for one in ledger.read_causes(story.service) if one["created_at"] >= since), {})

    def find_run() -> str | None:
        return read_cause().get("run_id") or None

    run_id = story.wait(
        find_run,
        "the run that it starts",
        _TRIGGER_SECONDS,
        look="`tenure logs detector`",
        describe=lambda: read_cause().get("note", ""),
    )
    story.tell(f"the detector started run {run_id}")
    return _find_canary(story, story.follow(run_id))


def _wait_for_outcomes(story: Story, ledger: Ledger, player: Player, version: str, since: datetime) -> None:
    """Wait until enough of the new model's customers have an outcome."""
    horizon = timedelta(days=story.project.labels.horizon_days)

    def count() -> int:
        now = datetime.now(UTC)
        rows = ledger.read_outcomes(story.service, as_of=now, horizon=horizon, version=version, since=since)
        return len(rows)

    story.wait(
        lambda: True if count() >= _AFTER_ROWS else None,
        f"{_AFTER_ROWS} outcomes of its customers",
        60,
        look="`tenure logs detector`",
        describe=lambda: f"{count()} known, {player.labels_waiting} to come",
    )


def _print_judgement(story: Story) -> None:
    """Print what evaluation found of the newest version, and what the gate said."""
    version = story.read().variants[-1]
    report = load_report(story.tracking, story.project, version.digest)
    decision = decide(report, story.project.gate)
    for reason in decision.reasons:
        mark = Text("          ✓ ", "green") if reason.passed else Text("          ✗ ", "red")
        display.err.print(mark + Text(reason.text))


def load_report(tracking: Tracking, project: Project, digest: str) -> EvaluationReport:
    """Read what evaluation said about a version from MLflow."""
    version = tracking.find_version(project.name, digest)
    if version is None or version.run_id is None:
        raise ConsoleError(f"MLflow knows no run of version {digest[:12]}", FAILED)
    return EvaluationReport.model_validate_json(tracking.load_text(version.run_id, "evaluation.json"))
