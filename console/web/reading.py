"""Reading what the page shows, through the clients and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from clients.detector import Detector
from clients.errors import ClientError, UnreachableError
from clients.ledger.reader import Ledger
from clients.ledger.records import TransitionRecord, VerdictRecord
from clients.names import PROJECT_LABEL, PROJECT_URI, hostname, route_name
from clients.services import Services, get_condition
from clients.settings import Settings
from clients.store import Store
from console.standing import State, describe_service
from tenure.errors import TenureError
from tenure.project import Project, parse_project

if TYPE_CHECKING:
    from clients.ledger.records import Tally
    from clients.run import Run
    from clients.runs import Runs
    from clients.tracking import Tracking

DAY = timedelta(days=1)
WINDOWS = 120
"""Windows of each family that charts go back."""

_RUNS = 12
_CAUSES = 8
_TRANSITIONS = 12


@dataclass(frozen=True)
class ServiceReading:
    """An InferenceService.

    Attributes:
        host: By which the gateway knows it.
        project: What it serves; None if that is not known.
        steps: Shares that a canary goes through.
        trouble: Why it is not ready, in KServe's words.
    """

    state: State
    host: str
    project: str | None
    steps: tuple[int, ...]
    trouble: str | None


@dataclass(frozen=True)
class LedgerReading:
    """What the ledger says of one service; `verdicts` by family, all lists oldest first."""

    verdicts: Mapping[str, list[VerdictRecord]]
    causes: list[dict[str, Any]]
    transitions: list[TransitionRecord]
    tally: Tally
    lost: int


@dataclass(frozen=True)
class LedgersReading:
    """What the ledger says of all services, and of events of none."""

    services: Mapping[str, LedgerReading]
    dead_letters: int


class Reader:
    """Reads; each method may be called from a thread of its own.

    Args:
        settings: The addresses.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._projects: dict[str, Project] = {}
        self._services: Services | None = None
        self._store: Store | None = None
        self._ledger: Ledger | None = None
        self._runs: Runs | None = None
        self._tracking: Tracking | None = None
        self._lock = threading.Lock()

    def read_services(self) -> list[ServiceReading]:
        """Return our InferenceServices by name."""
        if self._services is None:
            self._services = Services.connect(self._settings)
        cluster = self._services
        found = [
            document
            for document in cluster.inference.list()
            if PROJECT_LABEL in document["metadata"].get("labels", {})
        ]
        self._fetch_projects(filter(None, map(_get_project_uri, found)))
        return [self._read_service(cluster, document) for document in sorted(found, key=_get_name)]

    def read_ledger(self, services: Sequence[str] | None) -> LedgersReading:
        """Return what the ledger says of these services.

        Args:
            services: Their names; None while they are not known.
        """
        if services is None:
            raise UnreachableError("which services there are is not known yet")
        if self._ledger is None:
            self._ledger = Ledger.connect(self._settings)
        ledger, since = self._ledger, datetime.now(UTC) - DAY
        return LedgersReading(
            services={
                name: LedgerReading(
                    verdicts={
                        family: ledger.read_verdicts(name, family=family, limit=WINDOWS)
                        for family in ("inputs", "outcomes")
                    },
                    causes=ledger.read_causes(name)[-_CAUSES:],
                    transitions=ledger.read_transitions(name)[-_TRANSITIONS:],
                    tally=ledger.tally(name, since),
                    lost=ledger.count_losses(name, since),
                )
                for name in services
            },
            dead_letters=ledger.count_dead_letters(since),
        )

    def read_detector(self) -> dict[str, Any]:
        """Return what the detector says that it does and waits for."""
        with Detector.connect(self._settings) as detector:
            return detector.read_status()

    def read_runs(self) -> list[Run]:
        """Return the newest runs; those that go on with their steps."""
        from clients.runs import Runs  # kfp takes a second

        if self._runs is None:
            self._runs = Runs.connect(self._settings)
        try:
            return [run if run.done else self._runs.get(run.id) for run in self._runs.list(limit=_RUNS)]
        except ClientError:
            self._runs = None  # the next one asks the address for its health first
            raise

    def read_report(self, run_id: str) -> str:
        """Return the report of a verdict's MLflow run, an HTML page."""
        from clients.tracking import Tracking  # mlflow takes two

        with self._lock:
            if self._tracking is None:
                self._tracking = Tracking.connect(self._settings)
        return self._tracking.load_text(run_id, "report.html")

    def _read_service(self, cluster: Services, document: Mapping[str, Any]) -> ServiceReading:
        metadata = document["metadata"]
        name = metadata["name"]
        project = self._projects.get(_get_project_uri(document) or "")
        ready = get_condition(document, "Ready") or {}
        return ServiceReading(
            state=describe_service(document, cluster.routes.find(route_name(name))),
            host=hostname(name, metadata["namespace"], self._settings.ingress_domain),
            project=metadata["labels"][PROJECT_LABEL],
            steps=tuple(project.rollout.steps) if project else (),
            trouble=None
            if ready.get("status") == "True"
            else str(ready.get("message") or ready.get("reason") or "it is not ready yet"),
        )

    def _fetch_projects(self, uris: Iterable[str]) -> None:
        """Fetch projects that are not known yet. Without one, its steps are not said, and nothing else."""
        for uri in uris:
            if uri in self._projects:
                continue
            if self._store is None:
                self._store = Store.connect(self._settings)
            try:
                text = self._store.get_bytes(uri).decode("utf-8", "replace")
                self._projects[uri] = parse_project(text, where=uri)
            except UnreachableError:
                return  # each try takes seconds, and the page waits for all of them
            except (ClientError, TenureError):
                continue


def _get_project_uri(document: Mapping[str, Any]) -> str | None:
    """Return where the project of the newest roll-out lies."""
    return (document["metadata"].get("annotations") or {}).get(PROJECT_URI)


def _get_name(document: Mapping[str, Any]) -> str:
    return str(document["metadata"]["name"])
