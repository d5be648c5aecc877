"""One verdict as a self-contained HTML page: which columns drift, how much, since when, and how they look."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.drift.reference import LABEL, MISSING_CATEGORY, is_numeric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tenure.drift.reference import Sample
    from tenure.drift.verdict import Finding, Verdict

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 352, 10, 168
METER_WIDTH, METER_HEIGHT = 120, 16
TREND_WIDTH, TREND_HEIGHT = 110, 26
METER_END = 3.0
"""Meters and trends end at so many times the threshold."""

BINS = 24
SHOWN = 8
"""Charts at most: the alarms, or without one the largest effects."""
CATEGORIES = 12

MEASURES = {"psi": "PSI", "l1": "L1", "share": "share", "auc": "ROC-AUC"}
OUTCOMES = {"0": "stay", "1": "leave"}
METRICS = {
    "roc_auc": "ROC-AUC",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "precision": "precision",
    "recall": "recall",
    "churn_rate": "share that leaves",
}


@dataclass(frozen=True)
class Bar:
    """One bin or category: reference beside window, in SVG units and shares."""

    name: str
    x: float
    width: float
    reference: float
    window: float
    reference_y: float
    window_y: float


@dataclass(frozen=True)
class Chart:
    """The distribution of one column; `labels` are (x, text) under the axis, `ticks` (y, text) beside it."""

    column: str
    bars: tuple[Bar, ...]
    labels: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    numeric: bool


def render_report(
    verdict: Verdict, reference: Sample, window: Sample | None, history: Sequence[Verdict] = ()
) -> str:
    """Render the page: one file without scripts or outside references.

    Args:
        verdict: What was found.
        reference: The champion's.
        window: The rows that were judged, as many windows as the largest alarm looked at; None if retention
            has deleted them.
        history: Verdicts of the same champion and family, oldest first, this one last.

    Returns:
        HTML text. Every value that comes from data is escaped.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _format_number
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
    environment.filters["time"] = lambda moment: f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    source = importlib.resources.files("serving.detector").joinpath("templates/drift.html.j2")
    findings = sort_findings(verdict)
    shown = [finding for finding in findings if finding.alarm] or findings[:4]
    charts = [draw_column(finding.column, reference, window) for finding in shown[:SHOWN]] if window else []
    page: str = environment.from_string(source.read_text("utf-8")).render(
        verdict=verdict,
        findings=findings,
        charts=charts,
        ratios={finding.column: measure_ratio(finding) for finding in findings},
        trends={finding.column: draw_trend(finding.column, history) for finding in findings},
        estimates=[
            (METRICS[name], interval)
            for name, interval in (verdict.estimate or {}).items()
            if name in METRICS and isinstance(interval, dict)
        ],
        reference_rate=None if reference.labels is None else float(reference.labels.mean()),
        reference_rows=reference.rows,
        measures=MEASURES,
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        meter={"width": METER_WIDTH, "height": METER_HEIGHT, "end": METER_END},
        trend={"width": TREND_WIDTH, "height": TREND_HEIGHT, "line": _place_ratio(1.0)},
    )
    return page


def sort_findings(verdict: Verdict) -> list[Finding]:
    """Return the findings, alarms first, then by how near they come to their threshold."""
    return sorted(verdict.findings, key=lambda finding: (not finding.alarm, -measure_ratio(finding)))


def measure_ratio(finding: Finding) -> float:
    """Return a finding's effect as a multiple of its threshold; a better AUC counts as none."""
    size = max(finding.effect, 0.0) if finding.measure == "auc" else abs(finding.effect)
    return size / finding.threshold if finding.threshold else METER_END


def draw_column(column: str, reference: Sample, window: Sample) -> Chart:
    """Draw one column's distribution in the reference and in the window, as shares of their rows."""
    before, after = reference.columns[column], window.columns[column]
    if is_numeric(before):
        names, labels, shares = _bin_numbers(before, after)
    else:
        names, shares = _count_categories(before, after)
        names = [OUTCOMES.get(name, name) for name in names] if column == LABEL else names
        labels = list(enumerate(names))
    top = max(float(shares.max(initial=0.0)), 1e-9)
    step = (RIGHT - LEFT) / len(names)
    bars = tuple(
        Bar(
            name=name,
            x=round(LEFT + place * step, 2),
            width=round(step, 2),
            reference=float(shares[0, place]),
            window=float(shares[1, place]),
            reference_y=_place_share(shares[0, place], top),
            window_y=_place_share(shares[1, place], top),
        )
        for place, name in enumerate(names)
    )
    numeric = is_numeric(before)
    under = tuple((round(LEFT + (place + (0 if numeric else 0.5)) * step, 2), text) for place, text in labels)
    ticks = tuple((_place_share(top * part, top), f"{100 * top * part:.0f}%") for part in (0.0, 0.5, 1.0))
    return Chart(column, bars, under, ticks, numeric)


