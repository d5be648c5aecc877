"""Finding and ending every process of a run.

A run's executor leads a session of its own, and its environment carries the run's id, which all that it
starts inherit. So a step's process is found by the session or by the mark, also when its executor is dead,
and also when the step has left the session.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil

RUN_VARIABLE = "TENURE_RUN_ID"
EXECUTOR_MODULE = "embedded.runs.executor"
_POLL_SECONDS = 0.05
_KILL_SECONDS = 5.0
_EXECUTOR_SECONDS = 1.0
# Both ends of the comparison come from the same clock tick counter; the slack is for its rounding.
_CLOCK_SLACK = 0.05


@dataclass(frozen=True)
class Identity:
    """A process beyond the re-use of its id; `started` is psutil's creation time in seconds."""

    pid: int
    started: float

    def is_alive(self) -> bool:
        """Return whether this very process still runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            return (
                abs(process.create_time() - self.started) <= _CLOCK_SLACK
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


def identify(pid: int) -> Identity:
    """Return the identity of a process that is known to exist (a child that was not waited for)."""
    return Identity(pid, psutil.Process(pid).create_time())


def list_processes(run_id: str, executor: Identity | None = None) -> list[psutil.Process]:
    """Return the processes that a run has now, its executor included."""
    sessions: set[int] = set()
    if executor is not None and executor.is_alive():
        sessions.add(executor.pid)
    marked: list[psutil.Process] = []
    others: list[psutil.Process] = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(RUN_VARIABLE) == run_id:
                marked.append(process)
                if executor is not None and os.getsid(process.pid) == executor.pid:
                    sessions.add(executor.pid)
            else:
                others.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
        except psutil.AccessDenied:
            others.append(process)
    # A child that cleared its environment is still in the session; the id of a session that lives is not
    # re-used.
    return marked + [process for process in others if _session_of(process) in sessions]


def find_executor(run_id: str) -> Identity | None:
    """Return the executor of a run whose start was not written down (the server died just then)."""
    for process in list_processes(run_id):
        try:
            if EXECUTOR_MODULE in process.cmdline() and os.getsid(process.pid) == process.pid:
                return Identity(process.pid, process.create_time())
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return None


def end_processes(run_id: str, executor: Identity | None, grace: float) -> list[int]:
    """End every process of a run: SIGTERM, and SIGKILL for those left after `grace` seconds.

    The executor goes first, or it would report a step as failed that was terminated.

    Returns:
        The ids of processes that SIGKILL did not end within 5 s (they hang in the kernel).
    """
    now = time.monotonic()
    terminate_until, kill_until = now + grace, now + grace + _KILL_SECONDS
    signalled: set[tuple[int, float]] = set()
    while processes := list_processes(run_id, executor):
        now = time.monotonic()
        if now > kill_until:
            return [process.pid for process in processes]
        processes.sort(key=lambda process: executor is None or process.pid != executor.pid)
        for process in processes:
            try:
                key = (process.pid, process.create_time())
                if now > terminate_until:
                    process.kill()
                elif key not in signalled:
                    signalled.add(key)
                    process.terminate()
                if executor is not None and process.pid == executor.pid:
                    _wait_for_end(executor)
            except psutil.NoSuchProcess:
                continue
        time.sleep(_POLL_SECONDS)
    return []


def _wait_for_end(executor: Identity) -> None:
    until = time.monotonic() + _EXECUTOR_SECONDS
    while executor.is_alive() and time.monotonic() < until:
        time.sleep(_POLL_SECONDS / 10)


def _session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except (ProcessLookupError, PermissionError):
        return None
