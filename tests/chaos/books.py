"""What a seed may cost, and what it did cost: every request, every row, every object is accounted for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from e2e_generator import Failure
from e2e_load import Report

_REFUSED_WITHIN = 5.0
"""Seconds in which somebody who cannot be served is told so."""

# What a client may see of a gateway, and of a model server behind a gateway, that is not there.
_NO_SERVER = re.compile(r"50[23]: ")
_BROKEN = "IncompleteReadError|ConnectionResetError|BrokenPipeError"
_NO_GATEWAY = re.compile(f"ConnectionRefusedError|{_BROKEN}|503: ")
_BROKEN_OFF = re.compile(f"{_BROKEN}|50[23]: ")


@dataclass(frozen=True)
class Kill:
    """One death; times are seconds of the monotonic clock.

    Attributes:
        victim: Who.
        pid: Its process.
        before: A moment before the signal.
        after: A moment after it.
        version: Of a model server, the version that it served.
        asked: Of a model server, when it was asked for `held`.
        held: Of a model server, how many inferences it had not sent to the detector yet; None if unknown.
    """

    victim: str
    pid: int
    before: float
    after: float
    version: str
    asked: float
    held: int | None


@dataclass
class Round:
    """One blow: what it was, when it began, when everything was whole again, who died."""

    name: str
    began: float
    ended: float = float("inf")
    kills: list[Kill] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first death until everything was whole again."""
        return self.ended - (self.kills[0].before if self.kills else self.began)

    def list_deaths(self, *victims: str) -> list[Kill]:
        """Return the deaths of these."""
        return [kill for kill in self.kills if kill.victim in victims]


@dataclass(frozen=True)
class State:
    """What must be as it was before: objects of the API, aliases, bundles, and what the detector refused."""

    objects: dict[str, Any]
    aliases: dict[str, str]
    bundles: dict[str, int]
    dead_letters: int

    def compare(self, after: State) -> list[str]:
        """Return what has changed, in words."""
        problems = []
        for name in ("objects", "aliases", "bundles", "dead_letters"):
            old, new = getattr(self, name), getattr(after, name)
            if old != new:
                problems.append(f"{name} were {old} and are {new}")
        return problems


