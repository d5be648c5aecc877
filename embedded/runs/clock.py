"""Times as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def read_clock() -> str:
    """Return the time now as RFC 3339 in UTC with microseconds; such texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
