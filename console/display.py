"""How things look: one console for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 160  # nobody resizes a pipe; lines of a table should stay lines


def _open_console(stream: TextIO) -> Console:
    return Console(
        file=stream, highlight=False, soft_wrap=True, width=None if stream.isatty() else _PIPE_WIDTH
    )


out = _open_console(sys.stdout)
"""For answers."""

err = _open_console(sys.stderr)
"""For progress and errors, so that answers can be piped."""

_STYLES = {
    "SUCCEEDED": "green",
    "CACHED": "green",
    "RUNNING": "cyan",
    "FAILED": "bold red",
    "CANCELED": "yellow",
    "SKIPPED": "dim",
    "PENDING": "dim",
}
_MARKS = {"SUCCEEDED": "✓", "CACHED": "✓", "RUNNING": "…", "FAILED": "✗", "CANCELED": "■", "SKIPPED": "–"}


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(document, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")


def print_error(message: str) -> None:
    """Print an error: the first line stands out, the others explain."""
    first, _, rest = message.partition("\n")
    err.print(Text("error: ", style="bold red") + Text(first))
    if rest:
        err.print(Text(rest))


def build_table(columns: Iterable[str], rows: Iterable[Sequence[Any]], right: Iterable[int] = ()) -> Table:
    """Build a plain table; columns whose index is in `right` are aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    aligned = set(right)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in aligned else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table


def style_state(state: str) -> Text:
    """Return a run's or step's state with its mark and colour."""
    return Text(f"{_MARKS.get(state, '·')} {state.lower()}", style=_STYLES.get(state, ""))


def format_seconds(seconds: float | None) -> str:
    """Return a duration as a person says it."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def measure(started: datetime | None, finished: datetime | None) -> float | None:
    """Return the seconds between two times; until now when the second is missing."""
    if started is None:
        return None
    return ((finished or datetime.now(UTC)) - started).total_seconds()


def format_facts(facts: Mapping[str, Any]) -> Table:
    """Build a two-column table of names and values."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value if isinstance(value, Text) else Text(str(value)))
    return table
