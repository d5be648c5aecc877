"""The watcher: who serves, what has changed, and what follows. A restart goes on where the ledger says."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING, Any, Self

from clients.errors import ClientError
from clients.ledger.reader import Ledger
from clients.notification import Notifier
from clients.services import Services
from clients.store import Store
from serving.detector.arrival import Arrivals
from serving.detector.cause import OPEN, read_causes
from serving.detector.champion import Champion, Champions
from serving.detector.errors import DetectorError, LedgerError
from serving.detector.inspection import Inspector
from serving.detector.leadership import Leadership
from serving.detector.publication import Publisher
from serving.detector.trigger import Trigger
from tenure.contract import Type
from tenure.errors import TenureError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clients.settings import Settings
    from serving.detector.metrics import Metrics
    from serving.detector.writer import Writer

logger = logging.getLogger("tenure.detector")

INTERVAL = 1.0
"""Seconds between two looks at everything."""

POLL = 10.0
"""Seconds between two looks at the watched addresses of the object store."""

RECALLED = 500
"""Verdicts of a champion that a new watcher looks through for alarms that nobody acted on yet."""

_ERRORS = (ClientError, DetectorError, TenureError)
"""What may be wrong with one service, or one address, while the others go on."""


class Watcher:
    """Judges, triggers and publishes for all our InferenceServices.

    `run` and `tick` belong to one thread; `notify` and `status` may be called by any. Of several watchers one
    acts; the others know who serves, so that they can say so.

    Args:
        champions: Who serves.
        inspector: Judges windows.
        trigger: Starts runs.
        arrivals: Finds new objects.
        publisher: Publishes verdicts.
        ledger: For reading.
        metrics: Counts the causes' states.
        clock: The time.
        lead: Says whether this watcher is the one that acts; asked before each look.
        resign: Called at the end, so that another may act at once.
    """

    def __init__(
        self,
        champions: Champions,
        inspector: Inspector,
        trigger: Trigger,
        arrivals: Arrivals,
        publisher: Publisher,
        ledger: Ledger,
        metrics: Metrics,
        clock: Callable[[], datetime],
        lead: Callable[[], bool] = lambda: True,
        resign: Callable[[], None] = lambda: None,
    ) -> None:
        self._lead = lead
        self._resign = resign
        self._leads = False
        self._champions = champions
        self._inspector = inspector
        self._trigger = trigger
        self._arrivals = arrivals
        self._publisher = publisher
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._acted: set[tuple[str, str]] = set()
        self._problems: dict[str, str] = {}
        self._known: dict[str, Champion] = {}
        self._uris: deque[str] = deque(maxlen=10_000)
        self._poll_due = 0.0
        self._awake = Event()

    @classmethod
    def connect(cls, settings: Settings, engine: Engine, writer: Writer, metrics: Metrics) -> Self:
        """Put it together; nothing is asked yet but who we are.

        Args:
            settings: The addresses.
            engine: The ledger's, to agree with other detectors; it is read by connections of its own.
            writer: The one writer of the ledger.
            metrics: What `/metrics` shows.

        Raises:
            SettingsError: The kubeconfig is missing or wrong.
        """
        from clients.runs import Runs
        from clients.tracking import Tracking

        leadership = Leadership(engine)
        ledger, store, notifier = (
            Ledger.connect(settings),
            Store.connect(settings),
            Notifier.connect(settings),
        )

        def clock() -> datetime:
            return datetime.now(UTC)

        return cls(
            Champions(Services.connect(settings).inference, store),
            Inspector(ledger, writer, metrics),
            Trigger(
                ledger,
                writer,
                metrics,
                lambda: Runs.connect(settings),
                notifier,
                clock,
                settings.components_image,
            ),
            Arrivals(ledger, writer, store),
            Publisher(ledger, writer, lambda: Tracking.connect(settings), notifier, clock),
            ledger,
            metrics,
            clock,
            leadership.hold,
            leadership.release,
        )

    def run(self, stop: Event) -> None:
        """Look, act, and publish in a second thread, until `stop` is set; returns when both have ended."""
        with ThreadPoolExecutor(1, thread_name_prefix="publisher") as pool:
            publishing = pool.submit(self._publish, stop)
            try:
                while not stop.is_set():
                    self._awake.clear()
                    self.look()
                    self._pause(stop)
                    if publishing.done():
                        publishing.result()
            finally:
                stop.set()
        self._resign()

    def tick(self) -> None:
        """Do everything once: look, act, publish. All of it may be done again by another process."""
        self.look()
        self._publisher.publish()

    def notify(self, uri: str) -> None:
        """Take a hint that an object is new; without it the next poll finds the object."""
        self._uris.append(uri)
        self._awake.set()

    def look(self) -> None:
        """Judge what is complete and take every cause as far as it comes; what fails is in `status`."""
        try:
            champions, problems = self._champions.find()
            leads = self._lead()
        except (ClientError, LedgerError) as error:
            self._follow()
            self._report({"": str(error)})
            return
        if not leads:
            self._follow()
            self._known = {champion.service: champion for champion in champions}
            self._report(problems)
            return
        self._leads = True
        self._metrics.leading.set(1)
        polled = time.monotonic() >= self._poll_due
        if polled:
            self._poll_due = time.monotonic() + POLL
        uris = [self._uris.popleft() for _ in range(len(self._uris))]
        for champion in champions:
            try:
                self._serve(champion, polled, uris)
            except _ERRORS as error:
                problems[champion.service] = str(error)
                # Whatever was on its way: the next look begins with what the ledger has.
                self._acted.discard((champion.service, champion.version))
                self._inspector.forget(champion.service)
                self._publisher.forget(champion)
        known = {champion.service: champion for champion in champions}
        for service in sorted({*known, *problems}):
            try:
                self._trigger.advance(service, known.get(service))
            except _ERRORS as error:
                problems[service] = str(error)
        self._known = known
        self._report(problems)

    def find_problem(self, service: str, outcome: str) -> str | None:
        """Say what the service's contract has against an outcome; None: nothing, or not known."""
        champion = self._known.get(service)
        if champion is None:
            return None
        label = champion.bundle.contract.label
        allowed = ("true", "false") if label.type is Type.BOOLEAN else label.categories
        if allowed is None or outcome in allowed:
            return None
        return f"{outcome!r} is no value of {label.name}: expected {' or '.join(map(repr, allowed))}"

    def status(self) -> dict[str, Any]:
        """Say for each service who serves, what was judged, and what each open cause waits for.

        Raises:
            ClientError: The ledger cannot be read.
        """
        known, problems = dict(self._known), dict(self._problems)
        services = {}
        for name in sorted({*known, *problems} - {""}):
            champion = known.get(name)
            services[name] = {
                "champion": champion.version if champion else None,
                "project": champion.project.name if champion else None,
                "backend": champion.project.drift.backend if champion else None,
                "windows": self._inspector.describe(champion) if champion else {},
                "problem": problems.get(name),
                "causes": [
                    {
                        "id": cause.id,
                        "kind": cause.kind,
                        "reason": cause.reason,
                        "state": cause.state,
                        "note": cause.note,
                        "run_id": cause.run_id,
                        "since": cause.created.isoformat(),
                    }
                    for cause in read_causes(self._ledger, name, OPEN)
                ],
            }
        return {
            "leads": self._leads,
            "services": services,
            "problem": problems.get(""),
            "unpublished": self._publisher.waiting,
            "publishing": self._publisher.problem or None,
        }

    def _follow(self) -> None:
        """Forget what the ledger may say otherwise by the time this watcher leads (again)."""
        if not self._leads:
            return
        self._leads = False
        self._metrics.leading.set(0)
        logger.info("this detector does not watch any more")
        self._acted.clear()
        self._uris.clear()
        self._inspector.clear()
        self._arrivals.clear()
        self._publisher.clear()

    def _serve(self, champion: Champion, polled: bool, uris: list[str]) -> None:
        """Judge a champion's windows, and open causes for alarms and for new objects."""
        key = (champion.service, champion.version)
        # New data is told first: a broken drift backend does not keep it.
        new = self._arrivals.look(champion) if polled else []
        new += [cause for uri in uris if (cause := self._arrivals.take(champion, uri)) is not None]
        for cause in new:
            self._metrics.triggers.labels(cause.service, cause.kind, cause.state).inc()
        self._publisher.recall(champion)
        if key not in self._acted:
            for row in self._ledger.read_verdicts(*key, limit=RECALLED):
                self._trigger.open(row.verdict, champion)
            self._acted.add(key)
        for verdict in self._inspector.inspect(champion, self._clock()):
            self._trigger.open(verdict, champion)
            self._publisher.add(verdict, champion)

    def _report(self, problems: dict[str, str]) -> None:
        """Log what is new among the problems."""
        for name, text in problems.items():
            if self._problems.get(name) != text:
                logger.warning("%s: %s", name or "watching", text)
        for name in self._problems.keys() - problems.keys():
            logger.info("%s: is well again", name or "watching")
        self._problems = problems

    def _publish(self, stop: Event) -> None:
        while not stop.is_set():
            done = self._publisher.publish(limit=1)
            if not done:
                stop.wait(INTERVAL if not self._publisher.problem else POLL)

    def _pause(self, stop: Event) -> None:
        """Wait for the next look; a hint or the end comes sooner."""
        deadline = time.monotonic() + INTERVAL
        while not stop.is_set() and not self._awake.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._awake.wait(min(left, 0.2))
