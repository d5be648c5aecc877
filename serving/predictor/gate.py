"""Admission: how many requests are answered at a time. What is beyond is refused at once."""

from __future__ import annotations

from serving.predictor.errors import BusyError

RETRY_SECONDS = 1
"""When a refused request may be sent again: what waits is answered long before."""


class Gate:
    """Counts the requests that are complete and not answered yet. Used from one event loop.

    Args:
        limit: Most of them at a time.
    """

    __slots__ = ("_limit", "waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.waiting = 0

    def try_enter(self) -> bool:
        """Count one more request, unless there are too many."""
        if self.waiting >= self._limit:
            return False
        self.waiting += 1
        return True

    def enter(self) -> None:
        """Count one more request.

        Raises:
            BusyError: There are too many.
        """
        if not self.try_enter():
            raise self.refuse()

    def check(self) -> None:
        """Refuse a request that was counted already.

        Raises:
            BusyError: There are too many.
        """
        if self.waiting > self._limit:
            raise self.refuse()

    def leave(self) -> None:
        """Count one less."""
        self.waiting -= 1

    def refuse(self) -> BusyError:
        """Return the error of a request that is not admitted."""
        return BusyError(
            f"the server is busy: expected at most {self._limit} requests at a time, send it again in "
            f"{RETRY_SECONDS} s"
        )
