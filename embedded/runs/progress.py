"""What is known of a run's steps: written by the executor at each change, read by the server."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embedded.runs.clock import read_clock
from embedded.runs.folder import read_document, write_document

# The API's RuntimeState, and CACHED: the word of KFP's metadata store for a step whose result was reused.
PENDING = "PENDING"
RUNNING = "RUNNING"
SUCCEEDED = "SUCCEEDED"
SKIPPED = "SKIPPED"
FAILED = "FAILED"
CANCELING = "CANCELING"
CANCELED = "CANCELED"
CACHED = "CACHED"
FINAL_STATES = frozenset({SUCCEEDED, SKIPPED, FAILED, CANCELED, CACHED})


@dataclass(frozen=True)
class StepRecord:
    """One step as the executor saw it; times as the API writes them."""

    state: str
    started: str
    finished: str | None = None
    error: str | None = None
    attempts: int = 0
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Progress:
    """Steps by path (`a/b`), and the groups (If, ParallelFor, nested pipelines) that have ended."""

    steps: dict[str, StepRecord] = field(default_factory=dict)
    ended_groups: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Progress:
        """Read the file; nothing is known when it does not exist, or when a power cut spoilt it."""
        try:
            document = read_document(path)
        except ValueError:
            document = None
        if document is None:
            return cls()
        steps = {
            name: StepRecord(**{**record, "history": tuple(map(tuple, record["history"]))})
            for name, record in document["steps"].items()
        }
        return cls(steps, tuple(document["ended_groups"]))

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document."""
        return asdict(self)


def close_steps(path: Path, state: str, error: str) -> None:
    """Give the steps that were going on a final state, after their executor is gone."""
    progress = Progress.read(path)
    now = read_clock()
    steps = {
        name: record if record.state in FINAL_STATES else _move(record, state, now, error)
        for name, record in progress.steps.items()
    }
    if steps != progress.steps:
        write_document(path, replace(progress, steps=steps).to_document())


class ProgressWriter:
    """The executor's side: keeps the file in step. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._steps: dict[str, StepRecord] = {}
        self._ended: list[str] = []

    def start_step(self, path: Iterable[str]) -> None:
        """A step begins (or its result is looked up in the cache)."""
        now = read_clock()
        with self._lock:
            self._steps["/".join(path)] = StepRecord(RUNNING, now, history=((now, RUNNING),))
            self._write()

    def start_attempt(self, path: Iterable[str]) -> int:
        """A process is started for the step; return the attempt's number, from 1."""
        name = "/".join(path)
        with self._lock:
            record = self._steps[name]
            self._steps[name] = replace(record, attempts=record.attempts + 1)
            self._write()
            return record.attempts + 1

    def end_step(self, path: Iterable[str], state: str, error: str | None = None) -> None:
        """A step ended in a final state."""
        name = "/".join(path)
        with self._lock:
            self._steps[name] = _move(self._steps[name], state, read_clock(), error)
            self._write()

    def end_group(self, path: Iterable[str]) -> None:
        """All that will ever run in a group has run."""
        with self._lock:
            self._ended.append("/".join(path))
            self._write()

    def _write(self) -> None:
        write_document(self._path, Progress(self._steps, tuple(self._ended)).to_document())


def _move(record: StepRecord, state: str, now: str, error: str | None) -> StepRecord:
    return replace(record, state=state, finished=now, error=error, history=(*record.history, (now, state)))
