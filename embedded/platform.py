"""The whole platform: up, down, status."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from embedded import access
from embedded.certificates import Certificates, ensure_certificates
from embedded.errors import EmbeddedError, StartError
from embedded.home import Home
from embedded.leftovers import end_leftovers
from embedded.logs import read_tail
from embedded.program import ALIVE, ProgramState, State
from embedded.services import MODEL_STAGE, Service, make_services
from embedded.storage import remove_sockets
from embedded.supervisor import Supervisor

_START_SECONDS = 180.0  # some seconds, unless the machine is busy with other things
_POLL_SECONDS = 0.05
_SETTLE_SECONDS = 1.0
_TAIL_LINES = 15

Report = Callable[[str], None]
MakeServices = Callable[[Home, Certificates], list[Service]]


@dataclass(frozen=True)
class ServiceStatus:
    """What a person wants to know of one service.

    Attributes:
        name: Its name, also for `logs`.
        kind: "service", or "model" for a model server.
        state: Its process's state.
        ready: It does its work.
        problem: Why it is not ready.
        pid: Its process.
        started_at: The process's start (UTC).
        restarts: How often it had to be started again.
        address: Where it answers; empty if nowhere.
        log: Its log.
    """

    name: str
    kind: str
    state: State
    ready: bool
    problem: str | None
    pid: int | None
    started_at: datetime | None
    restarts: int
    address: str
    log: Path

    @property
    def uptime_seconds(self) -> float | None:
        """Age of the process, while it lives."""
        if self.started_at is None or self.state not in ALIVE:
            return None
        return max(0.0, (datetime.now(UTC) - self.started_at).total_seconds())


class Platform:
    """The services of one home."""

    def __init__(self, home: Home, make_services: MakeServices = make_services) -> None:
        self._home = home
        self._supervisor = Supervisor(home)
        self._make_services = make_services

    def up(self, report: Report) -> list[ServiceStatus]:
        """Bring every service up and wait until all are ready; what is up already stays as it is.

        Args:
            report: Takes progress, one line at a time; called from several threads.

        Raises:
            StartError: A service did not come up; those that did keep running.
            EmbeddedError: Another `up` or `down` is at work.
        """
        with self._home.lock("platform", wait=False):
            if not self._supervisor.is_running():
                self._clear(report)
            certificates = ensure_certificates(self._home)
            access.write_kubeconfig(self._home, certificates)
            access.write_env_file(self._home)
            services = self._make_services(self._home, certificates)
            self._supervisor.launch()
            self._retry_failed(services)
            _Start(self._home, self._supervisor, services, report).run()
            return self._inspect(services)

    def down(self, report: Report) -> None:
        """Stop every service in order, then whatever else carries the platform's mark.

        Raises:
            EmbeddedError: Another `up` or `down` is at work, or a process does not end.
        """
        with self._home.lock("platform", wait=False):
            if self._supervisor.is_running():
                certificates = ensure_certificates(self._home)
                stages = {s.name: s.stage for s in self._make_services(self._home, certificates)}
                running = self._supervisor.list()
                for stage in sorted({*stages.values(), MODEL_STAGE}):
                    names = [name for name in running if stages.get(name, MODEL_STAGE) == stage]
                    self._stop(names, report)
                self._supervisor.shut_down()
            left = end_leftovers(self._home.state.id)
            if left:
                report(f"ended {left} process{'es' if left > 1 else ''} that nobody watched")
            remove_sockets(self._home.state.ports)

    def status(self) -> list[ServiceStatus]:
        """Return the state of every service, then of every model server."""
        return self._inspect(self._make_services(self._home, ensure_certificates(self._home)))

    def _clear(self, report: Report) -> None:
        """End what an abrupt end left behind, and give up ports that others have taken since."""
        left = end_leftovers(self._home.state.id)
        if left:
            report(f"ended {left} process{'es' if left > 1 else ''} of an earlier start")
        remove_sockets(self._home.state.ports)
        for name, (old, new) in self._home.replace_taken_ports().items():
            report(f"port {old} ({name}) is taken by another program: {new} from now on")

    def _retry_failed(self, services: Iterable[Service]) -> None:
        """Forget the programs that wait after a failure, so that they are tried at once."""
        states = self._supervisor.list()
        for service in services:
            known = states.get(service.name)
            if known is not None and known.state in {State.BACKOFF, State.FATAL}:
                self._supervisor.stop(service.name)

    def _stop(self, names: list[str], report: Report) -> None:
        if not names:
            return
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(self._supervisor.stop, names))
        report(f"stopped {', '.join(names)}")

    def _inspect(self, services: list[Service]) -> list[ServiceStatus]:
        states = self._supervisor.list() if self._supervisor.is_running() else {}
        with ThreadPoolExecutor(len(services) or 1) as pool:
            problems = list(pool.map(lambda service: _examine(service, states.get(service.name)), services))
        statuses = [
            self._describe(service.name, "service", states.get(service.name), problem, service.address)
            for service, problem in zip(services, problems, strict=True)
        ]
        names = {service.name for service in services}
        for name, state in sorted(states.items()):
            if name not in names:
                problem = None if state.state in ALIVE else state.error or str(state.state)
                statuses.append(self._describe(name, "model", state, problem, ""))
        return statuses

    def _describe(
        self, name: str, kind: str, state: ProgramState | None, problem: str | None, address: str
    ) -> ServiceStatus:
        shown = state.state if state else State.STOPPED
        if kind == "service" and shown == State.STARTING and problem is None:
            shown = State.RUNNING  # the supervisor only counts seconds; the probe knows better
        return ServiceStatus(
            name=name,
            kind=kind,
            state=shown,
            ready=problem is None,
            problem=problem,
            pid=state.pid if state else None,
            started_at=state.started_at if state else None,
            restarts=state.restarts if state else 0,
            address=address,
            log=self._home.log_file(name),
        )


def _examine(service: Service, state: ProgramState | None) -> str | None:
    """Return what is wrong with a service, None if nothing is."""
    if state is None:
        return "not running"
    if state.state not in ALIVE:
        return state.error or str(state.state)
    return service.probe() if service.probe is not None else None


class _Start:
    """One start of all services, each in a thread of its own."""

    def __init__(self, home: Home, supervisor: Supervisor, services: list[Service], report: Report) -> None:
        self._home = home
        self._supervisor = supervisor
        self._services = services
        self._report = report
        self._ready = {service.name: threading.Event() for service in services}
        self._given_up = threading.Event()

    def run(self) -> None:
        """Start all; return when all are ready, raise when one is not."""
        with ThreadPoolExecutor(len(self._services) or 1) as pool:
            try:
                futures = [pool.submit(self._bring_up, service) for service in self._services]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # After a failure or Ctrl-C the other threads stop waiting; their services go on.
                self._given_up.set()
        for future in done:
            future.result()

    def _bring_up(self, service: Service) -> None:
        for name in service.after:
            while not self._ready[name].wait(_POLL_SECONDS):
                if self._given_up.is_set():
                    return
        if service.before is not None:
            service.before()
        before = self._supervisor.list().get(service.name)
        self._supervisor.start(service.program)
        started = time.monotonic()
        if not self._wait_until_ready(service, started):
            return
        if service.then is not None:
            service.then()
        self._ready[service.name].set()
        after = self._supervisor.list().get(service.name)
        if before is not None and after is not None and before.pid == after.pid:
            return  # it was up already
        seconds = time.monotonic() - started
        self._report(f"{service.name:<12}ready after {seconds:4.1f} s  {service.address}".rstrip())

    def _wait_until_ready(self, service: Service, started: float) -> bool:
        """Return whether it became ready; false if the start as a whole was given up."""
        problem: str | None = "not started"
        while not self._given_up.wait(_POLL_SECONDS):
            state = self._supervisor.list().get(service.name)
            problem = self._judge(service, state, started)
            if problem is None:
                return True
            failed = state is None or state.state in {State.BACKOFF, State.FATAL, State.EXITED}
            # Once may be bad luck (a port taken at that moment); twice is not.
            if failed and (state is None or state.restarts > 0 or state.state != State.BACKOFF):
                raise self._explain(service, "ends as soon as it is started")
            if time.monotonic() - started > _START_SECONDS:
                raise self._explain(service, f"is not ready after {_START_SECONDS:.0f} s: {problem}")
        return False

    @staticmethod
    def _judge(service: Service, state: ProgramState | None, started: float) -> str | None:
        problem = _examine(service, state)
        settled = state is not None and state.state == State.RUNNING
        if problem is None and service.probe is None and not settled:
            # It answers nowhere: look whether it is still alive after a moment.
            return None if time.monotonic() - started >= _SETTLE_SECONDS else "just started"
        return problem

    def _explain(self, service: Service, what: str) -> StartError:
        log = self._home.log_file(service.name)
        tail = "".join(f"  | {line}\n" for line in read_tail(log, _TAIL_LINES)) or "  | (empty)\n"
        return StartError(
            f"{service.name} {what}. The end of {log}:\n{tail}"
            "Remove the cause and run `tenure up` again; `tenure down` stops what did come up"
        )


def open_platform(create: bool = False) -> Platform:
    """Return the platform of the located home.

    Raises:
        EmbeddedError: There is none and `create` is false.
    """
    return Platform(Home.open(create=create))


__all__ = ["EmbeddedError", "Platform", "Report", "ServiceStatus", "open_platform"]
