"""Sources: read apart, not too often, and what is dead says so and keeps what it said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from clients.errors import UnreachableError
from console.web.source import Metrics, Source, look


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock, registry: CollectorRegistry) -> Callable[[Callable[[], Any]], Source[Any]]:
    metrics = Metrics(registry)
    return lambda read: Source("ledger", read, 5, metrics, clock)


def test_what_is_fresh_is_not_read_again(make: Any, clock: Clock) -> None:
    answers = iter(range(9))
    source = make(lambda: next(answers))
    look([[source]], 10)
    look([[source]], 10)
    assert source.reading.value == 0
    clock.now = 5
    look([[source]], 10)
    assert source.reading.value == 1


def test_what_takes_long_is_read_less_often(make: Any, clock: Clock) -> None:
    calls = []

    def read() -> int:
        calls.append(clock.now)
        clock.now += 3
        return 1

    source = make(read)
    look([[source]], 10)
    clock.now = 3 + 29
    look([[source]], 10)
    assert calls == [0]
    clock.now = 3 + 30
    look([[source]], 10)
    assert calls == [0, 33]


def test_a_problem_keeps_what_was_known(make: Any, clock: Clock, registry: CollectorRegistry) -> None:
    answers: list[Any] = ["old", UnreachableError("its database is down"), "new"]

    def read() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    source, seen = make(read), []
    for moment in (0, 5, 10):
        clock.now = moment
        look([[source]], 10)
        seen.append((source.reading.value, source.reading.problem))
        up = registry.get_sample_value("tenure_console_source_up", {"source": "ledger"})
        assert up == float(source.reading.problem is None)
    assert seen == [("old", None), ("old", "its database is down"), ("new", None)]
    assert source.reading.at is not None


def test_a_slow_source_holds_up_nobody_for_long_and_is_asked_once(make: Any) -> None:
    gate, calls = threading.Event(), []

    def read() -> str:
        calls.append(1)
        gate.wait(20)
        return "late"

    source = make(read)
    look([[source]], 0.01)
    look([[source]], 0.01)
    assert not source.reading.asked
    gate.set()
    source.wait(20)
    assert source.reading.value == "late"
    assert calls == [1]


def test_a_defect_of_ours_is_told_of_and_does_not_stop_the_source(
    make: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda defect: raised.set())
    answers: list[Any] = [KeyError("x"), "well"]

    def read() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    source = make(read)
    look([[source]], 10)
    assert "own log" in source.reading.problem
    assert raised.wait(20), "whoever looks into the log finds the traceback"
    clock.now = 5
    look([[source]], 10)
    assert source.reading.value == "well"
    assert source.reading.problem is None
