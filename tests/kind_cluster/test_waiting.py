from __future__ import annotations

from collections.abc import Callable

import pytest

from installer.errors import WaitError
from installer.waiting import wait_until


class Time:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait(probe: Callable[[], str | None], timeout: float, said: list[str], time: Time) -> None:
    wait_until("it", probe, timeout, say=said.append, clock=time.clock, sleep=time.sleep)


def test_what_is_ready_is_not_waited_for() -> None:
    said: list[str] = []
    time = Time()
    wait(lambda: None, 10, said, time)
    assert time.now == 0
    assert said == []


def test_each_new_reason_is_said_once_and_an_old_one_now_and_then() -> None:
    said: list[str] = []
    time = Time()
    wait(lambda: "pulling" if time.now < 5 else "starting" if time.now < 40 else None, 60, said, time)
    assert said[0] == "waiting for it: pulling"
    assert said.count("waiting for it: pulling") == 1
    assert 2 <= said.count("waiting for it: starting") <= 4


def test_after_the_time_allowed_the_last_reason_is_told() -> None:
    time = Time()
    with pytest.raises(WaitError, match="it: not ready after 10 s: no endpoints"):
        wait(lambda: "no endpoints", 10, [], time)
    assert time.now == 10


def test_a_flapping_reason_does_not_fill_the_screen() -> None:
    said: list[str] = []
    time = Time()
    wait(lambda: None if time.now > 5 else f"reason {time.now}", 60, said, time)
    assert len(said) <= 6
