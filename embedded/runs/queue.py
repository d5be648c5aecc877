"""The queue: one run at a time, each in a process of its own, found again after the server's death."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from embedded.errors import StorageError
from embedded.runs.clock import read_clock
from embedded.runs.errors import MissingError, PreconditionError
from embedded.runs.folder import RunFolder, read_document
from embedded.runs.output import read_tail
from embedded.runs.processes import (
    EXECUTOR_MODULE,
    RUN_VARIABLE,
    Identity,
    end_processes,
    find_executor,
    identify,
)
from embedded.runs.progress import (
    CANCELED,
    CANCELING,
    FAILED,
    FINAL_STATES,
    PENDING,
    RUNNING,
    close_steps,
)
from embedded.runs.records import Run
from embedded.runs.storage import Storage

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_STORAGE_SECONDS = 1.0
_QUOTED_LINES = 8
# For what outlives its run; nothing waits for it to finish in good order.
_LEFTOVER_GRACE = 1.0


class RunQueue:
    """Starts the queued runs in order and sees each to its end, in one thread.

    The states of runs are changed here, and by `cancel` and `requeue`, which any thread may call. A run's
    executor outlives the server: at the next start its run is adopted; if it has died in between, the run is
    failed.

    Args:
        storage: Where the runs are kept.
        directory: Where the runs' folders lie.
        read_environment: Called at each start of a run for the variables to add to this process's own.
        grace: Seconds between SIGTERM and SIGKILL for a run that is terminated.
    """

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        read_environment: Callable[[], Mapping[str, str]],
        grace: float = 5.0,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._read_environment = read_environment
        self._grace = grace
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.failed = False
        self._thread = threading.Thread(target=self._work, name="run-queue", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread works; False after `stop`, or after a failure that the log tells."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; it first takes care of what an earlier server left."""
        (self._directory / "cache").mkdir(mode=0o700, exist_ok=True)
        (self._directory / "runs").mkdir(mode=0o700, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """End the run that is going on (it becomes FAILED; queued runs stay queued) and the thread."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def notify(self) -> None:
        """Tell the thread that a run was queued or canceled."""
        self._wake.set()

    def folder(self, run_id: str) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(self._directory / "runs" / run_id)

    def cancel(self, run_id: str) -> Run:
        """Ask for a run's end: a queued one is CANCELED at once, the running one CANCELING until it is gone.

        Raises:
            MissingError: There is no such run.
            PreconditionError: The run has ended.
        """

        def change(run: Run) -> Run:
            if run.state in FINAL_STATES:
                raise PreconditionError(f"run {run_id} has ended already, as {run.state}")
            if run.state == PENDING:
                return _end(run, CANCELED, "terminated before it began")
            return run if run.state == CANCELING else run.move(CANCELING, read_clock())

        changed = self._storage.update(Run, run_id, change)
        self.notify()
        return changed

    def requeue(self, run_id: str) -> Run:
        """Run a failed or canceled run again under its id; cached steps are not repeated.

        Raises:
            MissingError: There is no such run.
            PreconditionError: The run has not ended, or it succeeded.
        """

        def change(run: Run) -> Run:
            if run.state not in (FAILED, CANCELED):
                raise PreconditionError(
                    f"run {run_id} is {run.state}; only failed and canceled runs can be retried"
                )
            self.folder(run_id).reset()
            fresh = {"finished_at": None, "pid": None, "started": None, "attempt": run.attempt + 1}
            return run.model_copy(update=fresh).move(PENDING, read_clock())

        changed = self._storage.update(Run, run_id, change)
        self.notify()
        return changed

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._go_on()
                except (StorageError, OSError) as error:
                    # Nothing was changed. A run that goes on does so, and is found again.
                    logger.warning("the queue waits: %s", error)
                    self._stopping.wait(_STORAGE_SECONDS)
        except Exception:
            self.failed = True
            logger.exception("the queue has failed; no run will be started until the server is restarted")
            # The supervisor starts a fresh server, which takes care of the run that was going on.
            os.kill(os.getpid(), signal.SIGTERM)
            raise

    def _go_on(self) -> None:
        """Take care of what was begun, then start what waits, until `stop`."""
        for run in self._storage.active_runs():
            self._recover(run)
        while not self._stopping.is_set():
            self._wake.clear()
            waiting = self._storage.next_run()
            if waiting is None:
                self._wake.wait()
            else:
                self._run(waiting)

    def _recover(self, run: Run) -> None:
        """Adopt a run that an earlier server started, fail it if its executor has died, or queue it again."""
        executor = _identity(run)
        if executor is None or not executor.is_alive():
            # Its start was not written down, or the clock was set since, by which processes are told apart.
            executor = find_executor(run.id) or executor
        if executor is None:
            if not self.folder(run.id).progress.exists() and not self.folder(run.id).outcome.exists():
                logger.info("run %s was not begun yet: queued again", run.id)
                self._storage.update(Run, run.id, lambda found: _back_to_queue(found))
                return
            executor = Identity(0, 0.0)
        elif executor.is_alive():
            logger.info("run %s goes on in process %d: adopted", run.id, executor.pid)
        self._storage.update(Run, run.id, lambda found: _with_process(found, executor))
        self._watch(run.id, executor, None)

    def _run(self, run: Run) -> None:
        """Start a queued run and see it to its end."""
        try:
            begun = self._storage.update(Run, run.id, _begin)
        except MissingError:
            return
        if begun.state != RUNNING:
            return
        folder = self.folder(run.id)
        try:
            process = self._start_executor(run, folder)
        except OSError as error:
            # One run's trouble (its folder was removed, say) is not to stop the others.
            logger.warning("run %s could not be started: %s", run.id, error)
            text = f"the run could not be started: {error}"
            self._storage.update(Run, run.id, lambda found: _end(found, FAILED, text))
            return
        executor = identify(process.pid)
        self._storage.update(Run, run.id, lambda found: _with_process(found, executor))
        logger.info("run %s started in process %d", run.id, process.pid)
        self._watch(run.id, executor, process)

    def _start_executor(self, run: Run, folder: RunFolder) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self._read_environment(), RUN_VARIABLE: run.id}
        with folder.log.open("ab") as log:
            if run.attempt > 1:
                log.write(f"--- run again, attempt {run.attempt} ---\n".encode())
                log.flush()
            return subprocess.Popen(
                [sys.executable, "-m", EXECUTOR_MODULE, str(folder.path), str(self._directory / "cache")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def _watch(self, run_id: str, executor: Identity, process: subprocess.Popen[bytes] | None) -> None:
        """Wait until a run's executor is gone, ending it when asked to; then write down how the run ended."""
        stopped = False
        while process.poll() is None if process is not None else executor.is_alive():
            state = self._storage.get(Run, run_id).state
            if self._stopping.is_set() or state == CANCELING:
                stopped = state != CANCELING
                end_processes(run_id, executor, self._grace)
            self._wake.wait(_POLL_SECONDS)
            self._wake.clear()
        # Whatever a step left behind ends with its run, as in a pod.
        left = end_processes(run_id, executor, min(_LEFTOVER_GRACE, self._grace))
        folder = self.folder(run_id)
        outcome = read_document(folder.outcome)

        def change(run: Run) -> Run:
            if outcome is not None:
                ended = run.model_copy(update={"finished_at": outcome["finished"]})
                return ended.move(outcome["state"], outcome["finished"], outcome["error"])
            if run.state == CANCELING:
                return _end(run, CANCELED, "terminated on request")
            if stopped:
                text = (
                    "the platform was stopped while this run was going on; retry the run, or submit it again"
                )
                return _end(run, FAILED, text)
            return _end(run, FAILED, _describe_death(executor, process, folder))

        # The steps first: a run in a final state is not looked at again.
        expected = change(self._storage.get(Run, run_id))
        state = CANCELED if expected.state == CANCELED else FAILED
        close_steps(folder.progress, state, expected.error or "")
        ended = self._storage.update(Run, run_id, change)
        folder.remove_temporary()
        logger.info("run %s ended: %s", run_id, ended.state)
        if left:
            logger.error("processes %s of run %s could not be ended", left, run_id)


def _begin(run: Run) -> Run:
    return run.move(RUNNING, read_clock()) if run.state == PENDING else run


def _back_to_queue(run: Run) -> Run:
    if run.state == CANCELING:
        return _end(run, CANCELED, "terminated before it began")
    return run.move(PENDING, read_clock())


def _end(run: Run, state: str, error: str) -> Run:
    now = read_clock()
    return run.model_copy(update={"finished_at": now}).move(state, now, error)


def _with_process(run: Run, executor: Identity) -> Run:
    return run.model_copy(update={"pid": executor.pid, "started": executor.started})


def _identity(run: Run) -> Identity | None:
    return None if run.pid is None or run.started is None else Identity(run.pid, run.started)


def _describe_death(executor: Identity, process: subprocess.Popen[bytes] | None, folder: RunFolder) -> str:
    """Say how an executor went that left no outcome."""
    name = f"process {executor.pid}" if executor.pid else "process"
    if process is None or process.returncode is None:
        how = "was gone when the server looked for it"
    elif process.returncode < 0:
        how = f"was ended by {signal.Signals(-process.returncode).name}"
    else:
        how = f"ended with exit code {process.returncode}"
    text = (
        f"the run's {name} {how} before the run was finished; its steps were ended. "
        f"Its log is {folder.log}; retry the run, or submit it again"
    )
    if process is not None and (process.returncode or 0) > 0:
        text += "\n" + "\n".join(f"  {line}" for line in read_tail(folder.log)[-_QUOTED_LINES:])
    return text
