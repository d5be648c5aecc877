"""Drawings as numbers for SVG: shares of the traffic, intervals beside a tolerance, figures over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

INTERVAL_WIDTH = 220
INTERVAL_HEIGHT = 22
INTERVAL_END = 2.0
"""Intervals are drawn from 0 to so many times the tolerance, a little below 0 as well."""

_BELOW = 0.5
WIDTH, HEIGHT = 420, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 412, 12, 138
_DOTS = 12  # a line of so few points shows each


@dataclass(frozen=True)
class Interval:
    """An interval's place in a strip: `zero` and `limit` are where 0 and the tolerance are."""

    x: float
    width: float
    dot: float
    zero: float
    limit: float
    beyond: bool


@dataclass(frozen=True)
class Figure:
    """A figure of one version at a time, surely between `low` and `high`."""

    version: str
    at: datetime
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """A series of one version as SVG: the band's outline, the line, and its single points."""

    name: str
    version: str
    band: str
    path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """Series over time, with marks at moments; ticks are (place, text)."""

    title: str
    lines: tuple[Line, ...]
    marks: tuple[tuple[float, str], ...]
    across: tuple[tuple[float, str, str], ...]
    up: tuple[tuple[float, str], ...]
    latest: tuple[str, ...]


def draw_interval(estimate: float, low: float, high: float, tolerance: float) -> Interval:
    """Place an interval in a strip of `INTERVAL_WIDTH`; what is outside of it ends at its edge."""
    unit = tolerance if tolerance > 0 else max(abs(low), abs(high), 1e-9)
    whole = INTERVAL_END + _BELOW

    def place(value: float) -> float:
        ratio = min(max(value / unit, -_BELOW), INTERVAL_END)
        return round((ratio + _BELOW) / whole * INTERVAL_WIDTH, 2)

    x, end = place(low), place(high)
    return Interval(
        x=x,
        width=round(max(end - x, 2.0), 2),
        dot=place(estimate),
        zero=place(0.0),
        limit=place(unit),
        beyond=low / unit > INTERVAL_END or high / unit > INTERVAL_END,
    )


def draw_chart(
    title: str,
    series: Sequence[tuple[str, Sequence[Figure]]],
    marks: Iterable[tuple[datetime, str]],
    percent: bool = False,
) -> Chart | None:
    """Draw figures over time with their intervals; None when there is nothing to draw.

    Args:
        title: What is drawn.
        series: Names and figures; each version has a line of its own.
        marks: Moments to point at, and why; those outside of the figures' time are left out.
        percent: Whether the figures are shares.
    """
    figures = [figure for _, line in series for figure in line if math.isfinite(figure.value)]
    if not figures:
        return None
    begin, end = min(one.at for one in figures), max(one.at for one in figures)
    span = max((end - begin).total_seconds(), 1.0)
    bottom, top = _choose_range(figures)

    def across(moment: datetime) -> float:
        share = 0.5 if begin == end else (moment - begin).total_seconds() / span
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def up(value: float) -> float:
        share = (min(max(value, bottom), top) - bottom) / (top - bottom)
        return round(BOTTOM - share * (BOTTOM - TOP), 1)

    lines, latest = [], []
    for name, version, points in _part(series):
        upper = [f"{across(one.at)},{up(one.high)}" for one in points]
        lower = [f"{across(one.at)},{up(one.low)}" for one in reversed(points)]
        middle = tuple((across(one.at), up(one.value)) for one in points)
        path = " ".join(f"{x},{y}" for x, y in middle)
        few = middle if len(middle) <= _DOTS else middle[-1:]
        band = " ".join(upper + lower) if len(points) > 1 else ""
        lines.append(Line(name, version, band, path, few))
    for name, line in series:
        last = max((one for one in line if math.isfinite(one.value)), key=lambda one: one.at, default=None)
        if last is not None:
            numbers = (show(number, percent) for number in (last.value, last.low, last.high))
            latest.append(f"{name} {{}} ({{}} to {{}})".format(*numbers))
    return Chart(
        title=title,
        lines=tuple(lines),
        marks=tuple((across(at), text) for at, text in marks if begin <= at <= end),
        across=_label_times(begin, end, across),
        up=tuple((up(value), show(value, percent)) for value in (bottom, (bottom + top) / 2, top)),
        latest=tuple(latest),
    )


def _part(series: Sequence[tuple[str, Sequence[Figure]]]) -> Iterator[tuple[str, str, list[Figure]]]:
    """Yield each version's figures of each series in the order of time."""
    for name, line in series:
        versions: dict[str, list[Figure]] = {}
        for one in sorted(line, key=lambda one: one.at):
            if math.isfinite(one.value):
                versions.setdefault(one.version, []).append(one)
        for version, points in versions.items():
            yield name, version, points


def show(value: float, percent: bool) -> str:
    """Write a figure."""
    if not math.isfinite(value):
        return "unknown"
    text = f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if percent else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _choose_range(figures: Sequence[Figure]) -> tuple[float, float]:
    """Return the ends of the axis: what the intervals need, within what is usual, and never of no height."""
    values = [one.value for one in figures]
    lows = [one.low for one in figures if math.isfinite(one.low)]
    highs = [one.high for one in figures if math.isfinite(one.high)]
    low, high = min(values + lows), max(values + highs)
    room = max((high - low) * 0.08, 0.005)
    return (max(low - room, 0.0) if low >= 0 else low - room), high + room


def _label_times(begin: datetime, end: datetime, across: Any) -> tuple[tuple[float, str, str], ...]:
    """Return places, texts and anchors for the axis of time, as fine as its span."""
    span = end - begin
    if span < timedelta(minutes=10):
        form = "%H:%M:%S"
    elif span < timedelta(days=2):
        form = "%H:%M"
    else:
        form = "%d %b"
    if begin == end:
        return ((across(begin), begin.strftime(form), "middle"),)
    middle = begin + span / 2
    return (
        (across(begin), begin.strftime(form), "start"),
        (across(middle), middle.strftime(form), "middle"),
        (across(end), end.strftime(form), "end"),
    )
