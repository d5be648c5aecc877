"""Times as the ledger keeps them: whole microseconds since 1970 in UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from clients.errors import RefusedError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = 253_402_300_799_999_999
"""The last microsecond of the year 9999, which is as far as a datetime goes."""

_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime | int) -> int:
    """Return the microseconds of a moment; an integer is taken as such.

    Raises:
        RefusedError: A datetime without a time zone.
    """
    if isinstance(moment, int):
        return moment
    if moment.tzinfo is None:
        raise RefusedError(f"the time {moment.isoformat()} has no time zone: use UTC")
    return (moment - EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """Return the moment, in UTC."""
    return EPOCH + microseconds * _MICROSECOND


def now_us() -> int:
    """Return the microseconds of now."""
    return time.time_ns() // 1000


def parse_time(text: str) -> datetime:
    """Read ISO 8601 with or without a time of day; no time zone means UTC.

    Raises:
        ValueError: It is no time.
    """
    moment = datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
