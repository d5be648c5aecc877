"""What a check found, and checks in groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Seen = TypeVar("Seen")


class Mark(StrEnum):
    """How a check ended."""

    GOOD = "good"
    WARNING = "warning"
    """Works, but something should be looked at; does not change the exit code."""
    BAD = "bad"
    UNKNOWN = "unknown"
    """Could not be looked at, for the reason that the text gives."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: Which check found it; the same words in every release.
        mark: How it ended.
        text: What was looked at, or what is wrong and where.
        fix: What to do next; of anything bad there is always one.
    """

    check: str
    mark: Mark
    text: str
    fix: str | None = None


@dataclass(frozen=True)
class Group(Generic[Seen]):
    """Checks that belong together.

    Attributes:
        title: What they are about.
        checks: Each yields its findings; none means that there was nothing to look at.
        needed: Whether later groups say nothing useful after something bad here.
    """

    title: str
    checks: Sequence[Callable[[Seen], Iterable[Finding]]]
    needed: bool = False


@dataclass(frozen=True)
class Section:
    """A group's findings."""

    title: str
    findings: tuple[Finding, ...]


def examine(groups: Iterable[Group[Seen]], seen: Seen) -> list[Section]:
    """Run the groups in their order, to the end or to a needed group that went wrong."""
    sections = []
    for group in groups:
        findings = tuple(finding for check in group.checks for finding in check(seen))
        if findings:
            sections.append(Section(group.title, findings))
        if group.needed and any(finding.mark is Mark.BAD for finding in findings):
            break
    return sections


def good(check: str, text: str) -> Finding:
    """Return what is as it should be."""
    return Finding(check, Mark.GOOD, text)


def warn(check: str, text: str, fix: str) -> Finding:
    """Return what works but should be looked at."""
    return Finding(check, Mark.WARNING, text, fix)


def bad(check: str, text: str, fix: str) -> Finding:
    """Return what is wrong."""
    return Finding(check, Mark.BAD, text, fix)


def unknown(check: str, text: str) -> Finding:
    """Return what could not be looked at."""
    return Finding(check, Mark.UNKNOWN, text)
