"""From the InferenceServices to running processes, again and again: each round looks at all there is.

Nothing is remembered between rounds but what can be lost: a reconciler that was killed at any moment goes on
from the notes in the storage (which process has which ports and model) and from what supervisord runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from embedded.errors import EmbeddedError, SpecError
from embedded.gateway import Service
from embedded.home import Home
from embedded.kubernetes.events import forget_events
from embedded.kubernetes.registry import Registry
from embedded.kubernetes.resources import INFERENCE_SERVICES
from embedded.kubernetes.storage import Change
from embedded.ports import LOOPBACK, find_free_port, is_port_free
from embedded.program import ALIVE, Program, ProgramState, State
from embedded.reconciler.errors import ModelError
from embedded.reconciler.models import ModelCache
from embedded.reconciler.plan import Replica, Sink, Variant, make_program, plan_variants
from embedded.reconciler.prober import Prober
from embedded.reconciler.reporter import Reporter
from embedded.reconciler.router import Router
from embedded.reconciler.status import VariantState
from embedded.reconciler.workshop import Workshop

_LOG = logging.getLogger(__name__)

Document = dict[str, Any]
States = Mapping[str, ProgramState]

INTERVAL = 1.0
# A process gets no new requests for so long before it is told to stop, to finish those that it has.
DRAIN_SECONDS = 1.0
# A process that keeps ending is looked at again so often: somebody may have uploaded a better model.
_RECHECK_SECONDS = 15.0
_HOUSEKEEPING_SECONDS = 60.0
_AREA = "replicas"


class Processes(Protocol):
    """What is needed of a supervisor."""

    def start(self, program: Program) -> None:
        """Make it run as described."""

    def stop(self, name: str) -> None:
        """Stop and forget it."""

    def list(self) -> dict[str, ProgramState]:
        """Return every program's state by name."""


