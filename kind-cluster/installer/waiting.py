"""Waiting for what is really ready, with a word about what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable

from installer.errors import WaitError

_TELL_EVERY = 15


def wait_until(
    what: str,
    probe: Callable[[], str | None],
    timeout: float,
    *,
    say: Callable[[str], None],
    every: float = 1,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask `probe` until it returns None; a text is the reason why not yet.

    Raises:
        WaitError: After `timeout` seconds, with the last reason.
    """
    started = clock()
    told = float("-inf")
    said = ""
    while True:
        reason = probe()
        if reason is None:
            return
        now = clock()
        if now - started >= timeout:
            raise WaitError(f"{what}: not ready after {timeout:.0f} s: {reason}")
        if (reason != said and now - started >= 2) or now - told >= _TELL_EVERY:
            say(f"waiting for {what}: {reason}")
            said, told = reason, now
        sleep(every)
