"""From the training rows to a model: featuriser, search, final fit, calibrator, threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.booster import build_parameters, fit_booster, predict_margins
from tenure.calibration import Calibrator
from tenure.drift.reference import LABEL, SCORE
from tenure.errors import TrainingError
from tenure.featuriser import Featuriser, encode_labels
from tenure.graph import convert_booster, open_session, run_session
from tenure.objective import measure
from tenure.project import Metric
from tenure.search import SearchResult, TrialRecord, search
from tenure.threshold import choose_threshold

if TYPE_CHECKING:
    import pandas as pd
    import xgboost as xgb
    from numpy.typing import NDArray

    from tenure.contract import Contract
    from tenure.project import Project

REFERENCE_ROWS = 5000
PROBE_ROWS = 20
CHECKED_ROWS = 2000
TOLERANCE = 1e-6  # by which ONNX Runtime may differ from XGBoost, in probability


@dataclass(frozen=True)
class TrainedModel:
    """Everything that training learned; `bundle.write_bundle` makes it a directory.

    Attributes:
        featuriser: Fitted on the training rows.
        booster: The trees as UBJSON.
        onnx: The same trees as an ONNX graph.
        calibrator: Fitted on out-of-fold margins.
        threshold: Calibrated probability from which a customer counts as leaving.
        search: The study; its best trial gave parameters and rounds.
        rows: Training rows with a label.
        positives: Those that left.
        cv: Metrics of the calibrated out-of-fold scores, all folds taken together.
        reference: At most 5,000 training rows: features, out-of-fold score and known label (0 or 1):
            what the model saw.
        probe: 20 training rows as plain JSON values, spread over the scores.
        probe_scores: The model's own answers for them.
    """

    featuriser: Featuriser
    booster: bytes
    onnx: bytes
    calibrator: Calibrator
    threshold: float
    search: SearchResult
    rows: int
    positives: int
    cv: dict[str, float]
    reference: pd.DataFrame
    probe: list[dict[str, Any]]
    probe_scores: list[float]


def train(
    frame: pd.DataFrame,
    project: Project,
    *,
    previous: Sequence[TrialRecord] = (),
    on_trial: Callable[[TrialRecord], None] | None = None,
    threads: int | None = None,
) -> TrainedModel:
    """Train a model. The same rows and project always give the same model, byte for byte.

    Args:
        frame: Canonical rows (see `validation.validate_frame`) of the training part, and of no other. Rows
            whose label is not known are left out.
        project: Its contract and training settings.
        previous: Trials of an interrupted run of the same training (see `search`).
        on_trial: Called with each new trial.
        threads: Folds fitted at once; never changes the result.

    Raises:
        TrainingError: Too few customers of a class, or records of another study.
        ContractError: A column of the contract is missing.
    """
    contract, training = project.contract, project.training
    taken = [column.name for column in contract.features if column.name in (SCORE, LABEL)]
    if taken:
        raise TrainingError(
            f"a feature is called {taken[0]!r}, which the drift reference needs for itself: rename it"
        )
    labels = encode_labels(frame, contract)
    known = ~np.isnan(labels)
    frame, y = frame[known].reset_index(drop=True), labels[known]
    if not len(frame):
        raise TrainingError("no training row has a label: there is nothing to learn from")
    featuriser = Featuriser.fit(frame, contract)
    X = featuriser.transform_frame(frame)
    found = search(X, y, featuriser.types, training, previous, on_trial, threads=threads)

    best = found.best
    trees = fit_booster(X, y, featuriser.types, best.params, best.rounds, training.seed)
    start = build_parameters(best.params, y, training.seed)["base_score"]
    onnx = convert_booster(trees, len(featuriser.names), start)

    calibrator = Calibrator.fit(found.margins, y)
    out_of_fold = np.round(calibrator.apply(found.margins), 9)
    margins = predict_margins(trees, X, featuriser.types)
    _check_graph(onnx, trees, X, featuriser.types, calibrator)
    chosen = _choose_probe(margins)
    return TrainedModel(
        featuriser=featuriser,
        booster=bytes(trees.save_raw("ubj")),
        onnx=onnx,
        calibrator=calibrator,
        threshold=choose_threshold(training.threshold, y, out_of_fold),
        search=found,
        rows=len(y),
        positives=int(y.sum()),
        cv={metric.value: round(measure(metric, y, out_of_fold, training.precision), 9) for metric in Metric},
        reference=_sample_reference(frame, out_of_fold, y, contract, training.seed),
        probe=[_describe_row(frame, int(row), contract) for row in chosen],
        probe_scores=np.round(calibrator.apply(margins[chosen]), 9).tolist(),
    )


def _check_graph(
    onnx: bytes, trees: xgb.Booster, X: NDArray[np.float32], types: Sequence[str], calibrator: Calibrator
) -> None:
    """Compare both forms of the trees on training rows, and on rows shuffled and emptied column by column."""
    rng = np.random.default_rng(0)
    known = X[:CHECKED_ROWS]
    made_up = np.column_stack([rng.permutation(column) for column in known.T])
    made_up[rng.random(made_up.shape) < 0.2] = np.nan
    rows = np.ascontiguousarray(np.vstack([known, made_up]))
    ours = calibrator.apply(run_session(open_session(onnx), rows))
    difference = float(np.abs(ours - calibrator.apply(predict_margins(trees, rows, types))).max())
    if not difference <= TOLERANCE:
        raise TrainingError(
            f"the ONNX graph differs from XGBoost by {difference:.2g}, at most {TOLERANCE:g} is allowed: "
            "this is a fault of the conversion, please report it with the project file"
        )


def _choose_probe(margins: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return rows spread evenly over the order of the scores, so that many leaves are asked."""
    order = np.argsort(margins, kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, PROBE_ROWS).round().astype(np.intp))]


def _sample_reference(
    frame: pd.DataFrame,
    scores: NDArray[np.float64],
    labels: NDArray[np.float64],
    contract: Contract,
    seed: int,
) -> pd.DataFrame:
    """Return a sample of the features with the out-of-fold scores and the labels, in the rows' order.

    Scores of rows that the trees were fitted on are too confident to compare new customers with.
    """
    count = min(REFERENCE_ROWS, len(frame))
    rows = np.sort(np.random.default_rng(seed).choice(len(frame), size=count, replace=False))
    names = [column.name for column in contract.features]
    sample = frame.iloc[rows][names].reset_index(drop=True)
    return sample.assign(**{SCORE: scores[rows], LABEL: labels[rows]})


def _describe_row(frame: pd.DataFrame, row: int, contract: Contract) -> dict[str, Any]:
    """Return one row as plain JSON values, None for missing."""
    import pandas as pd

    cells = {column.name: frame[column.name].iloc[row] for column in contract.features}
    return {
        name: None if pd.isna(value) else value.item() if isinstance(value, np.generic) else value
        for name, value in cells.items()
    }
