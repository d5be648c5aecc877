"""What is killed, in which order: it follows from the seed alone."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import StrEnum

SERVERS = ("stable", "canary")
"""The model servers of the two predictors."""

SERVICES = ("store", "tracking", "gateway", "kubernetes", "runs", "pilot", "detector")
"""Programs of the platform; `kubernetes` is API server and reconciler in one process."""

RUN = "run"
"""A process of the training run that goes on: its executor, or the step that it waits for."""

VICTIMS = (*SERVICES, *SERVERS, RUN)

_PAIRS = 3
_FEWEST, _MOST = 10, 120


class Gap(StrEnum):
    """When the second of a pair is killed."""

    AT_ONCE = "at once"
    UNDER_WAY = "after some more requests"
    JUST_BACK = "as soon as the first was started again"


@dataclass(frozen=True)
class Blow:
    """One or two victims.

    Attributes:
        victims: In the order of their deaths.
        pause: So many requests are answered before it, with everything whole.
        gap: When the second one dies.
        requests: So many are answered, or fail, between the two for `Gap.UNDER_WAY`.
        step: Of a run, the step is killed and not the executor.
    """

    victims: tuple[str, ...]
    pause: int
    gap: Gap
    requests: int
    step: bool

    def __str__(self) -> str:
        if len(self.victims) == 1:
            return self.victims[0]
        gap = f"after {self.requests} more requests" if self.gap is Gap.UNDER_WAY else self.gap.value
        return f"{self.victims[0]}, and {self.victims[1]} {gap}"


def plan_blows(seed: int) -> list[Blow]:
    """Return the blows of a seed: every victim once, some alone and the others in pairs."""
    order = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    victims = order.sample(VICTIMS, len(VICTIMS))
    groups = [tuple(victims[2 * number : 2 * number + 2]) for number in range(_PAIRS)]
    groups += [(victim,) for victim in victims[2 * _PAIRS :]]
    order.shuffle(groups)
    return [
        Blow(
            victims=group,
            pause=order.randint(_FEWEST, _MOST),
            gap=order.choice(list(Gap)),
            requests=order.randint(1, 20),
            step=order.random() < 0.5,
        )
        for group in groups
    ]


def read_seeds(text: str) -> list[int]:
    """Return the seeds that `1..20` or `3,7` means.

    Raises:
        ValueError: It is neither.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"{part!r} is no seed: write 7, 1..20, or several with commas between")
        found.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found
