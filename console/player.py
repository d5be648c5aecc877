"""Playing customers: their requests through the gateway at a rate, and their outcomes when they are known."""

from __future__ import annotations

import heapq
import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from clients import names
from clients.detector import Detector
from clients.errors import UnreachableError
from clients.inference import build_request
from clients.settings import Settings
from tenure.project import Project
from tenure.simulation.stream import Visit

_LABEL_BATCH = 500
_TICK = 0.1  # seconds between two looks at which outcomes are due
_MAX_BACKOFF = 5.0
_SHOWN = 160
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one visit met.

    Attributes:
        visit: The customer, with the truth.
        version: Bundle version that answered.
        score: Its probability of leaving.
        at: When it was answered, seconds since the player started.
        seconds: How long the answer took.
    """

    visit: Visit
    version: str
    score: float
    at: float
    seconds: float


class Player:
    """Sends visits from threads of its own, from `with` to its end; any thread may read and command it.

    Requests leave at a fixed rate whatever the answers take (an open loop), but never more than
    `connections` at once: what comes too late for its turn is sent as soon as a connection is free. The
    outcome of every answered visit is posted to the detector when its simulated day has come; a detector that
    does not answer gets it later.

    Args:
        settings: Where gateway and detector are.
        project: Whose service is asked.
        visits: Whom to send first; see `change`.
        rate: Visits a second.
        day_seconds: How long a simulated day lasts.
        limit: Stop sending after so many visits.
        connections: Requests under way at most.
    """

    def __init__(
        self,
        settings: Settings,
        project: Project,
        visits: Iterable[Visit],
        *,
        rate: float,
        day_seconds: float,
        limit: int | None = None,
        connections: int = 16,
    ) -> None:
        self.answers: list[Answer] = []
        self.failures: Counter[str] = Counter()
        self.sent = 0
        self.labels_sent = 0
        self.labels_refused: list[str] = []
        self.sink_problem: str | None = None
        self._project = project
        self._settings = settings
        self._visits: Iterator[Visit] = iter(visits)
        self._rate = rate
        self._day = day_seconds
        self._limit = limit
        self._connections = connections
        self._due: list[tuple[float, int, dict[str, Any]]] = []
        self._posting = 0
        self._numbers = itertools.count()
        self._turn = threading.Lock()  # who holds it sends next
        self._results = threading.Lock()
        self._done = threading.Event()
        self._leave = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._futures: list[Future[None]] = []
        self.started = time.monotonic()

    @property
    def answered(self) -> int:
        """How many visits were answered."""
        return len(self.answers)

    @property
    def failed(self) -> int:
        """How many visits were not answered with a prediction."""
        return self.failures.total()

    @property
    def labels_waiting(self) -> int:
        """How many outcomes are not posted yet."""
        return len(self._due) + self._posting

    @property
    def sending(self) -> bool:
        """Whether requests still leave. Raises what ended the player, if something did."""
        self.check()
        return not self._done.is_set()

    def change(self, visits: Iterable[Visit]) -> None:
        """Go on with other visits from the next one on."""
        self._visits = iter(visits)

    def stop(self) -> None:
        """Send no further request; outcomes still go out when they are due."""
        self._done.set()

    def check(self) -> None:
        """Raise what ended the player, if something did."""
        for future in self._futures:
            if future.done():
                future.result()

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._pool = ThreadPoolExecutor(self._connections + 1, thread_name_prefix="player")
        self._futures = [self._pool.submit(self._send_all) for _ in range(self._connections)]
        self._futures.append(self._pool.submit(self._post_labels))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._leave.set()
        assert self._pool is not None  # noqa: S101 - set by __enter__
        self._pool.shutdown()
        if error is None:
            self.check()

    def _send_all(self) -> None:
        """Send visits one after the other on one connection, each when its turn has come."""
        rollout = self._project.rollout
        namespace = rollout.namespace or self._settings.namespace
        host = names.hostname(rollout.service, namespace, self._settings.ingress_domain)
        gateway = urlsplit(self._settings.gateway_url)
        kind = http.client.HTTPSConnection if gateway.scheme == "https" else http.client.HTTPConnection
        connection = kind(gateway.hostname or "", gateway.port, timeout=_TIMEOUT)
        try:
            while (visit := self._take()) is not None:
                self._send(connection, host, visit)
        finally:
            connection.close()
            self._done.set()

    def _take(self) -> Visit | None:
        """Wait for the next turn and return its visit; None when nothing is to be sent any more."""
        with self._turn:
            if self._done.is_set() or (self._limit is not None and self.sent >= self._limit):
                return None
            due = self.started + self.sent / self._rate
            if self._done.wait(max(0.0, due - time.monotonic())):
                return None
            visit = next(self._visits, None)
            self.sent += visit is not None
            return visit

    def _send(self, connection: http.client.HTTPConnection, host: str, visit: Visit) -> None:
        contract, service = self._project.contract, self._project.rollout.service
        body = build_request([visit.features], contract, customer_ids=[visit.customer_id])
        headers = {
            "Host": host,
            "Content-Type": "application/json",
            names.CUSTOMER_HEADER: visit.customer_id,
        }
        begin = time.monotonic()
        try:
            connection.request("POST", f"/v2/models/{service}/infer", json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # the next request opens it anew
            self._note_failure(type(error).__name__)
            return
        if answer.status != httpx.codes.OK:
            self._note_failure(f"{answer.status}: {content.decode(errors='replace')[:_SHOWN]}")
            return
        document = json.loads(content)
        score = next(one["data"][0] for one in document["outputs"] if one["name"] == "churn_probability")
        end = time.monotonic()
        with self._results:
            if self._settings.detector_url is not None:
                self._schedule(visit)
            self.answers.append(
                Answer(visit, document["model_version"], float(score), end - self.started, end - begin)
            )

    def _note_failure(self, reason: str) -> None:
        with self._results:
            self.failures[reason] += 1

    def _schedule(self, visit: Visit) -> None:
        """Note when the outcome of a visit that was just answered is to be posted."""
        now = datetime.now(UTC)
        known_in = visit.known_days * self._day
        label = {
            "service": self._project.rollout.service,
            "customer_id": visit.customer_id,
            "outcome": visit.outcome,
            # The prediction's own time was before `now`: however short a day, the outcome comes after it.
            "true_at": (now + timedelta(seconds=visit.true_days * self._day)).isoformat(),
            "known_at": (now + timedelta(seconds=known_in)).isoformat(),
        }
        heapq.heappush(self._due, (time.monotonic() + known_in, next(self._numbers), label))

    def _post_labels(self) -> None:
        """Post what is due, until there is nothing left to come or the player is left."""
        if self._settings.detector_url is None:
            return
        backoff = _TICK
        with Detector.connect(self._settings, timeout=_TIMEOUT) as detector:
            while not self._leave.is_set() and not (self._is_quiet() and not self._due):
                batch = self._pop_due()
                kept = not batch or self._post(detector, [label for _, _, label in batch])
                with self._results:
                    for entry in () if kept else batch:
                        heapq.heappush(self._due, entry)
                    self._posting = 0
                backoff = _TICK if kept else min(2 * backoff, _MAX_BACKOFF)
                if len(batch) < _LABEL_BATCH or not kept:
                    self._leave.wait(backoff)

    def _pop_due(self) -> list[tuple[float, int, dict[str, Any]]]:
        """Take what is due from the heap, at most a batch of it."""
        now = time.monotonic()
        batch: list[tuple[float, int, dict[str, Any]]] = []
        with self._results:
            while self._due and self._due[0][0] <= now and len(batch) < _LABEL_BATCH:
                batch.append(heapq.heappop(self._due))
            self._posting = len(batch)
        return batch

    def _is_quiet(self) -> bool:
        """Say whether nothing is sent any more and every request has its answer."""
        return self._done.is_set() and self.answered + self.failed >= self.sent

    def _post(self, detector: Detector, batch: list[dict[str, Any]]) -> bool:
        """Post outcomes; returns whether the detector keeps them (or never will)."""
        try:
            refused = detector.post_labels(batch)
        except UnreachableError as error:
            self.sink_problem = str(error)
            return False
        self.sink_problem = None
        self.labels_refused += [f"{one.field}: {one.message}" for one in refused]
        self.labels_sent += len(batch) - len(refused)
        return True
