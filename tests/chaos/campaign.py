"""One seed: kills what runs under load, blow by blow, and waits each time until everything is whole again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil
from chaos_books import Books, Kill, Round, State
from chaos_schedule import RUN, SERVERS, Blow, Gap
from chaos_witness import Witnesses
from e2e_load import Load
from e2e_machine import read_events

from clients.errors import ClientError
from clients.ledger.reader import Ledger
from clients.runs import Runs
from clients.tracking import CHALLENGER, CHAMPION
from embedded.errors import EmbeddedError
from embedded.home import Home
from embedded.leftovers import find_leftovers, is_alive
from embedded.platform import Platform
from embedded.program import ALIVE
from embedded.runs.processes import find_executor, list_processes

RATE = 120
CONNECTIONS = 8
PERCENT = 50
RECOVERY_SECONDS = 60.0
"""Until everything is whole again after a blow, on a machine that has nothing else to do."""

RUN_SECONDS = 120.0
"""Until a run has ended that nobody kills, on such a machine."""

MODEL = "chaos"
"""A registered model with both aliases."""

# Trains for some seconds; its model is never good enough to be rolled out.
TRAINING = {"trials": 6, "folds": 3, "max_rounds": 100}
GATE = {"floors": {"roc_auc": 0.999}}


class Stuck(Exception):  # noqa: N818
    """Something did not come true in time."""


def measure_wait() -> float:
    """Return how many times longer than on an idle machine a process needs now for what it computes."""
    began, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < 0.2:
        pass
    return max(1.0, (time.monotonic() - began) / 0.2)


@dataclass
class Campaign:
    """The blows of one seed on a service with a canary.

    Attributes:
        stage: The service.
        tracking: The registry.
        seed: Of the training runs; the blows follow from it already.
        blows: What to do.
        tell: Takes the report, a line at a time.
    """

    stage: Any
    tracking: Any
    seed: int
    blows: list[Blow]
    tell: Callable[[str], None]
    rounds: list[Round] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runs = Runs.connect(self.stage.settings)
        self.ledger = Ledger.connect(self.stage.settings)
        self.home = Home.open(self.stage.home)
        self.platform = Platform(self.home)
        self.servers: dict[str, tuple[str, str]] = {}
        self.project = ""
        self.began = 0.0

    def carry_out(self) -> list[str]:
        """Deal every blow; return all that went wrong, in words."""
        try:
            self._carry_out()
        except Stuck as error:
            self.problems.append(str(error))
        finally:
            self.ledger.close()
        return self.problems

    def _carry_out(self) -> None:
        stage = self.stage
        stage.logged = True
        stage.set_up(percent=PERCENT)
        self.servers = {
            "stable": (stage.find_program().name, stage.old.version),
            "canary": (stage.find_program(stage.canary).name, stage.new.version),
        }
        training = TRAINING | {"seed": self.seed}
        self.project = str(stage.write_project(training=training, gate=GATE))
        self._register()
        before = self._read_state()
        mark = f"chaos-{self.seed}-{uuid.uuid4().hex[:8]}"
        since = datetime.now(UTC)
        witnesses = Witnesses.connect(stage.settings, self.tracking, mark)
        with stage.load(rate=RATE, connections=CONNECTIONS, mark=mark) as load, witnesses:
            self.began = time.monotonic()
            self._submit()
            for blow in self.blows:
                self._let_pass(load, blow.pause)
                self._deal(blow, load)
            self._let_pass(load, RATE)
            self._see_runs_end()
        books = Books(load.stop(), self.rounds, CONNECTIONS)
        self.problems += books.check_failures()
        self._wait_for_events()
        counts = dict(filter(None, (read_events(pid) for pid in self._list_servers())))
        rows = self.ledger.read_predictions(stage.name, since=since, features=False)
        self.problems += books.check_ledger(rows, mark, counts)
        self.problems += witnesses.check()
        self.problems += before.compare(self._read_state())
        self._check_processes("at the end")
        for line in books.describe():
            self.tell(f"  {line}")
        written = ", ".join(
            f"{member.address} {len(member.acknowledged)} ({member.refused} refused)"
            for member in witnesses.members
        )
        self.tell(f"  writes acknowledged and kept: {written}")

    # Before and after

    def _register(self) -> None:
        """Have a registered model whose aliases must stay."""
        client = self.tracking.client
        with contextlib.suppress(Exception):
            client.create_registered_model(MODEL)
        for alias, bundle in ((CHAMPION, self.stage.old), (CHALLENGER, self.stage.new)):
            version = client.create_model_version(MODEL, self.stage.uri(bundle.digest), await_creation_for=0)
            client.set_registered_model_alias(MODEL, alias, version.version)

    def _read_state(self) -> State:
        services, client = self.stage.services, self.tracking.client
        bodies = {
            f"{body['kind']} {body['metadata']['name']}": {
                "uid": body["metadata"]["uid"],
                "spec": body["spec"],
            }
            for body in [*services.inference.list(), *services.routes.list()]
        }
        aliases = {
            alias: client.get_model_version_by_alias(MODEL, alias).version for alias in (CHAMPION, CHALLENGER)
        }
        bundles = {
            stored.uri: stored.size
            for bundle in (self.stage.old, self.stage.new)
            for stored in self.stage.store.list(self.stage.uri(bundle.digest))
        }
        return State(bodies, aliases, bundles, self.ledger.count_dead_letters())

    # Blows

    def _deal(self, blow: Blow, load: Load) -> None:
        """Kill, and wait until everything is whole again."""
        if RUN in blow.victims:
            self._ensure_run()
        old = {name: state.pid for name, state in self._list_programs().items()}
        entry = Round(str(blow), time.monotonic())
        self.rounds.append(entry)
        for number, victim in enumerate(blow.victims):
            if number:
                self._wait_for_gap(blow, entry.kills[0], load)
            entry.kills.append(self._kill(victim, blow.step))
        try:
            self._wait_until_whole(entry, old, load)
        except Stuck as error:
            raise Stuck(f"{blow}: {error}") from error
        finally:
            pids = ", ".join(f"{kill.victim} {kill.pid}" for kill in entry.kills)
            self.tell(
                f"  {entry.began - self.began:6.1f} s  {blow} [{pids}]: whole after {entry.seconds:.1f} s"
            )
        self._check_processes(str(blow))

    def _kill(self, victim: str, step: bool) -> Kill:
        held = None
        version = ""
        asked = time.monotonic()
        if victim == RUN:
            pid = self._find_run_process(step)
        else:
            program = self.servers[victim][0] if victim in SERVERS else victim
            pid = self._poll(lambda: self._find_pid(program), f"a process of {program}")
            if victim in SERVERS:
                version = self.servers[victim][1]
                asked = time.monotonic()
                events = read_events(pid)
                held = None if events is None else events[1]["waiting"]
        before = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return Kill(victim, pid, before, time.monotonic(), version, asked, held)

    def _let_pass(self, load: Load, requests: int) -> None:
        """Wait until so many more requests were answered or have failed."""

        def count() -> int:
            counts = load.count()
            return int(counts["answered"] + counts["failed"])

        goal = count() + requests
        self._poll(lambda: count() >= goal, f"{requests} more requests")

    def _wait_for_gap(self, blow: Blow, first: Kill, load: Load) -> None:
        if blow.gap is Gap.UNDER_WAY:
            self._let_pass(load, blow.requests)
        elif blow.gap is Gap.JUST_BACK and first.victim != RUN:
            program = self.servers.get(first.victim, (first.victim,))[0]
            self._poll(lambda: self._find_pid(program) not in (None, first.pid), f"the restart of {program}")

    def _wait_until_whole(self, entry: Round, old: dict[str, int | None], load: Load) -> None:
        """Wait until whoever was killed runs anew, all services are ready, and both models answer again."""
        killed = [self.servers.get(kill.victim, (kill.victim,))[0] for kill in entry.kills]
        problem = ""

        def look() -> bool:
            nonlocal problem
            try:
                states = self._list_programs()
                for name in killed:
                    state = states.get(name)
                    if name != RUN and (
                        state is None or state.state not in ALIVE or state.pid == old.get(name)
                    ):
                        problem = f"{name} is not started again"
                        return False
                waiting = [status for status in self.platform.status() if not status.ready]
                if waiting:
                    problem = ", ".join(f"{status.name}: {status.problem}" for status in waiting)
                    return False
                problem = "the service is not ready with its weights"
                return bool(self.stage.has_weights({self.stage.canary: PERCENT}))
            except (ClientError, EmbeddedError) as error:
                problem = str(error)
                return False

        try:
            self._poll(look, "everything whole again", pause=0.5)
            seen = load.count()["versions"]
            problem = "a model does not answer"
            self._poll(
                lambda: all(
                    load.count()["versions"].get(version, 0) > seen.get(version, 0)
                    for _, version in self.servers.values()
                ),
                "answers of both models",
            )
        except Stuck as error:
            raise Stuck(f"{error}: {problem}") from None
        finally:
            entry.ended = time.monotonic()

    @staticmethod
    def _poll(
        condition: Callable[[], Any], what: str, seconds: float = RECOVERY_SECONDS, pause: float = 0.1
    ) -> Any:
        """Return the condition's first true value; what else the machine has to do prolongs the wait."""
        began = time.monotonic()
        limit = seconds
        while not (value := condition()):
            if time.monotonic() - began > limit:
                limit = seconds * measure_wait()
                if time.monotonic() - began > limit:
                    raise Stuck(f"{what}: not within {limit:.0f} s")
            time.sleep(pause)
        return value

    # Processes

    def _list_programs(self) -> dict[str, Any]:
        return dict(self.stage.supervisor.list())

    def _find_pid(self, program: str) -> int | None:
        state = self._list_programs().get(program)
        return None if state is None or state.state not in ALIVE else state.pid

    def _list_servers(self) -> Iterator[int]:
        for name, _ in self.servers.values():
            pid = self._find_pid(name)
            if pid is not None:
                yield pid

    def _check_processes(self, when: str) -> None:
        """Nothing may outlive who started it, and nothing may listen where others come in."""
        supervisor = self.stage.supervisor.pid
        active = [run_id for run_id in self.submitted if not self.runs.get(run_id).done]
        runs = {process.pid for run_id in active for process in list_processes(run_id)}

        def list_orphans() -> list[psutil.Process]:
            found = []
            for process in find_leftovers(self.home.state.id):
                with contextlib.suppress(psutil.NoSuchProcess):
                    line = {process.pid, *(parent.pid for parent in process.parents())}
                    if supervisor not in line and not line & runs and is_alive(process):
                        found.append(process)
            return found

        # A process that was killed is seen for a moment longer.
        deadline = time.monotonic() + 10
        while (orphans := list_orphans()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.problems.append(f"{when}: an orphan: {process.pid} {' '.join(process.cmdline())}")
        listeners = self.stage.find_open_listeners()
        if listeners:
            self.problems.append(f"{when}: open to others: {listeners}")

    # Runs

    def _submit(self) -> None:
        answer = self.stage.tenure("run", "--json", "--no-follow", "-p", self.project)
        self.submitted.append(str(json.loads(answer.stdout)["id"]))

    def _ensure_run(self) -> None:
        """Have a run that goes on."""
        if self.runs.get(self.submitted[-1]).done:
            self._submit()
        self._poll(lambda: self._list_run_processes(step=True), "a step of the run")

    def _list_run_processes(self, step: bool) -> list[int]:
        run_id = self.submitted[-1]
        executor = find_executor(run_id)
        if executor is None:
            return []
        if not step:
            return [executor.pid]
        return [process.pid for process in list_processes(run_id) if process.pid != executor.pid]

    def _find_run_process(self, step: bool) -> int:
        """Return the executor, or the step; of a run that ends at this very moment, the next one's."""
        while not (found := self._list_run_processes(step)):
            self._ensure_run()
        return found[0]

    def _see_runs_end(self) -> None:
        """Every run that was accepted ends, and says why if it failed."""
        for run_id in self.submitted:
            try:
                self._poll(
                    lambda run_id=run_id: self.runs.get(run_id).done, f"the end of run {run_id}", RUN_SECONDS
                )
            except Stuck as error:
                self.problems.append(str(error))
            run = self.runs.get(run_id)
            if run.state != "SUCCEEDED" and not run.error:
                self.problems.append(f"run {run_id} ended as {run.state} without a reason")
            reason = (run.error or "").strip().partition("\n")[0]
            self.tell(f"  run {run_id[:8]}: {run.state} {reason[:160]}".rstrip())
            left = [process.pid for process in list_processes(run_id)]
            if run.done and left:
                self._poll(lambda run_id=run_id: not list_processes(run_id), f"the processes of {run_id}", 20)

    def _wait_for_events(self) -> None:
        """Wait until no live model server has an event that the ledger does not have."""

        found: list[Any] = []

        def is_empty() -> bool:
            found[:] = [read_events(pid) for pid in self._list_servers()]
            return len(found) == len(SERVERS) and all(
                events is not None and not events[1]["waiting"] for events in found
            )

        try:
            self._poll(is_empty, "the last events", pause=0.5)
        except Stuck as error:
            raise Stuck(f"{error}: {found}") from None
