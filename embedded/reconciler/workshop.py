"""Slow work beside the loop: one thing at a time for each process, after failures ever more rarely."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from embedded.errors import EmbeddedError

_LONGEST_PAUSE = 30.0


class Workshop:
    """A few threads that fetch, start and stop.

    Args:
        notify: Called when a piece of work is done.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="work")
        self._tasks: dict[str, Future[None]] = {}
        self._attempts: dict[str, tuple[int, float]] = {}
        self._ended = threading.Event()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done."""
        return not self._tasks

    def is_free(self, name: str) -> bool:
        """Return whether nothing is being done to a process, and nothing failed a moment ago."""
        _, not_before = self._attempts.get(name, (0, 0.0))
        return name not in self._tasks and time.monotonic() >= not_before and not self._ended.is_set()

    def submit(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        """Do something to a process, unless it is not free."""
        if not self.is_free(name):
            return
        task = self._pool.submit(work, *arguments)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._notify())

    def collect(self) -> dict[str, EmbeddedError | OSError]:
        """Return what failed since the last call, by process.

        Raises:
            Exception: Whatever was not foreseen.
        """
        failed: dict[str, EmbeddedError | OSError] = {}
        for name, task in list(self._tasks.items()):
            if not task.done():
                continue
            del self._tasks[name]
            error = task.exception()
            if error is None:
                self._attempts.pop(name, None)
                continue
            if not isinstance(error, EmbeddedError | OSError):
                raise error
            count = self._attempts.get(name, (0, 0.0))[0] + 1
            self._attempts[name] = (count, time.monotonic() + min(2.0**count, _LONGEST_PAUSE))
            failed[name] = error
        return failed

    def forget(self, name: str) -> None:
        """Forget the failures of a process that is gone."""
        self._attempts.pop(name, None)

    def end(self) -> None:
        """Finish what is being done and begin nothing more."""
        self._ended.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