class Reconciler(threading.Thread):
    """The loop, in a thread of its own; it owns the prober's and the router's threads.

    Args:
        home: Logs, ports and secrets.
        registry: The InferenceServices, and the ServingRuntimes.
        supervisor: The processes.
        models: The models.
        router: Envoy.
        domain: Of the services' hostnames.
    """

    def __init__(
        self,
        home: Home,
        registry: Registry,
        supervisor: Processes,
        models: ModelCache,
        router: Router,
        domain: str,
    ) -> None:
        super().__init__(name="reconciler", daemon=True)
        token = home.secrets.detector_token.get_secret_value()
        self._sink = Sink(f"http://{LOOPBACK}:{home.state.ports.detector}", token)
        self._registry = registry
        self._supervisor = supervisor
        self._models = models
        self._router = router
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._prober = Prober(self._woken.set)
        self._workshop = Workshop(self._woken.set)
        self._reporter = Reporter(home, registry, domain)
        self._checked: dict[str, float] = {}
        self._notes_lock = threading.Lock()
        self._replicas = {
            key: Replica.model_validate(note) for key, note in registry.storage.read_notes(_AREA).items()
        }
        self._housekept = 0.0
        self._services: dict[tuple[str, str], Service] = {}
        self._adopted = False
        self._problem: str | None = None
        self._unsubscribe = registry.storage.subscribe(self._notice)
        router.on_routed = self._woken.set

    @property
    def problem(self) -> str | None:
        """Why the loop does not work; None when it does."""
        if not self.is_alive() and not self._ended.is_set():
            return "the reconciler's thread has ended"
        return self._problem

    def run(self) -> None:
        """Work until `end`."""
        self._prober.start()
        self._router.start()
        while not self._ended.is_set():
            self._woken.clear()
            try:
                self.reconcile()
                self._problem = None
            except EmbeddedError as error:
                # Whatever it is, the next round sees it again; requests go on meanwhile.
                if self._problem != str(error):
                    _LOG.warning("%s", error)
                self._problem = str(error)
            self._woken.wait(INTERVAL)

    def end(self) -> None:
        """Work no more; the processes go on as they are."""
        self._unsubscribe()
        self._ended.set()
        self._woken.set()
        if self.is_alive():
            self.join(20)
        self._router.end()
        if self._prober.is_alive():
            self._prober.end()
        self._workshop.end()

    def reconcile(self) -> None:
        """Take every process one step nearer to what is wanted.

        Raises:
            EmbeddedError: Supervisord does not answer.
        """
        bodies, _ = self._registry.storage.list_all(INFERENCE_SERVICES.key)
        # In this order: what a finished task has started must be among the states.
        for name, error in self._workshop.collect().items():
            self._note_failure(name, error)
        states = self._supervisor.list()
        if not self._adopted:
            # Before anything is published: Envoy must not lose the processes that outlived the reconciler.
            self._watch(states)
            self._prober.ask_now()
            self._adopted = True
        plans: list[tuple[Document, list[VariantState]]] = []
        wanted: set[str] = set()
        for body in bodies:
            try:
                planned = plan_variants(body, self._registry.runtimes)
            except SpecError as error:
                self._reporter.write_refusal(body, error)
                wanted |= {replica.program for replica in self._list_replicas() if _belongs(replica, body)}
                continue
            plans.append((body, [self._advance(variant, states, wanted) for variant in planned]))
        services = self._find_services(plans, states, wanted)
        for key, service in self._services.items():
            if any(replica.key == key and replica.program in wanted for replica in self._list_replicas()):
                services.setdefault(key, service)
        self._services = services
        self._watch(states)
        self._router.set_services(services)
        self._remove_others(wanted)
        for body, variants in plans:
            for state in variants:
                state.routed = self._router.knows(state.serving)
            self._reporter.write_status(body, variants, self._router.problem)
        self._keep_house()

    def _advance(self, variant: Variant, states: States, wanted: set[str]) -> VariantState:
        """Have the processes of one variant fetched, started or restarted; return what is seen of it."""
        state = VariantState(variant)
        ready = self._prober.list_ready()
        endpoints = []
        for index in range(variant.replicas):
            name = variant.name_program(index)
            wanted.add(name)
            replica = self._replicas.get(name)
            known = states.get(name)
            if replica is None:
                replica = self._assign(variant, name)
            if not replica.directory:
                self._workshop.submit(name, self._fetch, variant, replica)
            elif known is None or known.state not in (*ALIVE, State.BACKOFF, State.STOPPING):
                if self._workshop.is_free(name):
                    self._workshop.submit(name, self._launch, variant, self._move_if_taken(replica))
            elif known.state is State.BACKOFF:
                self._recheck(variant, replica)
            state.fetched |= bool(replica.directory)
            if known is not None:
                self._reporter.note_restarts(replica, known)
                state.restarts += known.restarts
                state.alive += known.state in ALIVE
                if name in ready and known.state in ALIVE:
                    endpoints.append(replica.endpoint)
            failure = self._reporter.find_failure(name)
            if failure is not None and name not in ready:
                state.failure = failure
            elif name in ready:
                self._reporter.clear(name)
        state.ready = tuple(sorted(endpoints))
        return state

    def _find_services(
        self, plans: list[tuple[Document, list[VariantState]]], states: States, wanted: set[str]
    ) -> dict[tuple[str, str], Service]:
        """Return where requests may go; an older revision goes on until the newer one is wholly ready."""
        ready = self._prober.list_ready()
        services = {}
        for _, variants in plans:
            for state in variants:
                variant = state.variant
                state.serving = state.ready
                if len(state.ready) < variant.replicas:
                    older = [
                        replica
                        for replica in self._list_replicas()
                        if replica.key == variant.key
                        and replica.revision != variant.revision
                        and replica.program in ready
                        and _is_alive(states, replica.program)
                    ]
                    if older:
                        state.serving = tuple(sorted(replica.endpoint for replica in older))
                        wanted |= {replica.program for replica in older}
                services[variant.key] = Service(
                    variant.namespace, variant.service, variant.owner, variant.stable, state.serving
                )
        return services

    def _remove_others(self, wanted: set[str]) -> None:
        """Stop what nobody wants any more, once Envoy has sent it nothing for a while."""
        for replica in self._list_replicas():
            if replica.program in wanted:
                continue
            if self._router.seconds_without(replica.endpoint) >= DRAIN_SECONDS:
                self._workshop.submit(replica.program, self._end_replica, replica)

    def _watch(self, states: States) -> None:
        """Have the processes that live asked whether they are ready."""
        replicas = {replica.program: replica for replica in self._list_replicas()}
        self._prober.watch({name: entry for name, entry in replicas.items() if _is_alive(states, name)})

    def _list_replicas(self) -> list[Replica]:
        with self._notes_lock:
            return list(self._replicas.values())

    def _assign(self, variant: Variant, name: str) -> Replica:
        """Give a new process its ports; they are noted before it is started."""
        replica = Replica(
            program=name,
            namespace=variant.namespace,
            service=variant.service,
            owner=variant.owner,
            revision=variant.revision,
            http_port=find_free_port(),
            grpc_port=find_free_port(),
        )
        self._note(replica)
        return replica

    def _move_if_taken(self, replica: Replica) -> Replica:
        """Return the process, with other ports if somebody has taken its own while it did not run."""
        if is_port_free(replica.http_port) and is_port_free(replica.grpc_port):
            return replica
        moved = replica.model_copy(update={"http_port": find_free_port(), "grpc_port": find_free_port()})
        self._note(moved)
        return moved

    def _fetch(self, variant: Variant, replica: Replica) -> None:
        """Fetch a process's model, and start the process if that is another one than it has."""
        directory = str(self._models.fetch(variant.storage_uri))
        if directory != replica.directory:
            replica = replica.model_copy(update={"directory": directory})
            self._note(replica)
            self._launch(variant, replica)

    def _launch(self, variant: Variant, replica: Replica) -> None:
        self._supervisor.start(make_program(variant, replica, self._sink))
        _LOG.info("started %s on ports %d and %d", replica.program, replica.http_port, replica.grpc_port)

    def _end_replica(self, replica: Replica) -> None:
        self._supervisor.stop(replica.program)
        with self._notes_lock:
            self._registry.storage.write_note(_AREA, replica.program, None)
            self._replicas.pop(replica.program, None)
        self._workshop.forget(replica.program)
        self._reporter.forget(replica.program)
        self._checked.pop(replica.program, None)
        _LOG.info("stopped %s", replica.program)

    def _recheck(self, variant: Variant, replica: Replica) -> None:
        """Look now and then whether a process that keeps ending has a better model in the store."""
        now = time.monotonic()
        if now - self._checked.setdefault(replica.program, now) > _RECHECK_SECONDS:
            self._checked[replica.program] = now
            self._workshop.submit(replica.program, self._fetch, variant, replica)

    def _note(self, replica: Replica) -> None:
        with self._notes_lock:
            self._registry.storage.write_note(_AREA, replica.program, replica.model_dump())
            self._replicas[replica.program] = replica

    def _note_failure(self, name: str, error: EmbeddedError | OSError) -> None:
        """Have it told why work on a process failed; it is tried again later."""
        with self._notes_lock:
            replica = self._replicas.get(name)
        if replica is not None:
            reason = "ModelLoadFailed" if isinstance(error, ModelError) else "StartFailed"
            self._reporter.fail(replica, reason, str(error))

    def _keep_house(self) -> None:
        """Forget old events and models that no process has."""
        now = time.monotonic()
        if now - self._housekept < _HOUSEKEEPING_SECONDS or not self._workshop.is_idle:
            return
        self._housekept = now
        forget_events(self._registry.storage)
        self._models.forget(replica.directory for replica in self._list_replicas() if replica.directory)

    def _notice(self, change: Change) -> None:
        if change.resource == INFERENCE_SERVICES.key:
            self._woken.set()


def _is_alive(states: States, name: str) -> bool:
    return name in states and states[name].state in ALIVE


def _belongs(replica: Replica, body: Document) -> bool:
    metadata = body["metadata"]
    return (replica.namespace, replica.owner) == (metadata["namespace"], metadata["name"])
