"""What the checks found, counted, and written as text, JSON or Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from oip_conformance import __version__
from oip_conformance.checks import Check, Failure, Finding, Level, Verdict
from oip_conformance.session import Session

Row = tuple[Check, Finding]
_PARTS = (
    ("REST", "rest", False),
    ("binary tensors", "binary", False),
    ("gRPC", "grpc", False),
    ("malformed REST", "rest", True),
    ("malformed binary tensors", "binary", True),
    ("malformed gRPC", "grpc", True),
)


@dataclass(frozen=True)
class Scorecard:
    """The findings of one run against one server."""

    server: str
    model: str
    rows: tuple[Row, ...]

    @classmethod
    def collect(cls, session: Session, rows: Iterable[Row]) -> Scorecard:
        """Gather the findings of a session."""
        said = session.server_metadata
        server = " ".join(str(said[key]) for key in ("name", "version") if said.get(key)) or "unnamed server"
        return cls(server, session.model, tuple(rows))

    @property
    def ok(self) -> bool:
        """Whether no rule that binds is broken."""
        return not any(check.level is Level.MUST and found.failure for check, found in self.rows)

    def failures(self) -> list[Row]:
        """Return what failed, the binding first."""
        failed = [row for row in self.rows if row[1].failure]
        return sorted(failed, key=lambda row: row[0].level is Level.SHOULD)

    def count(self, transport: str, malformed: bool, level: Level) -> Counter[Verdict]:
        """Count the verdicts of one part."""
        return Counter(
            found.verdict
            for check, found in self.rows
            if (check.transport, check.malformed, check.level) == (transport, malformed, level)
        )

    def count_failures(self) -> Counter[Failure]:
        """Count the ways of failing."""
        return Counter(found.failure for _, found in self.rows if found.failure)


def render_counts(card: Scorecard) -> list[list[str]]:
    """Return the table of counts: part, musts kept, shoulds kept, not applicable."""
    table = [["part", "must", "should", "not applicable"]]
    for title, transport, malformed in _PARTS:
        must, should = (card.count(transport, malformed, level) for level in (Level.MUST, Level.SHOULD))
        passed_over = must[Verdict.NOT_APPLICABLE] + should[Verdict.NOT_APPLICABLE]
        table.append([title, _share(must), _share(should), str(passed_over)])
    return table


def _share(counts: Counter[Verdict]) -> str:
    asked = counts[Verdict.PASS] + counts[Verdict.FAIL]
    return f"{counts[Verdict.PASS]} of {asked}" if asked else "-"


def render_text(card: Scorecard, every: bool = False) -> str:
    """Return the scorecard for a terminal: the failures, or every check, then the counts."""
    lines = [f"{card.server}, model {card.model}", ""]
    for check, found in card.rows if every else card.failures():
        word = found.failure or found.verdict
        lines.append(f"{word:<16} {check.level:<6} {check.id}")
        if found.failure:
            lines += [f"    rule: {check.rule} [{check.clause}]", f"    sent: {found.sent}"]
            lines += [f"    came: {found.came}"]
        elif found.verdict is Verdict.NOT_APPLICABLE:
            lines += [f"    {found.came}"]
    table = render_counts(card)
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    lines += [
        "",
        *(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ),
    ]
    ways = card.count_failures()
    if ways:
        lines += ["", "failed: " + ", ".join(f"{count} {way}" for way, count in ways.most_common())]
    lines += ["", "every binding rule is kept" if card.ok else "binding rules are broken"]
    return "\n".join(lines)


def to_json(card: Scorecard) -> dict[str, Any]:
    """Return the scorecard as a document."""
    return {
        "kit": __version__,
        "server": card.server,
        "model": card.model,
        "ok": card.ok,
        "failures": {way.value: count for way, count in card.count_failures().items()},
        "checks": [
            {
                "id": check.id,
                "level": check.level.value,
                "clause": str(check.clause),
                "source": check.clause.document.source,
                "rule": check.rule,
                "verdict": found.verdict.value,
                "failure": found.failure.value if found.failure else None,
                "sent": found.sent,
                "came": found.came,
            }
            for check, found in card.rows
        ],
    }


def write_json(card: Scorecard) -> str:
    """Return the scorecard as JSON."""
    return json.dumps(to_json(card), indent=1) + "\n"


def render_markdown(card: Scorecard) -> str:
    """Return the scorecard as Markdown: the counts, and what failed."""
    lines = [f"### {card.server}", "", *_tabulate(render_counts(card))]
    failed = card.failures()
    if failed:
        rows = [["check", "level", "how it failed", "what came"]]
        rows += [
            [f"`{check.id}`", check.level, found.failure or "", _escape(found.came)]
            for check, found in failed
        ]
        lines += ["", *_tabulate(rows)]
    return "\n".join(lines) + "\n"


def _tabulate(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]


def _escape(text: str) -> str:
    line = " ".join(text.split())[:120].replace("|", "\\|").replace("<", "&lt;")
    return f"{line}..." if len(text) > 120 else line
