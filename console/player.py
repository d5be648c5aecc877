"""Playing customers: their requests through the gateway at a rate, and their outcomes when they are known."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import httpx

from clients import names
from clients.inference import build_request
from clients.settings import Settings
from console.errors import FAILED, ConsoleError
from tenure.project import Project
from tenure.simulation.stream import Visit

_LABEL_BATCH = 500
_TICK = 0.1  # seconds between two looks at what is due
_MAX_BACKOFF = 5.0
_SHOWN = 160


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
    """Sends visits from a thread of its own, from `with` to its end; any thread may read and command it.

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
        self._done = threading.Event()
        self._leave = threading.Event()
        self._thread: ThreadPoolExecutor | None = None
        self._future: Future[None] | None = None
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
        if self._future is None or not self._future.done():
            return
        try:
            self._future.result()
        except BaseExceptionGroup as group:
            # One problem ends every task; it is the problem that is to be told, not how tasks are grouped.
            problem: BaseException = group.subgroup(ConsoleError) or group
            while isinstance(problem, BaseExceptionGroup):
                problem = problem.exceptions[0]
            raise problem from group

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="player")
        self._future = self._thread.submit(asyncio.run, self._run())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._leave.set()
        assert self._thread is not None  # noqa: S101 - set by __enter__
        self._thread.shutdown()
        if error is None:
            self.check()

    async def _run(self) -> None:
        rollout = self._project.rollout
        host = names.hostname(rollout.service, rollout.namespace, self._settings.ingress_domain)
        # Both are this machine's or this cluster's: a proxy from the environment cannot reach them.
        limits = httpx.Limits(max_connections=self._connections, max_keepalive_connections=self._connections)
        async with (
            httpx.AsyncClient(
                base_url=self._settings.gateway_url,
                headers={"host": host},
                timeout=10,
                trust_env=False,
                limits=limits,
            ) as gateway,
            httpx.AsyncClient(
                base_url=self._settings.detector_url or "", timeout=10, trust_env=False
            ) as detector,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._post_labels(detector))
            tasks.create_task(self._send_all(gateway))

    async def _send_all(self, gateway: httpx.AsyncClient) -> None:
        """Start one request each time one is due, while the limit is not reached and nobody says stop."""
        free = asyncio.Semaphore(self._connections)
        begin = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while not self._done.is_set() and (self._limit is None or self.sent < self._limit):
                wait = begin + self.sent / self._rate - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(min(wait, _TICK))
                    continue
                await free.acquire()
                visit = next(self._visits, None)
                if visit is None:
                    free.release()
                    break
                self.sent += 1
                task = tasks.create_task(self._send(gateway, visit))
                task.add_done_callback(lambda _: free.release())
        self._done.set()

    async def _send(self, gateway: httpx.AsyncClient, visit: Visit) -> None:
        contract, service = self._project.contract, self._project.rollout.service
        body = build_request([visit.features], contract, customer_ids=[visit.customer_id])
        headers = {names.CUSTOMER_HEADER: visit.customer_id}
        begin = time.monotonic()
        try:
            answer = await gateway.post(f"/v2/models/{service}/infer", json=body, headers=headers)
        except httpx.TransportError as error:
            self.failures[type(error).__name__] += 1
            return
        if answer.status_code != httpx.codes.OK:
            self.failures[f"{answer.status_code}: {answer.text[:_SHOWN]}"] += 1
            return
        document = answer.json()
        score = next(one["data"][0] for one in document["outputs"] if one["name"] == "churn_probability")
        end = time.monotonic()
        self.answers.append(
            Answer(visit, document["model_version"], float(score), end - self.started, end - begin)
        )
        if self._settings.detector_url is not None:
            self._schedule(visit)

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

    async def _post_labels(self, detector: httpx.AsyncClient) -> None:
        """Post what is due, until there is nothing left to come or the player is left."""
        backoff = _TICK
        while not self._leave.is_set() and not (self._done.is_set() and not self._due and self._is_quiet()):
            now = time.monotonic()
            batch: list[tuple[float, int, dict[str, Any]]] = []
            while self._due and self._due[0][0] <= now and len(batch) < _LABEL_BATCH:
                batch.append(heapq.heappop(self._due))
            self._posting = len(batch)
            kept = not batch or await self._post(detector, [label for _, _, label in batch])
            self._posting = 0
            if not kept:
                for entry in batch:
                    heapq.heappush(self._due, entry)
                backoff = min(2 * backoff, _MAX_BACKOFF)
                await asyncio.sleep(backoff)
                continue
            backoff = _TICK
            if len(batch) < _LABEL_BATCH:
                await asyncio.sleep(_TICK)

    def _is_quiet(self) -> bool:
        """Say whether every request that was sent has its answer."""
        return self.answered + self.failed >= self.sent

    async def _post(self, detector: httpx.AsyncClient, batch: list[dict[str, Any]]) -> bool:
        """Post outcomes; returns whether the detector keeps them (or never will)."""
        try:
            answer = await detector.post("/labels", json=batch)
        except httpx.TransportError as error:
            self.sink_problem = f"the detector does not answer ({type(error).__name__})"
            return False
        if answer.status_code >= 500:
            self.sink_problem = f"the detector answers {answer.status_code}: {answer.text[:_SHOWN]}"
            return False
        if answer.status_code >= 400:
            raise ConsoleError(
                f"the detector refuses outcomes: {answer.status_code}: {answer.text[:_SHOWN]}", FAILED
            )
        self.sink_problem = None
        refused = answer.json()["refused"]
        self.labels_refused += [f"{one['field']}: {one['message']}" for one in refused]
        self.labels_sent += len(batch) - len(refused)
        return True
