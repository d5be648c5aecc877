"""A load on the gateway as tests see it: the generator's process, and what it reports."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from e2e_generator import Answer, Failure


def poll(condition: Callable[[], Any], seconds: float = 60, what: str = "the condition") -> Any:
    """Return the condition's first true value; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.05)


@dataclass(frozen=True)
class Report:
    """What a load met; times are seconds of the monotonic clock."""

    answers: list[Answer]
    failures: list[Failure]

    def count(self, start: float = 0.0, end: float = float("inf")) -> Counter[str]:
        """Return the answers by version, of those that came between two times."""
        return Counter(answer.version for answer in self.answers if start <= answer.at < end)

    def share(self, version: str, start: float, end: float) -> tuple[float, int]:
        """Return a version's share of the answers in between, and how many these were."""
        counts = self.count(start, end)
        return counts[version] / counts.total(), counts.total()

    def histories(self) -> dict[int, list[tuple[float, str]]]:
        """Return each customer's answers, with the times when they were asked for, in that order."""
        found: dict[int, list[tuple[float, str]]] = defaultdict(list)
        for answer in self.answers:
            found[answer.customer].append((answer.at - answer.seconds, answer.version))
        return {customer: sorted(history) for customer, history in found.items()}

    def fail_window(self) -> float:
        """Return the seconds from the first to the last failure."""
        times = [failure.at for failure in self.failures]
        return max(times) - min(times) if times else 0.0

    def explain(self) -> str:
        """Return the failures by text, for an assertion's message."""
        counts = Counter(failure.text for failure in self.failures)
        return f"{len(self.failures)} failures beside {len(self.answers)} answers: {counts.most_common(5)}"


@dataclass
class Load:
    """A generator at work."""

    process: subprocess.Popen[str]
    report: Report | None = None

    def count(self) -> dict[str, Any]:
        return self._ask("count")

    def pass_by(self, requests: int, seconds: float = 60) -> None:
        """Wait until so many more requests were answered."""
        goal = self.count()["answered"] + requests
        poll(lambda: self.count()["answered"] >= goal, seconds, f"{requests} more answers")

    def stop(self) -> Report:
        """End the load; returns what it met."""
        if self.report is None:
            document = self._ask("stop")
            self.report = Report(
                [Answer(*answer) for answer in document["answers"]],
                [Failure(*failure) for failure in document["failures"]],
            )
        return self.report

    def _ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        document: dict[str, Any] = json.loads(self.process.stdout.readline())
        return document
