"""Numbers that several workers count together: each in a row of its own, in memory that they share."""

from __future__ import annotations

import mmap

SIZE = 128
"""How many numbers a worker has."""

_BYTES = 8


class Counters:
    """A table of floats, all 0 at first; one row per worker, which alone writes it. Nothing is locked.

    A worker that takes another one's place goes on from its numbers, so that no sum ever falls.

    Args:
        workers: How many rows.
        row: The own one.
    """

    def __init__(self, workers: int = 1, row: int = 0) -> None:
        self._memory = memoryview(mmap.mmap(-1, workers * SIZE * _BYTES)).cast("d")  # shared by forks
        self.take(row)

    def take(self, row: int) -> None:
        """Make a row the own one."""
        self.own = self._memory[row * SIZE : (row + 1) * SIZE]

    def sum(self, place: int) -> float:
        """Return the sum of one number over all workers."""
        return sum(self._memory[place::SIZE])

    def sums(self, start: int, end: int) -> list[float]:
        """Return the sums of several numbers."""
        return [self.sum(place) for place in range(start, end)]
