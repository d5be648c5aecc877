"""The profile: what the customers look like and which rows were set aside, as one HTML page."""

from __future__ import annotations

import importlib.resources
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tenure.contract import Column, Contract, Role, Type
from tenure.featuriser import encode_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tenure.validation import Validated

BINS = 24
TOP = 8
EXAMPLES = 3
_SHOWN_BAD = 50


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: a bin or a category.

    Attributes:
        name: What it counts, in words.
        rows: Number of good rows.
        positives: Those of them known to have left.
        height: `rows` relative to the tallest bar, 0 to 1.
        rate: Share of leavers among rows with a known label; None if there are none.
    """

    name: str
    rows: int
    positives: int
    height: float
    rate: float | None


@dataclass(frozen=True)
class Portrait:
    """What the page says about one column; `figures` are label-value pairs in display order."""

    column: Column
    missing: int
    missing_share: float
    distinct: int
    kind: str  # histogram, categories or none
    figures: list[tuple[str, str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    others: int = 0


def render_profile(validated: Validated, contract: Contract) -> str:
    """Render the page: one file without scripts or outside references, the same for the same rows.

    Args:
        validated: The outcome of `validation.validate_frame`.
        contract: The contract it was validated with.

    Returns:
        HTML text. Every value that comes from the data is escaped.
    """
    import jinja2

    labels = encode_labels(validated.good, contract)
    known = labels[~np.isnan(labels)]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = _format_count
    environment.filters["percent"] = _format_percent
    source = importlib.resources.files("tenure").joinpath("templates/profile.html.j2").read_text("utf-8")
    page: str = environment.from_string(source).render(
        validated=validated,
        contract=contract,
        label=contract.label,
        known=len(known),
        rate=float(known.mean()) if len(known) else None,
        portraits=[_draw_portrait(validated.good[c.name], c, labels) for c in contract.columns],
        problems=_group_problems(validated.bad),
        bad_share=validated.bad_rows / validated.rows if validated.rows else 0.0,
        missing=int(validated.good.isna().sum().sum()),
        shown_bad=_SHOWN_BAD,
    )
    return page


def _draw_portrait(series: pd.Series[Any], column: Column, labels: NDArray[np.float64]) -> Portrait:
    """Summarise one column of the good rows."""
    present = series.notna().to_numpy(dtype=bool)
    missing = int((~present).sum())
    share = missing / len(series) if len(series) else 0.0
    distinct = int(series.nunique(dropna=True))
    values, labels = series[present], labels[present]
    if column.role is Role.ID or not len(values):
        return Portrait(column, missing, share, distinct, "none")
    if column.type in (Type.FLOAT, Type.INTEGER):
        numbers = values.to_numpy(dtype=np.float64)
        low, middle, high = (float(q) for q in np.quantile(numbers, (0, 0.5, 1)))
        figures = [
            ("min", f"{low:,.6g}"),
            ("mean", f"{numbers.mean():,.6g}"),
            ("median", f"{middle:,.6g}"),
            ("max", f"{high:,.6g}"),
            ("std. deviation", f"{numbers.std():,.6g}"),
        ]
        edges = _cut(numbers, column)
        if column.type is Type.INTEGER:
            names = [f"{low:,.0f} to {high - 1:,.0f}" for low, high in itertools.pairwise(edges)]
        else:
            names = [f"{low:,.5g} to {high:,.5g}" for low, high in itertools.pairwise(edges)]
        bars = _draw_histogram(numbers, edges, names, labels)
        return Portrait(column, missing, share, distinct, "histogram", figures, bars)
    if column.type is Type.TIMESTAMP:
        stamps = values.dt.tz_convert("UTC")
        seconds = stamps.to_numpy(dtype="datetime64[ns]").astype(np.int64) / 1e9
        figures = [("first", f"{stamps.min():%Y-%m-%d %H:%M}"), ("last", f"{stamps.max():%Y-%m-%d %H:%M}")]
        edges = _cut(seconds, column)
        days = [f"{pd.Timestamp(edge, unit='s'):%Y-%m-%d}" for edge in edges.tolist()]
        names = [f"{first} to {last}" for first, last in itertools.pairwise(days)]
        bars = _draw_histogram(seconds, edges, names, labels)
        return Portrait(column, missing, share, distinct, "histogram", figures, bars)
    bars, others = _draw_categories(values, labels)
    return Portrait(column, missing, share, distinct, "categories", [], bars, others)


def _cut(numbers: NDArray[np.float64], column: Column) -> NDArray[np.float64]:
    """Return bin edges; integers get bins of whole width, so that none holds more of them by chance."""
    low, high = float(numbers.min()), float(numbers.max())
    if column.type is Type.INTEGER:
        width = max(1.0, np.ceil((high - low + 1) / BINS))
        return np.arange(low, high + width + 0.5, width)
    if not high - low > 1e-12 * max(abs(low), abs(high)):
        return np.array([low, np.nextafter(high, np.inf)])
    return np.linspace(low, high, BINS + 1)


def _draw_histogram(
    numbers: NDArray[np.float64], edges: NDArray[np.float64], names: list[str], labels: NDArray[np.float64]
) -> list[Bar]:
    """Count numbers and leavers between the edges."""
    rows, _ = np.histogram(numbers, edges)
    known, _ = np.histogram(numbers[~np.isnan(labels)], edges)
    positives, _ = np.histogram(numbers[labels == 1], edges)
    return _make_bars(names, rows.tolist(), known.tolist(), positives.tolist())


def _draw_categories(values: pd.Series[Any], labels: NDArray[np.float64]) -> tuple[list[Bar], int]:
    """Count the most frequent values (ties by name) and, together, how many rows have another one."""
    texts = values.astype(str).to_numpy(dtype=object)
    counts = pd.DataFrame({"text": texts, "known": ~np.isnan(labels), "positive": labels == 1})
    table = counts.groupby("text").agg(
        rows=("known", "size"), known=("known", "sum"), hit=("positive", "sum")
    )
    table = table.sort_index().sort_values("rows", ascending=False, kind="stable")
    top = table.head(TOP)
    bars = _make_bars(
        [str(name) for name in top.index], top["rows"].tolist(), top["known"].tolist(), top["hit"].tolist()
    )
    return bars, int(table["rows"].iloc[TOP:].sum())


def _make_bars(names: list[str], rows: list[int], known: list[int], positives: list[int]) -> list[Bar]:
    tallest = max(rows, default=0) or 1
    return [
        Bar(name, int(count), int(hits), count / tallest, hits / labelled if labelled else None)
        for name, count, labelled, hits in zip(names, rows, known, positives, strict=True)
    ]


def _group_problems(bad: pd.DataFrame) -> list[dict[str, Any]]:
    """Group violations by column and rule, most frequent first, with a few example values."""
    problems = []
    for (column, rule), group in bad.groupby(["column", "rule"], sort=True):
        examples = list(dict.fromkeys(group["value"]))[:EXAMPLES]
        problems.append({"column": column, "rule": rule, "rows": len(group), "examples": examples})
    return sorted(problems, key=lambda problem: -int(problem["rows"]))


def _format_count(number: int) -> str:
    return f"{number:,}"


def _format_percent(share: float | None) -> str:
    """Write a share as a percentage; a small one keeps a digit, so that it does not read as none."""
    if share is None:
        return "–"
    digits = 2 if 0 < share < 0.001 else 1
    return f"{share:.{digits}%}"
