"""The evaluation as one self-contained HTML page: decision, metrics, curves, slices."""

from __future__ import annotations

import importlib.resources

from tenure.bootstrap import Interval
from tenure.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    STRIP_HEIGHT,
    STRIP_WIDTH,
    TOP,
    WIDTH,
    Scale,
    draw_calibration,
    draw_histogram,
    draw_precision_recall,
    draw_roc,
    place_x,
    place_y,
)
from tenure.evaluation import BASELINE, CHALLENGER, CHAMPION, DEFAULT_XGBOOST, EvaluationReport, Slice
from tenure.gate import Decision
from tenure.metrics import is_higher_better

NAMES = {
    CHALLENGER: "Challenger",
    CHAMPION: "Champion",
    BASELINE: "Logistic regression",
    DEFAULT_XGBOOST: "Default XGBoost",
}
METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
    "log_loss": "Log-loss",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
    "f1": "F1",
    "recall": "Recall",
    "precision": "Precision",
    "recall_top_decile": "Recall in the top decile",
    "lift_top_decile": "Lift in the top decile",
    "recall_at_precision": "Recall at precision {precision:g}",
}


def render_report(report: EvaluationReport, decision: Decision | None) -> str:
    """Render the page: one file without scripts or outside references, the same for the same report.

    Args:
        report: The evaluation.
        decision: What the gate said about it; None if it was not asked.

    Returns:
        HTML text. Every value that comes from the report is escaped.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
    environment.filters["number"] = _format_number
    environment.filters["gain"] = lambda number: _format_number(number, signed=True)
    source = importlib.resources.files("tenure").joinpath("templates/report.html.j2").read_text("utf-8")
    rate = report.positives / report.rows
    page: str = environment.from_string(source).render(
        report=report,
        decision=decision,
        rate=rate,
        names=NAMES,
        metrics={
            name: METRIC_NAMES[name].format(precision=report.precision)
            for name in report.models[CHALLENGER].metrics
        },
        lower_is_better=[name for name in METRIC_NAMES if not is_higher_better(name)],
        judge=_judge,
        charts=[
            draw_roc(report.models),
            draw_precision_recall(report.models, rate),
            draw_calibration(report.models),
        ],
        histograms={
            name: draw_histogram(report.models[name].histogram)
            for name in (CHALLENGER, CHAMPION)
            if name in report.models
        },
        slices=_collect_slices(report),
        slice_scale=_scale_slices(report),
        compared=bool(report.slice_differences),
        place_x=place_x,
        place_y=place_y,
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        strip={"width": STRIP_WIDTH, "height": STRIP_HEIGHT},
        ticks=[step / 5 for step in range(6)],
    )
    return page


def _judge(metric: str, difference: Interval) -> str:
    """Say which way a difference points: better or worse if its interval excludes 0, else open."""
    if difference.low <= 0 <= difference.high:
        return "open"
    return "better" if (difference.value > 0) == is_higher_better(metric) else "worse"


def _collect_slices(report: EvaluationReport) -> list[dict[str, Slice | None]]:
    """Put together what is known of each slice: challenger, champion and their difference."""
    ours = report.models[CHALLENGER].slices
    theirs: list[Slice] | list[None] = [None] * len(ours)
    differences: list[Slice] | list[None] = [None] * len(ours)
    if report.slice_differences:
        theirs, differences = report.models[CHAMPION].slices, report.slice_differences
    return [
        {"challenger": one, "champion": two, "difference": both}
        for one, two, both in zip(ours, theirs, differences, strict=True)
    ]


def _scale_slices(report: EvaluationReport) -> Scale:
    """Scale the last column of the slices: differences from the champion, 0 in sight, else the challenger."""
    parts = report.slice_differences or report.models[CHALLENGER].slices
    marks = (0.0,) if report.slice_differences else ()
    return Scale([part.interval for part in parts if part.interval is not None], marks)


def _format_number(number: float, signed: bool = False) -> str:
    """Write four decimals with a true minus sign; a signed zero has no sign."""
    text = f"{number:+.4f}" if signed else f"{number:.4f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")