class Books:
    """Judges a load's report by the deaths that it met.

    Args:
        report: What clients saw.
        rounds: What was done meanwhile.
        connections: Most requests that can be under way at once.
    """

    def __init__(self, report: Report, rounds: list[Round], connections: int) -> None:
        self._report = report
        self._rounds = rounds
        self._connections = connections
        self.cut: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.lost_rows: Counter[str] = Counter()
        self.rows = 0

    def count_in_flight(self, kill: Kill) -> int:
        """Return how many requests were under way at the signal: one on each connection at most."""
        entries: list[Any] = [*self._report.answers, *self._report.failures]
        count = sum(entry.at - entry.seconds <= kill.after and entry.at >= kill.before for entry in entries)
        return min(count, self._connections)

    def check_failures(self) -> list[str]:
        """Hold each failure to what the deaths of its time permit.

        A failure is *cut* when its request was under way while gateway or model server was killed: of these
        there may be as many as were under way at that moment, and the load never has more than one on each
        connection. It is *refused* when it was asked for later, while the gateway or the only stable server
        was away: then it must have come at once, as the error that says so. Anything else is wrong: a failure
        by the death of somebody who does not serve, a refusal while only the canary was away (the stable
        model stands in), one after all was whole again, a wrong answer, a request that hung.
        """
        problems = []
        for failure in self._report.failures:
            entry = next((one for one in self._rounds if one.began <= failure.at <= one.ended), None)
            if entry is None:
                problems.append(f"failed while everything was whole: {failure}")
            elif self._is_cut(failure, entry):
                self.cut[entry.name] += 1
            elif self._is_refused(failure, entry):
                self.refused[entry.name] += 1
            else:
                problems.append(f"{entry.name}: {failure.text} after {failure.seconds:.2f} s")
        for entry in self._rounds:
            deaths = entry.list_deaths("gateway", "stable", "canary")
            held = sum(self.count_in_flight(kill) for kill in deaths)
            cut = self.cut[entry.name]
            if cut > held:
                problems.append(f"{entry.name}: {cut} answers were cut, {held} were under way")
        return problems

    @staticmethod
    def _is_cut(failure: Failure, entry: Round) -> bool:
        started = failure.at - failure.seconds
        return bool(_BROKEN_OFF.match(failure.text)) and any(
            started <= kill.after and failure.at >= kill.before
            for kill in entry.list_deaths("gateway", "stable", "canary")
        )

    @staticmethod
    def _is_refused(failure: Failure, entry: Round) -> bool:
        if failure.seconds > _REFUSED_WITHIN:
            return False
        patterns = [_NO_GATEWAY] * len(entry.list_deaths("gateway"))
        patterns += [_NO_SERVER] * len(entry.list_deaths("stable"))
        return any(pattern.match(failure.text) for pattern in patterns)

    def check_ledger(self, rows: Any, mark: str, counts: Mapping[str, Counter[str]]) -> list[str]:
        """Hold the ledger to the answers, by the customers: each request is about another one.

        A row may be missing only if a model server was killed that still held it: of each such death at most
        as many as it had not sent when it was last asked, and those that it answered afterwards. Or if it was
        dropped and counted by a server that lives. A row without an answer must be of a request that failed;
        a second row, of one that the gateway asked again, as it was under way when a model server was killed.

        Args:
            rows: The ledger's rows since the load began.
            mark: What the ids of its customers begin with.
            counts: Of each live model server by version, what became of its events.
        """
        problems = []
        ids = Counter(one for one in rows["customer_id"] if str(one).startswith(f"{mark}-"))
        self.rows = len(ids)
        answers = {f"{mark}-{answer.number}": answer for answer in self._report.answers}
        failed = {f"{mark}-{failure.number}" for failure in self._report.failures}
        unasked = ids.keys() - answers.keys() - failed
        if unasked:
            problems.append(f"rows without a request: {sorted(unasked)[:5]}")
        for one, number in ids.items():
            if number > 1 and not (one in answers and self._was_asked_again(answers[one])):
                problems.append(f"{one} is in the ledger {number} times")
        missing = {one: answer for one, answer in answers.items() if one not in ids}
        for kill in self._list_server_deaths():
            mine = [one for one, answer in missing.items() if self._may_have_held(kill, answer)]
            since = sum(
                answer.version == kill.version and kill.asked <= answer.at <= kill.after + 0.5
                for answer in self._report.answers
            )
            if kill.held is not None and len(mine) > kill.held + since:
                problems.append(
                    f"{kill.victim} {kill.pid} held {kill.held} inferences and answered {since} more, "
                    f"but {len(mine)} rows are missing"
                )
            self.lost_rows[kill.victim] += len(mine)
            for one in mine:
                del missing[one]
        dropped = sum(count["dropped"] for count in counts.values()) // 2
        if len(missing) > dropped:
            problems.append(f"{len(missing)} rows are missing, {dropped} were dropped and counted")
        return problems

    def _list_server_deaths(self) -> Iterator[Kill]:
        for entry in self._rounds:
            yield from entry.list_deaths("stable", "canary")

    def _was_asked_again(self, answer: Any) -> bool:
        """Whether a request was under way while a model server died."""
        return any(
            answer.at - answer.seconds <= kill.after and answer.at >= kill.before
            for kill in self._list_server_deaths()
        )

    def _may_have_held(self, kill: Kill, answer: Any) -> bool:
        """Whether a death may explain a missing row: it was answered by that process, before its end."""
        born = max(
            (
                other.after
                for other in self._list_server_deaths()
                if other.victim == kill.victim and other.after < kill.before
            ),
            default=0.0,
        )
        return bool(answer.version == kill.version and born <= answer.at <= kill.after + 0.5)

    def describe(self) -> Iterator[str]:
        """Yield the figures, in words."""
        report = self._report
        yield f"{len(report.answers)} answered, {len(report.failures)} failed, {self.rows} rows in the ledger"
        for entry in self._rounds:
            deaths = entry.list_deaths("gateway", "stable", "canary")
            if deaths or self.cut[entry.name] or self.refused[entry.name]:
                under_way = "+".join(str(self.count_in_flight(kill)) for kill in deaths)
                yield (
                    f"{entry.name}: {self.cut[entry.name]} cut of {under_way} under way, "
                    f"{self.refused[entry.name]} refused while it was away"
                )
        for victim, number in self.lost_rows.items():
            if number:
                yield f"{victim}: {number} rows were with it when it died"
