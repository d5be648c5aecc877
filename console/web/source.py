"""What the page shows comes from sources, read apart: one that is slow or dead holds up nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from prometheus_client import Counter, Gauge
from prometheus_client.registry import REGISTRY, CollectorRegistry

from clients.errors import ClientError
from tenure.errors import TenureError

T = TypeVar("T")

REST = 10.0
"""A source is read again after so many times what it took: the page is no burden to what it shows."""

_log = logging.getLogger("tenure.console")


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What is known of a source.

    Attributes:
        name: Of the source, for people.
        value: What it said last; None if it has never answered.
        at: When that was.
        problem: Why it did not answer just now; None if it did, or was not asked yet.
    """

    name: str
    value: T | None = None
    at: datetime | None = None
    problem: str | None = None

    @property
    def asked(self) -> bool:
        """Whether it was asked at all."""
        return self.at is not None or self.problem is not None


class Metrics:
    """How reading goes, for Prometheus."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.up = Gauge(
            "tenure_console_source_up",
            "1 if the source answered when it was read last.",
            ["source"],
            registry=registry,
        )
        self.seconds = Counter(
            "tenure_console_source_seconds", "Seconds spent on reading.", ["source"], registry=registry
        )
        self.reads = Counter(
            "tenure_console_source_reads", "Times it was read.", ["source"], registry=registry
        )


class Source(Generic[T]):
    """One thing to read, in a thread of its own when it is looked at; thread-safe.

    Args:
        name: For people.
        read: Returns it; raises ClientError or TenureError when it cannot be had.
        interval: Seconds for which what was read is fresh enough.
        metrics: Told of every read.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], T],
        interval: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reading: Reading[T] = Reading(name)
        self._read = read
        self._interval = interval
        self._metrics = metrics
        self._clock = clock
        self._due = float("-inf")
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    def refresh(self) -> None:
        """Begin to read, unless it is fresh or being read."""
        with self._lock:
            if not self._idle.is_set() or self._clock() < self._due:
                return
            self._idle.clear()
        # A daemon: the process may end while a dead address is waited for.
        threading.Thread(target=self._work, name=f"read {self.reading.name}", daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Wait for the read that goes on, if one does."""
        self._idle.wait(max(seconds, 0.0))

    def _work(self) -> None:
        began, name = self._clock(), self.reading.name
        problem: str | None = "it cannot be read: the console's own log says why"
        try:
            value = self._read()
            self.reading = Reading(name, value, datetime.now(UTC))
            problem = None
        except (ClientError, TenureError) as error:
            problem = str(error)
            if problem != self.reading.problem:
                _log.warning("%s: %s", name, problem)
        finally:  # whatever else is raised ends this thread with a traceback, and the page says so
            if problem is not None:
                self.reading = replace(self.reading, problem=problem)
            took = self._clock() - began
            self._metrics.up.labels(name).set(float(problem is None))
            self._metrics.seconds.labels(name).inc(took)
            self._metrics.reads.labels(name).inc()
            self._due = self._clock() + max(self._interval, REST * took)
            self._idle.set()


def look(groups: Sequence[Sequence[Source[Any]]], patience: float) -> None:
    """Refresh sources, one group after the other, and wait for each group as long as there is patience."""
    for group in groups:
        for source in group:
            source.refresh()
        deadline = time.monotonic() + patience
        for source in group:
            source.wait(deadline - time.monotonic())
