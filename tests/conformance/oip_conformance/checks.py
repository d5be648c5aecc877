"""What a check is, and the register that the checks enter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from oip_conformance.clauses import Clause

if TYPE_CHECKING:
    from oip_conformance.session import Session


class Level(StrEnum):
    """How binding a rule is."""

    MUST = "must"
    """The document demands it, or the request contradicts what the document demands of requests."""
    SHOULD = "should"
    """The document recommends it, shows it only, or leaves it open and one answer is the safe one."""


class Verdict(StrEnum):
    """What a check found."""

    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"


class Failure(StrEnum):
    """In which way a check failed."""

    BROKEN = "rule broken"
    SERVER_ERROR = "5xx"
    ACCEPTED = "wrong 200"
    SILENT = "hang/closed"
    MESSAGE = "no error message"
    HURT = "server hurt"


class Tolerance(StrEnum):
    """Which answers to a malformed request are right."""

    REFUSE = "refuse"
    """Only an error of the caller."""
    ANSWER_OR_REFUSE = "answer or refuse"
    """An error of the caller, or the right answer: the request is odd, yet can be understood."""
    REFUSE_OR_CLOSE = "refuse or close"
    """An error of the caller, or a closed connection: the request never became complete."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        sent: The request, shortened.
        came: The answer, shortened; why, for a check that is not applicable.
    """

    verdict: Verdict
    sent: str
    came: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        id: `transport.name`; of a malformed request, `transport.malformed.name`.
        rule: What is demanded, in our words.
        build: For a rule: asks and judges; returns what came. For a malformed request: returns it.
    """

    id: str
    level: Level
    clause: Clause
    rule: str
    build: Callable[[Session], Any]
    tolerance: Tolerance | None = None

    @property
    def transport(self) -> str:
        """`rest`, `binary` or `grpc`."""
        return self.id.partition(".")[0]

    @property
    def has_message(self) -> bool:
        """Whether an error needs the protocol's error object; HTTP, below it, knows of none."""
        return not self.clause.document.title.startswith(("RFC 9110", "RFC 9112"))

    @property
    def malformed(self) -> bool:
        """Whether the check sends a request that is wrong or odd."""
        return self.tolerance is not None


Build = Callable[["Session"], Any]
Mark = Callable[[Build], Build]

_register: dict[str, Check] = {}


def _enter(check: Check) -> None:
    if check.id in _register:
        raise ValueError(f"there are two checks {check.id}")
    _register[check.id] = check


def rule(id_: str, level: Level, clause: Clause, text: str) -> Mark:
    """Enter a function that asks the server and raises `BrokenError` if the answer breaks the rule."""

    def mark(build: Build) -> Build:
        _enter(Check(id_, level, clause, text, build))
        return build

    return mark


def malformed(
    id_: str, level: Level, clause: Clause, text: str, tolerance: Tolerance = Tolerance.REFUSE
) -> Mark:
    """Enter a function that returns a request that is wrong, or for the tolerant kinds odd."""

    def mark(build: Build) -> Build:
        _enter(Check(id_, level, clause, text, build, tolerance))
        return build

    return mark


def list_checks() -> tuple[Check, ...]:
    """Return all checks, in the order in which they run."""
    # The modules enter their checks when they are imported.
    from oip_conformance import (  # noqa: F401, I001 - in the order of the scorecard
        rest_rules,
        binary_malformed,
        binary_rules,
        data_malformed,
        grpc_malformed,
        grpc_rules,
        infer_rules,
        json_malformed,
        raw_malformed,
        rest_malformed,
        transport_malformed,
    )

    return tuple(sorted(_register.values(), key=_rank))


def _rank(check: Check) -> tuple[int, bool]:
    return ("rest", "binary", "grpc").index(check.transport), check.malformed