def draw_trend(column: str, history: Sequence[Verdict]) -> str:
    """Return SVG points of a column's effect (over its threshold) in the windows so far; empty below two."""
    ratios = [
        min(measure_ratio(finding), METER_END)
        for verdict in history
        for finding in verdict.findings
        if finding.column == column
    ]
    if len(ratios) < 2:
        return ""
    step = TREND_WIDTH / (len(ratios) - 1)
    return " ".join(f"{place * step:.1f},{_place_ratio(ratio):g}" for place, ratio in enumerate(ratios))


def _bin_numbers(
    before: NDArray[np.float64], after: NDArray[np.float64]
) -> tuple[list[str], list[tuple[float, str]], NDArray[np.float64]]:
    """Count numbers in bins of equal width over what is usual in either sample; the ends take the rest."""
    known = [values[np.isfinite(values)] for values in (before, after)]
    both = np.concatenate(known)
    if not len(both):
        both = np.zeros(1)
    low = (
        min(float(np.quantile(values, 0.005)) for values in known if len(values))
        if any(map(len, known))
        else 0.0
    )
    high = (
        max(float(np.quantile(values, 0.995)) for values in known if len(values))
        if any(map(len, known))
        else 1.0
    )
    if high <= low:
        low, high = low - 0.5, high + 0.5
    different = len(np.unique(both))
    edges = np.linspace(low, high, min(BINS, max(different, 2)) + 1)
    counts = [
        np.histogram(np.clip(values, low, high), edges)[0] / max(len(whole), 1)
        for values, whole in zip(known, (before, after), strict=True)
    ]
    shares = np.array(counts, dtype=np.float64)
    names = [f"{_shorten(a)} to {_shorten(b)}" for a, b in pairwise(edges)]
    labels = [
        (float(place), _shorten(edges[place])) for place in range(0, len(edges), max(1, len(names) // 4))
    ]
    missing = np.array(
        [[1 - len(values) / max(len(whole), 1)] for values, whole in zip(known, (before, after), strict=True)]
    )
    if missing.any():
        shares = np.hstack([shares, missing])
        names.append("missing")
        labels = [*labels[:-1], (len(names) - 0.5, "missing")]
    return names, labels, shares


def _count_categories(before: NDArray[Any], after: NDArray[Any]) -> tuple[list[str], NDArray[np.float64]]:
    """Count categories, the most frequent ones of the two samples; the others together."""
    counts: dict[str, list[float]] = {}
    for place, values in enumerate((before, after)):
        for value, number in zip(*np.unique(values.astype(str), return_counts=True), strict=True):
            counts.setdefault(str(value), [0.0, 0.0])[place] = float(number) / len(values)
    ordered = sorted(counts, key=lambda name: -max(counts[name]))
    kept = sorted(ordered[:CATEGORIES]) if len(ordered) <= CATEGORIES else sorted(ordered[: CATEGORIES - 1])
    names = [name if name != MISSING_CATEGORY else "missing" for name in kept]
    shares = [counts[name] for name in kept]
    rest = [counts[name] for name in ordered if name not in kept]
    if rest:
        names.append(f"{len(rest)} others")
        shares.append([sum(pair[0] for pair in rest), sum(pair[1] for pair in rest)])
    return names, np.array(shares, dtype=np.float64).reshape(-1, 2).T


def _place_share(share: float, top: float) -> float:
    return round(BOTTOM - share / top * (BOTTOM - TOP), 2)


def _place_ratio(ratio: float) -> float:
    return round(TREND_HEIGHT - 2 - ratio / METER_END * (TREND_HEIGHT - 4), 2)


def _shorten(number: float) -> str:
    """Write a number with at most three digits behind the point, as many as its size needs."""
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"


def _format_number(number: float) -> str:
    """Write a number with four digits that count, with a true minus sign."""
    text = f"{number:.4f}" if abs(number) >= 1e-4 or number == 0 else f"{number:.1e}"
    return text.replace("-", "\N{MINUS SIGN}")
