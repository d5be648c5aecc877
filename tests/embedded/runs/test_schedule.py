"""When recurring runs are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.runs.errors import BadRequestError
from embedded.runs.schedule import Times, check_cron

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "text",
    ["0 0 3 * * *", "*/2 * * * * *", "0 0 9 ? * 2-6", "0 30 6,18 * JAN-MAR MON", "0 5/15 * 1 * *"],
)
def test_expressions_that_kubeflow_knows(text: str):
    check_cron(text)
    assert Times(text, 0, START).find_next(START) is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0 3 * * *", "has 5 fields; six are needed"),
        ("@daily", "six are needed"),
        ("0 0 3 * * 7", "Sunday is 0"),
        ("R * * * * *", "no second"),
        ("0 0 0 L * *", "no day of the month"),
        ("0 0 0 * * MON#2", "no day of the week"),
        ("61 * * * * *", "out of range"),
        ("0 0 0 30 2 *", "failed to find next date"),
        ("0 0 0 1 1 *;rm", "no day of the week"),
    ],
)
def test_other_expressions_are_refused_with_the_reason(text: str, problem: str):
    with pytest.raises(BadRequestError, match=problem):
        check_cron(text)


def list_times(times: Times, after: datetime, now: datetime) -> list[datetime]:
    """List all times between by trying every second."""
    found = []
    moment = after.replace(microsecond=0)
    while moment <= now:
        if times.interval:
            passed = (moment - times.start).total_seconds()
            fits = passed > 0 and passed % times.interval == 0
        else:
            fits = moment.second % int(times.cron[2:].split()[0]) == 0 and moment >= times.start
        if fits and moment > after and (times.end is None or moment <= times.end):
            found.append(moment)
        moment += SECOND
    return found


@given(
    every=st.integers(1, 29),
    by_cron=st.booleans(),
    after=st.integers(0, 200_000),
    passed=st.integers(0, 90_000),
    end=st.none() | st.integers(0, 300),
)
def test_due_is_the_first_missed_with_catch_up_and_the_last_without(
    every: int, by_cron: bool, after: int, passed: int, end: int | None
):
    times = Times(
        f"*/{every} * * * * *" if by_cron else "",
        0 if by_cron else every,
        START,
        None if end is None else START + SECOND * end,
    )
    served = START + timedelta(milliseconds=after)
    now = served + timedelta(milliseconds=passed)
    expected = list_times(times, served, now)
    assert times.find_due(served, now, True) == (expected[0] if expected else None)
    assert times.find_due(served, now, False) == (expected[-1] if expected else None)


def test_nothing_is_due_before_the_start_and_after_the_end():
    times = Times("0 * * * * *", 0, START, START + timedelta(minutes=2))
    early = START - timedelta(days=1)
    assert times.find_due(early, START - SECOND, True) is None
    assert times.find_due(early, START, False) == START
    assert times.find_due(START, START + timedelta(days=1), False) == START + timedelta(minutes=2)
    assert times.find_due(START + timedelta(minutes=2), START + timedelta(days=1), True) is None
