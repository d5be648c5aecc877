"""A failure of a first install: how it is played, and what the doctor must say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Failure:
    """One failure.

    Attributes:
        play: Makes the stage's cluster like that.
        check: The check that must name the cause.
        says: What its text must match.
        fix: What its advice must match.
        beside: Checks that may also find something: what follows from the cause.
    """

    name: str
    thread: str
    play: Callable[[Any], None]
    check: str
    says: str
    fix: str
    beside: tuple[str, ...] = ()


FAILURES: list[Failure] = []


def failure(thread: str, check: str, says: str, fix: str, *beside: str) -> Callable[..., Any]:
    def keep(play: Callable[[Any], None]) -> Callable[[Any], None]:
        FAILURES.append(Failure(play.__name__, thread, play, check, says, fix, beside))
        return play

    return keep
