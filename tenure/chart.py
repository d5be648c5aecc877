"""Geometry of the evaluation's charts: where things lie in an SVG; the template says what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenure.bootstrap import Interval
from tenure.curve import Histogram
from tenure.evaluation import ModelEvaluation

WIDTH, HEIGHT = 340, 300
LEFT, RIGHT, TOP, BOTTOM = 40, 330, 10, 262
STRIP_WIDTH, STRIP_HEIGHT = 220, 22


@dataclass(frozen=True)
class Line:
    """One model's curve: the model's name, SVG points, and markers on it (x, y)."""

    model: str
    points: str
    markers: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Chart:
    """A square chart, both axes from 0 to 1.

    Attributes:
        title: Heading.
        x: What the horizontal axis shows.
        y: What the vertical axis shows.
        lines: One per model.
        guide: Points of the line that a model without knowledge (or with perfect calibration) would follow.
        guide_name: What that line is.
    """

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    guide: str
    guide_name: str


@dataclass(frozen=True)
class Bin:
    """One bar of a histogram: stayers stand on leavers, in SVG units."""

    x: float
    width: float
    stayers: int
    leavers: int
    stayers_top: float
    leavers_top: float
    words: str

    @property
    def rows(self) -> int:
        """Everybody with such a score."""
        return self.stayers + self.leavers


@dataclass(frozen=True)
class Strip:
    """One interval on a shared scale, for a table row: SVG x positions; `state` is better, worse or open."""

    low: float
    value: float
    high: float
    state: str


def place_x(share: float) -> float:
    """Where 0..1 lies on the horizontal axis."""
    return round(LEFT + share * (RIGHT - LEFT), 2)


def place_y(share: float) -> float:
    """Where 0..1 lies on the vertical axis."""
    return round(BOTTOM - share * (BOTTOM - TOP), 2)


def _join(xs: Sequence[float], ys: Sequence[float]) -> str:
    return " ".join(f"{place_x(x):g},{place_y(y):g}" for x, y in zip(xs, ys, strict=True))


def draw_roc(models: dict[str, ModelEvaluation]) -> Chart:
    """Draw the ROC curves, with a marker at each model's threshold."""
    lines = []
    for name, model in models.items():
        (true_negatives, false_positives), (false_negatives, true_positives) = model.confusion.to_matrix()
        fpr = false_positives / (false_positives + true_negatives)
        tpr = true_positives / (true_positives + false_negatives)
        marker = (place_x(fpr), place_y(tpr))
        lines.append(Line(name, _join(model.roc.fpr, model.roc.tpr), (marker,)))
    title = "ROC curve"
    x, y = "stayers flagged (false positive rate)", "leavers caught (true positive rate)"
    return Chart(title, x, y, tuple(lines), _join([0, 1], [0, 1]), "chance")


def draw_precision_recall(models: dict[str, ModelEvaluation], rate: float) -> Chart:
    """Draw the precision-recall curves; `rate` is the share of leavers, what flagging at random gives."""
    lines = []
    for name, model in models.items():
        curve, (_, (missed, caught)) = model.precision_recall, model.confusion.to_matrix()
        flagged = caught + model.confusion.false_positives
        recall = caught / (caught + missed)
        markers = ((place_x(recall), place_y(caught / flagged)),) if flagged else ()
        lines.append(Line(name, _join(curve.recall, curve.precision), markers))
    x, y = "leavers caught (recall)", "share of the flagged that left (precision)"
    return Chart("Precision and recall", x, y, tuple(lines), _join([0, 1], [rate, rate]), "chance")


def draw_calibration(models: dict[str, ModelEvaluation]) -> Chart:
    """Draw mean score against share of leavers, a marker per bin."""
    lines = []
    for name, model in models.items():
        xs, ys = [part.score for part in model.calibration], [part.share for part in model.calibration]
        markers = tuple((place_x(x), place_y(y)) for x, y in zip(xs, ys, strict=True))
        lines.append(Line(name, _join(xs, ys), markers))
    x, y = "mean score in a tenth of the customers", "share of them that left"
    return Chart("Calibration", x, y, tuple(lines), _join([0, 1], [0, 1]), "perfect")


def draw_histogram(histogram: Histogram) -> list[Bin]:
    """Draw a stacked histogram, its highest bar as high as the chart."""
    tallest = max(
        (left + stayed for left, stayed in zip(histogram.leavers, histogram.stayers, strict=True)), default=0
    )
    bins = []
    for index, (left, stayed) in enumerate(zip(histogram.leavers, histogram.stayers, strict=True)):
        low, high = histogram.edges[index], histogram.edges[index + 1]
        bins.append(
            Bin(
                x=place_x(low) + 0.5,
                width=round(place_x(high) - place_x(low) - 1, 2),
                stayers=stayed,
                leavers=left,
                stayers_top=place_y((left + stayed) / max(tallest, 1)),
                leavers_top=place_y(left / max(tallest, 1)),
                words=f"{low:.2f} to {high:.2f}",
            )
        )
    return bins


class Scale:
    """A shared horizontal scale for the intervals of a table, wide enough for all of them."""

    def __init__(self, intervals: Sequence[Interval], marks: Sequence[float] = ()) -> None:
        ends = [end for interval in intervals for end in (interval.low, interval.high)] + list(marks)
        low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
        margin = (high - low or 1.0) * 0.04
        self.low, self.high = low - margin, high + margin

    def place(self, number: float) -> float:
        """Where a number lies, in SVG units."""
        return round((number - self.low) / (self.high - self.low) * STRIP_WIDTH, 2)

    def draw(self, interval: Interval, state: str = "open") -> Strip:
        """Place an interval."""
        return Strip(self.place(interval.low), self.place(interval.value), self.place(interval.high), state)
