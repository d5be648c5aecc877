"""Killing all who decide, right behind each of their decisions: one cause is one run and one promotion."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
import yaml
from e2e_machine import read_events

from clients import names
from clients.errors import ClientError
from clients.ledger.reader import Ledger
from clients.runs import Run, Runs
from clients.services import Services
from clients.tracking import CHALLENGER, CHAMPION
from console.player import Player
from console.simulate import open_stream
from embedded.home import Home
from embedded.program import ALIVE
from embedded.runs.processes import EXECUTOR_MODULE, list_processes
from embedded.supervisor import Supervisor
from tenure.project import Project, load_project
from tenure.simulation.scenario import find_scenario

# Python closes no TLS connection whose other end has died before the handshake.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")

RATE = 60.0
DAY_SECONDS = 0.05
SEED = 5
VICTIMS = ("detector", "pilot", "kubernetes", "runs")

# As little as shows the loop: every decision is made, on as few customers as it can be made on.
SETTINGS: dict[str, dict[str, Any]] = {
    "training": {"trials": 1, "folds": 2, "max_rounds": 40},
    "evaluation": {"bootstrap": 100, "min_slice_rows": 1000},
    "gate": {"margin": 0.5, "floors": {}, "slice_margin": 1.0, "baseline_margin": 1.0},
    "rollout": {
        "steps": [20, 50],
        "min_requests": 60,
        "tolerance": {
            "errors": 0.3,
            "latency": 0.9,
            "score": 0.9,
            "calibration": 1.0,
            "profit": 1000.0,
        },
    },
    "drift": {"backend": "scipy", "window": {"rows": 200}, "half_life": 5},
    "retraining": {"on": ["covariate"], "min_rows": 300},
}


@dataclass
class Loop:
    """An InferenceService with its project, on which the whole loop runs."""

    platform: Any
    project: Project
    file: Path
    ledger: Ledger
    services: Services
    runs: Runs

    @property
    def name(self) -> str:
        return self.project.rollout.service

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(Home.open(self.platform.home))

    def play(self) -> Player:
        """Return a player of customers who pay more than those whom the first model knew."""
        scenario = find_scenario("price-rise", self.project.contract)
        stream = open_stream(self.project, scenario, SEED)
        return Player(self.platform.settings, self.project, stream, rate=RATE, day_seconds=DAY_SECONDS)

    def read(self) -> dict[str, Any]:
        """Return the InferenceService; empty while nobody can say."""
        try:
            return dict(self.services.inference.find(self.name) or {})
        except ClientError:
            return {}

    def is_up(self) -> bool:
        """Whether everybody answers who is asked for what came of it."""
        try:
            self.runs.list(1)
            self.services.inference.list()
        except ClientError:
            return False
        return True

    def list_runs(self, cause: str) -> list[Run]:
        """Return the runs of a cause."""
        return [run for run in self.runs.list(100) if cause in run.name]

    def kill(self, programs: Sequence[str]) -> list[str]:
        """Kill programs of the platform in this order; returns those that had a process to be killed."""
        states, killed = self.supervisor.list(), []
        for program in programs:
            state = states[program]
            if state.state not in ALIVE or state.pid is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGKILL)
                killed.append(program)
        return killed

    def read_events(self) -> dict[str, Counter[str]]:
        """Return what each live model server says of its events, by the version that it serves."""
        found: dict[str, Counter[str]] = {}
        for name, state in self.supervisor.list().items():
            if not name.startswith(f"{self.name}-") or state.pid is None:
                continue
            events = read_events(state.pid)
            if events is not None:
                found[events[0]] = events[1]
        return found


@dataclass
class Assassin:
    """Watches what is written down, and kills all who decide right behind each of it.

    Ledger and InferenceService are watched by a thread each, for the API server is often dead. In which order
    a thread kills follows from the seed and from how much it has seen.
    """

    loop: Loop
    seen: list[tuple[str, ...]] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    done: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(2)
        looks = (self._look_at_causes, self._look_at_rollout)
        self._watches = [self._pool.submit(self._watch, look, set(look())) for look in looks]
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self._pool.shutdown()
        for watch in self._watches:
            watch.result()

    def _watch(self, look: Callable[[], Iterator[tuple[str, ...]]], known: set[tuple[str, ...]]) -> None:
        order = random.Random(SEED)  # noqa: S311
        while not self.done.wait(0.005):
            new = [fact for fact in look() if fact not in known]
            if not new:
                continue
            known.update(new)
            killed = self.loop.kill(order.sample(VICTIMS, len(VICTIMS)))
            with self.lock:
                self.seen.extend(new)
                self.kills.update(killed)

    def _look_at_causes(self) -> Iterator[tuple[str, ...]]:
        for cause in self.loop.ledger.read_causes(self.loop.name):
            yield "cause", cause["id"], cause["state"]
            if cause["detail"].get("order", {}).get("asked_at"):
                yield "cause", cause["id"], "asked"

    def _look_at_rollout(self) -> Iterator[tuple[str, ...]]:
        marks = self.loop.read().get("metadata", {}).get("annotations", {})
        if names.ROLLOUT in marks:
            flight = json.loads(marks[names.ROLLOUT])
            progress = flight["progress"]
            yield "rollout", progress["canary"], str(progress["step"]), str(flight["asked"])
        if names.TRANSITION in marks:
            transition = json.loads(marks[names.TRANSITION])
            yield "transition", transition["outcome"], transition["at"]


@pytest.fixture
def make_loop(platform: Any, tmp_path: Path, wait_for: Callable[..., Any]) -> Iterator[Callable[..., Loop]]:
    """Return a maker of loops: services of their own with a first model; they are gone afterwards."""
    made: list[Loop] = []

    def make(name: str, **changes: dict[str, Any]) -> Loop:
        document = yaml.safe_load(platform.project_file.read_text(encoding="utf-8"))
        document["name"] = name
        for section, values in {**SETTINGS, **changes}.items():
            document[section] = {**document.get(section, {}), **SETTINGS.get(section, {}), **values}
        document["rollout"]["service"] = name
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        settings = platform.settings
        loop = Loop(
            platform,
            load_project(file),
            file,
            Ledger.connect(settings),
            Services.connect(settings),
            Runs.connect(settings),
        )
        made.append(loop)
        source = platform.write_source(None)
        platform.run("tenure", "run", "--json", "-p", str(file), "--source", str(source))
        return loop

    yield make
    for loop in made:
        wait_for(loop.is_up, 60, "the platform")
        if loop.services.inference.find(loop.name) is not None:
            loop.services.inference.delete(loop.name)
        wait_for(
            lambda loop=loop: loop.services.routes.find(names.route_name(loop.name)) is None,
            60,
            "the route's deletion",
        )
        for alias in (CHAMPION, CHALLENGER):
            if platform.tracking.find_alias(loop.name, alias) is not None:
                platform.tracking.delete_alias(loop.name, alias)
        loop.ledger.close()
    made.clear()
    gc.collect()


def list_drifts(loop: Loop, *states: str) -> list[dict[str, Any]]:
    return [cause for cause in loop.ledger.read_causes(loop.name, states or None) if cause["kind"] == "drift"]


def list_waiting(loop: Loop, version: str) -> list[dict[str, Any]]:
    """Return the causes that wait though they are about this version."""
    return [cause for cause in list_drifts(loop, "waiting") if cause["detail"]["version"] == version]


def check_books(loop: Loop, player: Player, wait_for: Callable[..., Any]) -> None:
    """Nobody met a failure, and all that was acknowledged is in the ledger, once."""
    assert not player.failed, player.failures
    assert player.answered == player.sent
    asked = Counter(answer.visit.customer_id for answer in player.answers)

    def read_rows() -> Any:
        return loop.ledger.read_predictions(loop.name, features=False)

    def count_played() -> int:
        return int(read_rows()["customer_id"].isin(asked.keys()).sum())

    wait_for(lambda: count_played() >= player.answered, 60, "the last events")
    rows = read_rows()
    assert not rows.duplicated(["event_id", "row"]).any()
    # The other rows are those by which each roll-out has proven its canary.
    played = rows[rows["customer_id"].isin(asked.keys())]
    assert Counter(played["customer_id"]) == asked
    assert Counter(played["version"]) == Counter(answer.version for answer in player.answers)
    assert loop.ledger.count_losses(loop.name) == 0
    live = loop.read_events()
    assert live
    for version, events in live.items():
        recorded = 2 * rows["event_id"][rows["version"] == version].nunique()
        assert events["queued"] - events["dropped"] == recorded, (version, events, recorded)
        assert events["dropped"] == 0
    known = loop.ledger.read_labels(loop.name)
    assert known["customer_id"].is_unique
    assert len(known) == player.labels_sent
    assert not player.labels_refused


def test_each_decision_is_carried_out_once_whoever_dies_behind_it(
    make_loop: Callable[..., Loop], platform: Any, wait_for: Callable[..., Any]
) -> None:
    loop = make_loop("enduring")
    first = names.digest_of(loop.read()["spec"]["predictor"]["model"]["storageUri"])
    began = time.monotonic()
    letters = loop.ledger.count_dead_letters()
    with loop.play() as player, Assassin(loop) as assassin:

        def is_promoted() -> bool:
            player.check()
            service = loop.read()
            if not service or service["spec"].get("canary"):
                return False
            digest = names.digest_of(service["spec"]["predictor"]["model"]["storageUri"])
            marks = service["metadata"]["annotations"]
            return digest != first and names.UNRECORDED not in marks

        wait_for(is_promoted, 240, "the promotion of the retrained model")
        wait_for(lambda: list_drifts(loop, "succeeded"), 60, "the end of the cause")
        player.stop()
        wait_for(lambda: player.answered + player.failed == player.sent, 30, "the last answers")
        wait_for(lambda: not player.labels_waiting, 60, "the last outcomes")
    wait_for(loop.is_up, 60, "the platform")
    seconds = time.monotonic() - began
    print(f"{seconds:.0f} s, {player.answered} answered, kills {dict(assassin.kills)}")  # noqa: T201
    print(assassin.seen)  # noqa: T201

    check_books(loop, player, wait_for)
    assert loop.ledger.count_dead_letters() == letters
    # One cause, one run, one version, one canary that took each step once and was promoted once.
    (cause,) = [cause for cause in list_drifts(loop) if cause["arguments"] is not None]
    assert cause["state"] == "succeeded"
    (run,) = loop.list_runs(cause["id"])
    assert (run.id, run.state) == (cause["run_id"], "SUCCEEDED")
    # Alarms between that run's end and its canary's promotion make a cause too: it waits, and is dropped.
    wait_for(lambda: not list_waiting(loop, first[:12]), 60, "the end of what nobody waits for any more")
    for other in list_drifts(loop):
        assert other == cause or (other["run_id"], loop.list_runs(other["id"])) == (None, [])
    second = names.digest_of(loop.read()["spec"]["predictor"]["model"]["storageUri"])
    about = [one for one in loop.ledger.read_transitions(loop.name) if second[:12] in one.shares]
    outcomes = Counter(one.outcome for one in about)
    assert outcomes["promoted"] == outcomes["advanced"] == 1, about
    assert [one.shares[second[:12]] for one in about if one.outcome != "moving"][:3] == [20, 50, 100], about
    versions = platform.tracking.client.search_model_versions(f"name = '{loop.name}'")
    assert len(versions) == 2
    champion = platform.tracking.find_alias(loop.name, CHAMPION)
    assert champion is not None
    # Each of them died behind each of these, unless it was still being started again.
    states = {fact[2] for fact in assassin.seen if fact[:2] == ("cause", cause["id"])}
    assert {"waiting", "succeeded"} < states
    assert len(assassin.seen) >= 8, assassin.seen
    assert min(assassin.kills[victim] for victim in VICTIMS) >= 4, assassin.kills


def test_a_killed_run_is_followed_by_one_other(
    make_loop: Callable[..., Loop], wait_for: Callable[..., Any]
) -> None:
    loop = make_loop("persisting", retraining={"cooldown_minutes": 0.02})
    with loop.play() as player:
        (first,) = wait_for(lambda: list_drifts(loop, "running"), 90, "the first run")

        def find_executor() -> psutil.Process | None:
            for process in list_processes(first["run_id"]):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if EXECUTOR_MODULE in process.cmdline() and os.getsid(process.pid) == process.pid:
                        return process
            return None

        wait_for(find_executor, 30, "the executor").kill()
        wait_for(lambda: list_drifts(loop, "failed"), 30, "the end of the first run")
        (second,) = wait_for(lambda: list_drifts(loop, "running"), 90, "the second run")
        player.stop()
        wait_for(lambda: list_drifts(loop, "succeeded"), 120, "the end of the second run")
        wait_for(lambda: not player.labels_waiting, 60, "the last outcomes")
    check_books(loop, player, wait_for)
    failed, succeeded = list_drifts(loop)
    assert (failed["id"], failed["state"]) == (first["id"], "failed")
    assert "SIGKILL" in failed["note"]
    assert (succeeded["id"], succeeded["state"]) == (second["id"], "succeeded")
    assert [run.state for run in loop.list_runs(failed["id"])] == ["FAILED"]
    assert [run.state for run in loop.list_runs(succeeded["id"])] == ["SUCCEEDED"]
    assert succeeded["arguments"]["source"] != failed["arguments"]["source"]
