"""When a recurring run is due: six-field cron expressions in UTC, or intervals."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from croniter import CroniterError, croniter

from embedded.runs.errors import BadRequestError

_VALUE = r"(\d+|[A-Za-z]{3})"
_PART = rf"(\*|\?|{_VALUE}(-{_VALUE})?)(/\d+)?"
_FIELD = re.compile(rf"{_PART}(,{_PART})*")
_FIELDS = ("second", "minute", "hour", "day of the month", "month", "day of the week")


@dataclass(frozen=True)
class Times:
    """The times of a recurring run: by `cron`, or every `interval` seconds; all in UTC.

    Attributes:
        cron: Six fields as `check_cron` takes them; empty for an interval.
        interval: Seconds; 0 with `cron`.
        start: No time is before it; intervals are counted from here.
        end: No time is after it.
    """

    cron: str
    interval: int
    start: datetime
    end: datetime | None = None

    def find_next(self, after: datetime) -> datetime | None:
        """Return the first time after `after`; None if there is none any more."""
        if self.interval:
            steps = max(0, (after - self.start) // timedelta(seconds=self.interval)) + 1
            found = self.start + timedelta(seconds=self.interval) * steps
        else:
            begin = max(after, self.start - timedelta(microseconds=1))
            found = croniter(self.cron, begin, second_at_beginning=True).get_next(datetime)
        return None if self.end is not None and found > self.end else found

    def find_due(self, after: datetime, now: datetime, catch_up: bool) -> datetime | None:
        """Return a time after `after` and not after `now`; None if there is none yet.

        Args:
            after: The last time that was served.
            now: The time now.
            catch_up: Of several take the first, so that each gets its turn; otherwise the last one.
        """
        first = self.find_next(after)
        if first is None or first > now or catch_up:
            return first if first is not None and first <= now else None
        bound = now if self.end is None else min(now, self.end)
        if self.interval:
            return self.start + timedelta(seconds=self.interval) * (
                (bound - self.start) // timedelta(seconds=self.interval)
            )
        # The last one strictly before: cron has no parts of seconds.
        last = croniter(
            self.cron, bound.replace(microsecond=0) + timedelta(seconds=1), second_at_beginning=True
        )
        found: datetime = last.get_prev(datetime)
        return max(found, first)


def check_cron(text: str) -> None:
    """Check a cron expression as Kubeflow's scheduler reads it: six fields, the first are seconds.

    Raises:
        BadRequestError: It is none, or it never comes true.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise BadRequestError(
            f"cron {text!r} has {len(fields)} fields; six are needed: {', '.join(_FIELDS)}. "
            "Every night at three is `0 0 3 * * *`"
        )
    for name, field in zip(_FIELDS, fields, strict=True):
        if not _FIELD.fullmatch(field) or (name == _FIELDS[-1] and "7" in re.split(r"[,\-]", field)):
            raise BadRequestError(
                f"cron {text!r}: {field!r} is no {name}: numbers or names, with * , - / between them "
                "(days of the week are 0 to 6, Sunday is 0)"
            )
    try:
        croniter(text, datetime.now(UTC), second_at_beginning=True).get_next(datetime)
    except CroniterError as error:
        raise BadRequestError(f"cron {text!r}: {error}") from error
