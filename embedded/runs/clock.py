"""Times as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def read_clock() -> str:
    """Return the time now as RFC 3339 in UTC with microseconds; such texts sort by time."""
    return write_time(datetime.now(UTC))


def write_time(time: datetime) -> str:
    """Return a time as RFC 3339 in UTC with microseconds."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
