"""Starting recurring runs at their times, in one thread."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from embedded.errors import StorageError
from embedded.runs.clock import write_time
from embedded.runs.creation import RunMaker
from embedded.runs.errors import ApiError, MissingError
from embedded.runs.records import Recurring
from embedded.runs.storage import Storage

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


class Scheduler:
    """Makes a run whenever an enabled schedule is due and not too many of its runs are going on.

    A time is served when its run is queued and that is written down. In between the server may die: the run's
    id follows from schedule and time, so it is not made twice. What fell due while no server lived is made up
    for: every time with catch-up, only the last one without.

    Args:
        storage: Where schedules and runs are kept.
        maker: Makes the runs.
        read_now: The time.
    """

    def __init__(
        self,
        storage: Storage,
        maker: RunMaker,
        read_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._storage = storage
        self._maker = maker
        self._read_now = read_now
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is due afterwards waits for the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def tick(self) -> None:
        """Serve what is due now: of each schedule one time at most."""
        for recurring in self._storage.list_all(Recurring):
            if recurring.enabled and not self._stopping.is_set():
                self._serve(recurring)

    def _work(self) -> None:
        try:
            while not self._stopping.wait(_POLL_SECONDS):
                try:
                    self.tick()
                except StorageError as error:
                    # What is due is made up for; a run's id keeps it from being made twice.
                    logger.warning("the scheduler waits: %s", error)
        except Exception:
            logger.exception("the scheduler has failed; the supervisor starts the server anew")
            os.kill(os.getpid(), signal.SIGTERM)
            raise

    def _serve(self, recurring: Recurring) -> None:
        due = recurring.times().find_due(recurring.served(), self._read_now(), recurring.catch_up)
        if due is None or self._storage.count_active(recurring.id) >= recurring.max_concurrency:
            return
        time = write_time(due)
        problem = None
        try:
            run = self._maker.make_recurring(recurring, time)
            logger.info("%s is due: run %s", recurring.display_name, run.id)
        except ApiError as error:
            # The next time may find it mended.
            problem = f"{time}: {error}"
            logger.warning("recurring run %s could not be made: %s", recurring.display_name, error)
        try:
            self._storage.update(
                Recurring,
                recurring.id,
                lambda found: found.model_copy(update={"last_time": time, "error": problem}),
            )
        except MissingError:
            logger.info("recurring run %s was deleted meanwhile", recurring.display_name)
