"""Processes that belong to a platform, found by a mark in their environment, whoever started them."""

from __future__ import annotations

import os
import time

import psutil

from embedded.errors import EmbeddedError
from embedded.home import PLATFORM_VARIABLE

_KILL_SECONDS = 5.0


def find_leftovers(platform_id: str) -> list[psutil.Process]:
    """Return the living processes that carry the platform's id, without this one and its ancestors."""
    spared = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        try:
            if process.environ().get(PLATFORM_VARIABLE) == platform_id:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # gone, a zombie, or somebody else's
    return found


def end_leftovers(platform_id: str, grace_seconds: float = 2.0) -> int:
    """End every process of the platform and its descendants, by SIGTERM, then SIGKILL.

    Returns:
        How many there were.

    Raises:
        EmbeddedError: Some do not end.
    """
    ended: set[psutil.Process] = set()
    # Again until none is found: one of them may have started another meanwhile.
    for _ in range(5):
        found = set(find_leftovers(platform_id))
        if not found:
            return len(ended)
        for process in list(found):
            try:
                found.update(process.children(recursive=True))
            except psutil.NoSuchProcess:
                continue
        ended |= found
        for process in found:
            _signal(process, kill=False)
        for process in _wait_for_ends(found, grace_seconds):
            _signal(process, kill=True)
        _wait_for_ends(found, _KILL_SECONDS)
    pids = ", ".join(str(process.pid) for process in find_leftovers(platform_id))
    raise EmbeddedError(f"these processes of the platform do not end: {pids}; end them by hand")


def is_alive(process: psutil.Process) -> bool:
    """Return whether the process still runs; one that only waits to be reaped by its parent does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for_ends(processes: set[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Return those that still live after `seconds`, or none as soon as all have ended."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if is_alive(process)]:
        if time.monotonic() > deadline:
            return alive
        time.sleep(0.02)
    return []


def _signal(process: psutil.Process, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
