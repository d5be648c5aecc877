"""Judging a challenger on held-out customers, beside the champion and two baselines, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tenure.baseline import score_baselines
from tenure.bootstrap import (
    MIN_CLASS_ROWS,
    Interval,
    Scores,
    resample_models,
    resample_slices,
    summarise,
    summarise_difference,
)
from tenure.curve import (
    CalibrationBin,
    Confusion,
    Histogram,
    PrecisionRecallCurve,
    Record,
    RocCurve,
    bin_calibration,
    count_confusion,
    count_scores,
    trace_precision_recall,
    trace_roc,
)
from tenure.errors import EvaluationError
from tenure.featuriser import encode_labels
from tenure.metrics import METRICS, Floats, Ranking, check_scores, compute_metrics
from tenure.project import Metric, Project
from tenure.slice import find_slices

if TYPE_CHECKING:
    import pandas as pd

CHALLENGER = "challenger"
CHAMPION = "champion"
BASELINE = "baseline"
DEFAULT_XGBOOST = "default_xgboost"


class Slice(Record):
    """The held-out rows in which a column has one value.

    Attributes:
        column: The feature.
        value: Its value; `(missing)` for rows without one; a range for a number.
        rows: How many rows.
        positives: How many of them left.
        interval: The report's metric on these rows (or a difference of it); None if a class has fewer than
            `MIN_CLASS_ROWS` rows: too few to say.
    """

    column: str
    value: str
    rows: int
    positives: int
    interval: Interval | None


class ModelEvaluation(Record):
    """One model on the held-out rows."""

    version: str
    metrics: dict[str, Interval]
    slices: list[Slice]
    roc: RocCurve
    precision_recall: PrecisionRecallCurve
    confusion: Confusion
    calibration: list[CalibrationBin]
    histogram: Histogram


class EvaluationReport(Record):
    """Everything that the gate and a person need to judge a challenger.

    Attributes:
        project: The project's name.
        metric: The metric that the gate compares and the slices show.
        precision: The precision of `recall_at_precision`.
        rows: Held-out rows.
        positives: How many of them left.
        train_rows: Training rows with a label.
        resamples: Bootstrap resamples behind every interval.
        models: `challenger`, `champion` if there is one, `baseline` and `default_xgboost`.
        differences: `challenger-X` for every other model X -> metric -> challenger minus X, in the metric's
            own unit and sign (for log-loss, Brier and calibration error a negative one is the better one).
        slice_differences: Challenger minus champion in `metric`, per slice; empty without a champion.
        score_difference: Mean of challenger's minus champion's probability over the rows; None without a
            champion.
    """

    project: str
    metric: Metric
    precision: float
    rows: int
    positives: int
    train_rows: int
    resamples: int
    models: dict[str, ModelEvaluation]
    differences: dict[str, dict[str, Interval]]
    slice_differences: list[Slice]
    score_difference: float | None = None


def evaluate(
    frame: pd.DataFrame,
    train_frame: pd.DataFrame,
    challenger: ArrayLike,
    challenger_threshold: float,
    champion: tuple[ArrayLike, float, str] | None,
    project: Project,
    *,
    challenger_version: str = "",
) -> EvaluationReport:
    """Judge a challenger: every metric with its interval, slices, curves, and paired differences.

    Args:
        frame: Canonical held-out rows, every one labelled.
        train_frame: Canonical rows of the training part, for the baselines.
        challenger: The challenger's probabilities of leaving, one per row of `frame`.
        challenger_threshold: The probability from which the challenger predicts that a customer leaves.
        champion: The serving model's probabilities for the same rows, its threshold and its version.
        project: Gives contract, evaluation settings, the gate's metric and the seeds.
        challenger_version: For display.

    Raises:
        EvaluationError: Too few held-out rows of a class, a row without a label, scores that are not
            probabilities, or a customer who is in both parts.
    """
    y = _check_rows(frame, train_frame, project)
    models: dict[str, Scores] = {CHALLENGER: (challenger, challenger_threshold)}
    versions = {CHALLENGER: challenger_version, BASELINE: "logistic regression", DEFAULT_XGBOOST: "defaults"}
    if champion is not None:
        models[CHAMPION] = champion[:2]
        versions[CHAMPION] = champion[2]
    models = {name: (check_scores(y, p, name=name)[1], threshold) for name, (p, threshold) in models.items()}
    for baseline in score_baselines(train_frame, frame, project):
        models[baseline.name] = (baseline.scores, baseline.threshold)

    settings, precision = project.evaluation, project.training.precision
    draws = resample_models(y, models, resamples=settings.bootstrap, seed=settings.seed, precision=precision)
    values = {name: compute_metrics(y, p, threshold, precision) for name, (p, threshold) in models.items()}
    slices, slice_differences = _judge_slices(frame, y, models, project)
    return EvaluationReport(
        project=project.name,
        metric=project.gate.metric,
        precision=precision,
        rows=len(y),
        positives=int(y.sum()),
        train_rows=int((~np.isnan(encode_labels(train_frame, project.contract))).sum()),
        resamples=settings.bootstrap,
        models={
            name: ModelEvaluation(
                version=versions[name],
                metrics=summarise(values[name], draws[name]),
                slices=slices[name],
                roc=trace_roc(y, p),
                precision_recall=trace_precision_recall(y, p),
                confusion=count_confusion(y, p, threshold),
                calibration=bin_calibration(y, p),
                histogram=count_scores(y, p),
            )
            for name, (p, threshold) in ((name, (np.asarray(p), t)) for name, (p, t) in models.items())
        },
        differences={
            f"{CHALLENGER}-{name}": {
                metric: summarise_difference(
                    values[CHALLENGER][metric] - values[name][metric],
                    draws[CHALLENGER][metric],
                    draws[name][metric],
                )
                for metric in METRICS
            }
            for name in models
            if name != CHALLENGER
        },
        slice_differences=slice_differences,
        score_difference=(
            _average(models[CHALLENGER][0]) - _average(models[CHAMPION][0]) if CHAMPION in models else None
        ),
    )


def _average(scores: ArrayLike) -> float:
    return float(np.asarray(scores, dtype=np.float64).mean())


def _check_rows(frame: pd.DataFrame, train_frame: pd.DataFrame, project: Project) -> Floats:
    """Return the held-out labels, or say why nothing can be judged on these rows."""
    y = encode_labels(frame, project.contract)
    unknown = int(np.isnan(y).sum())
    if unknown:
        raise EvaluationError(f"{unknown} of {len(y)} held-out rows have no label: pass labelled rows only")
    leavers = int(y.sum())
    if min(leavers, len(y) - leavers) < MIN_CLASS_ROWS:
        raise EvaluationError(
            f"the held-out part has {leavers} leavers and {len(y) - leavers} stayers, but judging a "
            f"model takes at least {MIN_CLASS_ROWS} of each: take more customers or a larger split.held_out"
        )
    name = project.contract.id.name
    shared = frame[name].isin(train_frame[name])
    if shared.any():
        raise EvaluationError(
            f"{int(shared.sum())} customers are in both the held-out and the training part "
            f"(first: {frame[name][shared].iloc[0]!r}); no model can be judged on customers it was trained on"
        )
    return y


def _judge_slices(
    frame: pd.DataFrame, y: Floats, models: Mapping[str, Scores], project: Project
) -> tuple[dict[str, list[Slice]], list[Slice]]:
    """Measure the gate's metric on every slice: per model, and challenger minus champion."""
    settings, metric, precision = project.evaluation, project.gate.metric, project.training.precision
    slices = find_slices(frame, project)
    # Different columns often cut out the same rows ("No internet service"): measure each set of rows once.
    masks = {mask.tobytes(): mask for _, _, mask in slices if _is_judgeable(y[mask])}
    position = {key: index for index, key in enumerate(masks)}
    draws = resample_slices(
        y,
        models,
        list(masks.values()),
        metric,
        resamples=settings.bootstrap,
        seed=settings.seed,
        precision=precision,
    )
    judged: dict[str, list[Slice]] = {name: [] for name in models}
    differences: list[Slice] = []
    for column, value, mask in slices:
        index = position.get(mask.tobytes())
        base = Slice(
            column=column, value=value, rows=int(mask.sum()), positives=int(y[mask].sum()), interval=None
        )
        if index is None:
            for name in models:
                judged[name].append(base)
            if CHAMPION in models:
                differences.append(base)
            continue
        values = {
            name: float(
                Ranking(y[mask], np.asarray(p)[mask], threshold, precision).measure(
                    np.ones((base.rows, 1)), (metric,)
                )[0, 0]
            )
            for name, (p, threshold) in models.items()
        }
        for name in models:
            interval = summarise({metric.value: values[name]}, {metric.value: draws[name][index]})[metric]
            judged[name].append(base.model_copy(update={"interval": interval}))
        if CHAMPION in models:
            difference = summarise_difference(
                values[CHALLENGER] - values[CHAMPION], draws[CHALLENGER][index], draws[CHAMPION][index]
            )
            differences.append(base.model_copy(update={"interval": difference}))
    return judged, differences


def _is_judgeable(y: Floats) -> bool:
    leavers = int(y.sum())
    return min(leavers, len(y) - leavers) >= MIN_CLASS_ROWS
