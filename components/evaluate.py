"""Judge the bundle on the held-out customers, beside the champion and two baselines."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from clients.errors import NotFoundError
from clients.settings import load_settings
from clients.store import Store
from clients.tracking import CHAMPION, Tracking
from components.tune import select_part
from tenure.bundle import Bundle, load_bundle
from tenure.errors import EvaluationError, RowError
from tenure.evaluation import CHALLENGER, EvaluationReport, evaluate
from tenure.evaluation import CHAMPION as EVALUATED_CHAMPION
from tenure.gate import decide
from tenure.partition import Part
from tenure.project import Project, parse_project
from tenure.report import render_report
from tenure.scorer import Scorer
from tenure.snapshot import read_snapshot

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

logger = logging.getLogger("tenure.evaluate")

ROC_POINTS = 100
"""Most points that the pipeline's own ROC curve has."""


@dataclass(frozen=True)
class Evaluated:
    """What the pipeline shows of an evaluation.

    Attributes:
        metrics: Flat finite numbers: `MODEL_METRIC`, with `_low` and `_high` for the challenger.
        roc: The challenger's false and true positive rates and the thresholds, all finite.
        confusion: Rows: stayed, left; columns: predicted to stay, to leave.
    """

    metrics: dict[str, float]
    roc: tuple[list[float], list[float], list[float]]
    confusion: list[list[int]]


def run(
    project: str, rows_path: str, bundle_path: str, run_id: str, evaluation_path: str, report_path: str
) -> Evaluated:
    """Write the evaluation (JSON) and the report (HTML), and log both to the study's run.

    Args:
        project: The project as JSON.
        rows_path: The good rows.
        bundle_path: The challenger.
        run_id: The MLflow run of its study.
        evaluation_path: Where the evaluation goes.
        report_path: Where the report goes.

    Raises:
        tenure.errors.BundleError: The challenger or the champion is not what its digest says.
        tenure.errors.EvaluationError: These rows cannot judge a model.
        clients.errors.ClientError: The tracking server, or the store that has the champion.
    """
    settings = parse_project(project)
    tracking = Tracking.connect(load_settings())
    frame = read_snapshot(Path(rows_path))
    held_out = select_part(frame, Part.HELD_OUT, settings)
    challenger = load_bundle(Path(bundle_path))
    scores = score_rows(challenger, held_out)
    kept = scores == scores
    with tempfile.TemporaryDirectory() as directory:
        champion = _load_champion(tracking, settings, Path(directory))
        theirs = None if champion is None else score_rows(champion, held_out)
    if theirs is not None:
        kept &= theirs == theirs
    if not kept.all():
        logger.warning("%d of %d held-out rows are refused by a model", int((~kept).sum()), len(kept))
    report = evaluate(
        held_out[kept].reset_index(drop=True),
        select_part(frame, Part.TRAIN, settings),
        scores[kept],
        challenger.threshold,
        None if champion is None or theirs is None else (theirs[kept], champion.threshold, champion.version),
        settings,
        challenger_version=challenger.version,
    )
    Path(evaluation_path).write_text(report.model_dump_json(), encoding="utf-8")
    html = render_report(report, decide(report, settings.gate))
    Path(report_path).write_text(html, encoding="utf-8")
    metrics = flatten_metrics(report) | {"refused_rows": float((~kept).sum())}
    tracking.log_metrics(run_id, metrics)
    tracking.log_text(run_id, html, "evaluation.html")
    tracking.log_text(run_id, report.model_dump_json(indent=1), "evaluation.json")
    ours = report.models[CHALLENGER]
    return Evaluated(
        metrics, thin_roc(ours.roc.fpr, ours.roc.tpr, ours.roc.thresholds), ours.confusion.to_matrix()
    )


def score_rows(bundle: Bundle, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Score n rows; a row that the model refuses (`unseen: reject`) gets NaN.

    Raises:
        EvaluationError: The frame lacks a column that the model needs.
    """
    import numpy as np

    missing = [name for name in bundle.featuriser.names if name not in frame.columns]
    if missing:
        raise EvaluationError(
            f"bundle {bundle.version} needs {', '.join(missing)}, which the contract no longer has: it "
            "cannot be compared on these rows. To start anew, delete the alias `champion` in the registry"
        )
    scorer = Scorer(bundle)
    try:
        return scorer.score_matrix(bundle.featuriser.transform_frame(frame))
    except RowError:
        scores = np.full(len(frame), np.nan)
        for row in range(len(frame)):
            try:
                matrix = bundle.featuriser.transform_frame(frame.iloc[row : row + 1])
            except RowError as refused:
                logger.info("row %d: %s", row, refused)
                continue
            scores[row] = scorer.score_matrix(matrix)[0]
        return scores


def read_difference(tracking: Tracking, run_id: str, stable: str) -> float | None:
    """Return by how much a run's evaluation found the mean score to differ from the stable model's.

    Args:
        tracking: The tracking server.
        run_id: The MLflow run of the challenger's study.
        stable: Digest of the stable bundle.

    Returns:
        None when the evaluation compared with another model, or there is none.

    Raises:
        clients.errors.ClientError: The tracking server.
    """
    try:
        text = tracking.load_text(run_id, "evaluation.json")
    except NotFoundError:
        logger.warning("run %s has no evaluation: the pilot expects equal mean scores", run_id)
        return None
    report = EvaluationReport.model_validate_json(text)
    champion = report.models.get(EVALUATED_CHAMPION)
    return report.score_difference if champion is not None and champion.version == stable[:12] else None


def flatten_metrics(report: EvaluationReport) -> dict[str, float]:
    """Return every model's metrics as `MODEL_METRIC`, and the challenger's intervals."""
    flat = {"held_out_rows": float(report.rows), "held_out_positives": float(report.positives)}
    for name, model in report.models.items():
        for metric, interval in model.metrics.items():
            flat[f"{name}_{metric}"] = interval.value
            if name == CHALLENGER:
                flat[f"{name}_{metric}_low"] = interval.low
                flat[f"{name}_{metric}_high"] = interval.high
    return {name: value for name, value in flat.items() if isfinite(value)}


def thin_roc(
    fpr: list[float], tpr: list[float], thresholds: list[float], points: int = ROC_POINTS
) -> tuple[list[float], list[float], list[float]]:
    """Return at most `points` points of a ROC curve, first and last among them, thresholds finite."""
    count = len(fpr)
    keep = list(range(count))
    if count > points:
        keep = sorted({round(index * (count - 1) / (points - 1)) for index in range(points)})
    # A curve may start above every score, at an infinite threshold; JSON has no such number.
    finite = [value if isfinite(value) else 1.0 for value in thresholds]
    return [fpr[i] for i in keep], [tpr[i] for i in keep], [finite[i] for i in keep]


def _load_champion(tracking: Tracking, project: Project, directory: Path) -> Bundle | None:
    """Fetch the bundle that the registry calls champion, or None before the first one."""
    version = tracking.find_alias(project.name, CHAMPION)
    if version is None:
        logger.info("there is no champion yet")
        return None
    Store.connect(load_settings()).download_directory(version.uri, directory)
    return load_bundle(directory, version.digest)
