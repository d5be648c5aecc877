"""Reading the tail of a step's output for the reason of its failure."""

from __future__ import annotations

import re
import signal
from pathlib import Path

_TRACEBACK = "Traceback (most recent call last):"
_TAIL_BYTES = 16_384
_EXCEPTION_LINES = 6
_QUOTED_LINES = 8
# A message may quote a status that quotes a log; its cause stands at its end.
_LINE_LENGTH = 2_000
# Raised messages follow their type at the line's start; everything of the stack is indented.
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: .*)?$")


def read_tail(path: Path) -> list[str]:
    """Return the last lines of a log, without trailing blank ones; none when there is no log."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip()[:_LINE_LENGTH] for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def find_exception(lines: list[str]) -> str | None:
    """Return type and message of the last exception that a traceback in `lines` ends with."""
    for start in range(len(lines) - 1, -1, -1):
        if lines[start] != _TRACEBACK:
            continue
        for index in range(start + 1, len(lines)):
            if lines[index][:1].strip() and _EXCEPTION.match(lines[index]):
                return "\n".join(lines[index : index + _EXCEPTION_LINES])
        return None
    return None


def describe_failure(log: Path, exit_code: int) -> str:
    """Say why a step's process failed: its exception, else how it ended and its last lines.

    Args:
        log: The step's output.
        exit_code: As `subprocess` gives it: negative for a signal; a shell reports its child's as 128 +
            signal.
    """
    lines = read_tail(log)
    exception = find_exception(lines)
    if exception is not None:
        return exception
    number = -exit_code if exit_code < 0 else exit_code - 128
    try:
        how = f"the process was ended by {signal.Signals(number).name}"
    except ValueError:
        how = f"the process ended with exit code {exit_code}"
    if number == signal.SIGKILL:
        how += " (someone killed it, or the machine ran out of memory)"
    quoted = "\n".join(f"  {line}" for line in lines[-_QUOTED_LINES:])
    return f"{how}; its last lines:\n{quoted}" if quoted else f"{how}, without any output"
