"""Numbered steps on the terminal: what is done, what it waits for, how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Step:
    """One step. `run` does what is still to do and returns, in a word or two, what came of it."""

    title: str
    run: Callable[[], str]
    skipped: str | None = None
    """Why it is not run, or None."""


class Progress:
    """Prints; one line for each thing worth knowing."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out or sys.stdout
        self._clock = clock
        self._started = clock()

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps in order; the first error ends it."""
        width = len(str(len(steps)))
        for number, step in enumerate(steps, start=1):
            head = f"[{number:>{width}}/{len(steps)}] {step.title}"
            if step.skipped is not None:
                self.line(f"{head}: {step.skipped}")
                continue
            self.line(head)
            began = self._clock()
            outcome = step.run()
            self.say(f"{outcome} ({self._clock() - began:.0f} s, {self.elapsed} in all)")

    @property
    def elapsed(self) -> str:
        """Time since the start, as 4:05."""
        seconds = int(self._clock() - self._started)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def say(self, text: str) -> None:
        """Print a line below the current step."""
        for one in text.splitlines():
            self.line(f"      {one}")

    def line(self, text: str = "") -> None:
        """Print a line."""
        print(text, file=self._out, flush=True)
