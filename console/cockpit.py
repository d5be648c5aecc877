"""How a rollout looks: shares, the canary's step, each signal's interval beside what is tolerated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from console import display
from console.standing import Flight, State

WIDTH = 24
"""Characters of a signal's bar."""


def build_view(state: State, steps: Sequence[int]) -> RenderableType:
    """Build the picture of a rollout.

    Args:
        state: What is.
        steps: The project's steps, to tell how far the canary is from the end.
    """
    rows = [
        (one.role, one.name, one.version, f"{one.weight} %", f"{one.asked} %", "yes" if one.ready else "no")
        for one in state.variants
    ]
    header = ("ROLE", "VARIANT", "VERSION", "TRAFFIC", "ASKED", "READY")
    parts: list[RenderableType] = [display.build_table(header, rows, right=(3, 4))]
    facts: dict[str, Any] = {}
    if state.flight is not None:
        parts += [Text(), _build_signals(state.flight)]
        facts["step"] = describe_step(state.flight, steps)
        facts["now"] = state.flight.text
    if state.transition:
        facts["last"] = say_transition(state.transition)
    if state.pending:
        facts["asked for"] = ", ".join(state.pending)
    if state.paused:
        facts["paused"] = "yes: shares stay as they are until `tenure rollout resume`"
    if state.previous:
        facts["before this"] = state.previous
    if state.unrecorded:
        facts["unrecorded"] = f"{state.unrecorded} transitions wait for registry, ledger or events"
    if facts:
        parts += [Text(), display.format_facts(facts)] if state.flight else [display.format_facts(facts)]
    return Group(*parts)


def build_history(transitions: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Build the table of transitions, oldest first."""
    rows = [
        (
            one["at"],
            one["outcome"].replace("_", " "),
            ", ".join(f"{version} {share} %" for version, share in one["shares"].items()),
            one["reason"],
        )
        for one in transitions
    ]
    return display.build_table(("AT", "WHAT", "FROM THEN ON", "WHY"), rows)


def say_transition(transition: Mapping[str, Any]) -> str:
    """Say what the pilot did last, as `promoted bfc94dbfbcbc, before 44dd0e6d9c95, at TIME`."""
    words = [str(transition["outcome"]).replace("_", " ")]
    if "digest" in transition:
        words[0] += f" {transition['digest'][:12]}"
    if "previous" in transition:
        words.append(f"before {transition['previous'][:12]}")
    if transition.get("reason"):
        words.append(str(transition["reason"]))
    return ", ".join([*words, f"at {transition['at']}"])


def _build_signals(flight: Flight) -> RenderableType:
    rows = []
    for signal in flight.signals:
        verdict = Text("harm", style="bold red") if signal["harm"] else Text("not yet sure")
        if signal["safe"] and not signal["harm"]:
            verdict = Text("safe", style="green")
        rows.append(
            (
                signal["name"],
                f"{signal['estimate']:+.4f}",
                f"{signal['low']:+.4f} .. {signal['high']:+.4f}",
                f"{signal['tolerance']:.4f}",
                draw_interval(signal["low"], signal["high"], signal["tolerance"]),
                str(signal["n"]),
                verdict,
            )
        )
    header = ("SIGNAL", "WORSE BY", "SURELY WITHIN", "TOLERATED", "", "ANSWERS", "")
    return display.build_table(header, rows, right=(1, 2, 3, 5))


def draw_interval(low: float, high: float, tolerance: float) -> str:
    """Draw an interval from 0 to twice the tolerance, whose place is `|`: `--===|====>`."""
    span = 2 * tolerance or max(abs(high), 1.0)
    first, last = (min(max(value / span, 0.0), 1.0) for value in (low, high))
    cells = ["·"] * WIDTH
    for place in range(int(first * (WIDTH - 1)), int(last * (WIDTH - 1)) + 1):
        cells[place] = "="
    if high > span:
        cells[-1] = ">"
    if low < 0:
        cells[0] = "<"
    cells[WIDTH // 2] = "|"
    return "".join(cells)


def describe_step(flight: Flight, steps: Sequence[int]) -> str:
    """Say which step of the roll-out the canary is at, what follows, and for how long it has been there."""
    if flight.step < 0:
        text = f"dark launch: {flight.mirror} % of the requests are copied to the canary"
    elif flight.step < len(steps):
        following = f"then {steps[flight.step + 1]} %" if flight.step + 1 < len(steps) else "the last one"
        text = f"{flight.step + 1} of {len(steps)}: {steps[flight.step]} %, {following}"
    else:
        text = str(flight.step + 1)
    seconds = (datetime.now(UTC) - flight.since).total_seconds()
    return f"{text}, for {display.format_seconds(max(seconds, 0.0))}"
