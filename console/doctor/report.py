"""How a report looks: ticks for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from console import display
from console.doctor.finding import Mark, Section

_SIGNS = {
    Mark.GOOD: ("√", "green"),
    Mark.WARNING: ("‼", "yellow"),
    Mark.BAD: ("×", "bold red"),
    Mark.UNKNOWN: ("?", "dim"),
}


def count(sections: Sequence[Section], mark: Mark) -> int:
    """Return how many findings ended so."""
    return sum(finding.mark is mark for section in sections for finding in section.findings)


def print_report(sections: Sequence[Section]) -> None:
    """Print the findings below their groups, and what it comes to."""
    for section in sections:
        display.out.print(Text(section.title, style="bold"))
        display.out.print(Text("-" * len(section.title), style="dim"))
        for finding in section.findings:
            sign, style = _SIGNS[finding.mark]
            display.out.print(Text(f"{sign} ", style=style) + Text(finding.text))
            if finding.fix:
                display.out.print(Text(f"    {finding.fix}", style="dim"))
        display.out.print()
    display.out.print(_sum_up(sections))


def print_document(target: str, sections: Sequence[Section]) -> None:
    """Print the same as JSON; `ok` says whether nothing is wrong."""
    document: dict[str, Any] = {
        "target": target,
        "ok": count(sections, Mark.BAD) == 0,
        "counts": {mark.value: count(sections, mark) for mark in Mark},
        "groups": [
            {
                "title": section.title,
                "findings": [
                    {
                        "check": finding.check,
                        "mark": finding.mark.value,
                        "text": finding.text,
                        "fix": finding.fix,
                    }
                    for finding in section.findings
                ],
            }
            for section in sections
        ],
    }
    display.print_json(json.loads(json.dumps(document)))


def _sum_up(sections: Sequence[Section]) -> Text:
    wrong, warnings = count(sections, Mark.BAD), count(sections, Mark.WARNING)
    if not wrong:
        unseen = count(sections, Mark.UNKNOWN)
        notes = [f"{warnings} to look at"] if warnings else []
        notes += [f"{unseen} could not be looked at"] if unseen else []
        noted = f" ({', '.join(notes)})" if notes else ""
        return Text(f"Nothing is wrong{noted}.", style="bold green")
    plural = "things are" if wrong != 1 else "thing is"
    advice = "." if wrong == 1 else ": begin with the first, later ones often follow from it."
    return Text(f"{wrong} {plural} wrong{advice}", style="bold red")
