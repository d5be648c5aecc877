"""What keeps a cause from its run: another run, a canary, the cool-down, labels that are still missing."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from serving.detector.cause import read_causes

if TYPE_CHECKING:
    from clients.ledger.reader import Ledger
    from serving.detector.cause import Cause
    from serving.detector.champion import Champion

RECOUNT = 20.0
"""Labelled customers are counted again after so many times what the last count took, and 1 s."""


class Obstacles:
    """Finds them. One thread at a time uses it.

    Args:
        ledger: For reading.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._counts: dict[str, tuple[int, float]] = {}

    def find(self, cause: Cause, champion: Champion, busy: Cause | None, now: datetime) -> str | None:
        """Say what a waiting cause waits for; None if nothing keeps it.

        Args:
            cause: One that waits.
            champion: Who serves.
            busy: Another cause of the service, whose run is under way.
            now: The time.

        Raises:
            ClientError: The ledger cannot be read.
        """
        if busy is not None:
            return f"waits for the run of cause {busy.id}"
        if champion.canaries:
            return f"waits until canary {', '.join(champion.canaries)} is promoted or taken back"
        rest = timedelta(minutes=champion.project.retraining.cooldown_minutes)
        ended = [other.updated for other in read_causes(self._ledger, cause.service, ("succeeded", "failed"))]
        if ended and now < max(ended) + rest:
            return f"rests until {max(ended) + rest:%Y-%m-%d %H:%M:%S} UTC after the run before"
        if cause.kind != "drift":
            return None
        since = find_start(cause, champion, now)
        needed = champion.project.retraining.min_rows
        count = self._count(cause, champion, since, now)
        if count >= needed:
            return None
        return f"waits for labels: {count:,} of {needed:,} customers since {since:%Y-%m-%d %H:%M:%S} UTC"

    def _count(self, cause: Cause, champion: Champion, since: datetime, now: datetime) -> int:
        """Count the customers since then whose outcome is known; not too often, it joins two tables."""
        known, due = self._counts.get(cause.id, (0, 0.0))
        needed = champion.project.retraining.min_rows
        began = time.monotonic()
        if known < needed and began < due:
            return known
        known = 0
        if self._ledger.count_predictions(cause.service, since=since) >= needed:
            horizon = timedelta(days=champion.project.labels.horizon_days)
            frame = self._ledger.read_outcomes(cause.service, as_of=now, horizon=horizon, since=since)
            known = int(frame["customer_id"].nunique())
        took = time.monotonic() - began
        self._counts[cause.id] = known, began + max(1.0, RECOUNT * took)
        return known

    def forget(self, cause: Cause) -> None:
        """Drop what is known of a cause that has ended."""
        self._counts.pop(cause.id, None)


def find_start(cause: Cause, champion: Champion, now: datetime) -> datetime:
    """Return from when on customers are taken: since they changed, but no further back than allowed."""
    recent = now - timedelta(days=champion.project.retraining.recent_days)
    return max(datetime.fromisoformat(cause.detail["since"]), recent)
