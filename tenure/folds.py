"""Cross-validation: the folds of the training part, and one fit on each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.booster import build_matrix, build_parameters
from tenure.calibration import squash
from tenure.errors import TrainingError
from tenure.objective import measure, name_curve

if TYPE_CHECKING:
    import xgboost as xgb
    from numpy.typing import NDArray

    from tenure.project import Training


@dataclass(frozen=True)
class Fold:
    """One split of the training part. Its matrices serve all trials, but one fit at a time.

    Attributes:
        fitted: Binned rows that trees are fitted on.
        labels: Their labels, shape [rows fitted on]; class weights are computed from these alone.
        judged: Binned rows that the trees are judged on.
        judged_labels: Their labels.
        rows: Their positions in the training part.
    """

    fitted: xgb.QuantileDMatrix
    labels: NDArray[np.float64]
    judged: xgb.QuantileDMatrix
    judged_labels: NDArray[np.float64]
    rows: NDArray[np.intp]

    def measure(self, margins: NDArray[np.float64], training: Training) -> float:
        """Compute the project's objective on the judged rows."""
        return measure(training.objective, self.judged_labels, squash(margins), training.precision)


@dataclass(frozen=True)
class FoldResult:
    """One fit.

    Attributes:
        booster: The trees, up to where early stopping gave up.
        best_rounds: How many of them were best on the judged rows.
        best_value: The objective with these.
        curve: What early stopping watched, per round.
    """

    booster: xgb.Booster
    best_rounds: int
    best_value: float
    curve: tuple[float, ...]

    def predict(self, fold: Fold, rounds: int) -> NDArray[np.float64]:
        """Return margins of the judged rows after `rounds`, or after all if there are fewer."""
        end = min(rounds, len(self.curve))
        margins = self.booster.predict(fold.judged, output_margin=True, iteration_range=(0, end))
        return np.asarray(margins, dtype=np.float64)


def count_threads(threads: int | None) -> int:
    """Return `threads`, or the number of CPUs that this process may use."""
    if threads is not None:
        return max(1, threads)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def make_folds(
    X: NDArray[np.float32], y: NDArray[Any], types: Sequence[str], training: Training
) -> tuple[Fold, ...]:
    """Split the rows into stratified folds, drawn from the project's seed.

    Raises:
        TrainingError: A label is neither 0 nor 1, or a class has fewer rows than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    y = np.asarray(y, dtype=np.float64)
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    if positives + negatives != len(y):
        raise TrainingError(
            f"{len(y) - positives - negatives} labels are neither 0 nor 1: leave those rows out"
        )
    if min(positives, negatives) < training.folds:
        raise TrainingError(
            f"of {len(y)} training rows {positives} left and {negatives} stayed: {training.folds} folds need "
            f"{training.folds} of each; bring more customers or lower training.folds"
        )
    splitter = StratifiedKFold(n_splits=training.folds, shuffle=True, random_state=training.seed)
    folds = []
    for inside, outside in splitter.split(np.zeros(len(y)), y):
        fitted = build_matrix(X[inside], y[inside], types)
        judged = build_matrix(X[outside], y[outside], types, reference=fitted)
        folds.append(Fold(fitted, y[inside], judged, y[outside], outside))
    return tuple(folds)


def run_folds(
    pool: ThreadPoolExecutor,
    folds: Sequence[Fold],
    params: Mapping[str, Any],
    training: Training,
    stop: Callable[[Sequence[float]], bool] | None = None,
) -> list[FoldResult]:
    """Fit the folds, several at once, and return the results in order.

    Args:
        pool: Its threads fit. Results do not depend on how many there are.
        folds: From `make_folds`.
        params: A point of the search space.
        training: The project's settings.
        stop: Is shown the values of the folds so far, in order, after each one; True ends it there. Folds
            that were already being fitted are thrown away.
    """
    futures = [pool.submit(_fit_fold, fold, params, training) for fold in folds]
    results: list[FoldResult] = []
    try:
        for future in futures:
            results.append(future.result())
            if stop is not None and stop([result.best_value for result in results]):
                break
    finally:
        for future in futures:
            future.cancel()
        wait(futures)  # the next trial uses the same matrices
    return results


def _fit_fold(fold: Fold, params: Mapping[str, Any], training: Training) -> FoldResult:
    """Fit one fold, watching the judged rows, until they have not improved for some rounds."""
    import xgboost as xgb

    metric = name_curve(training.objective)
    history: dict[str, dict[str, list[float]]] = {}
    booster = xgb.train(
        {**build_parameters(params, fold.labels, training.seed), "eval_metric": metric},
        fold.fitted,
        num_boost_round=training.max_rounds,
        evals=[(fold.judged, "judged")],
        early_stopping_rounds=training.early_stopping_rounds,
        evals_result=history,
        verbose_eval=False,
    )
    curve = tuple(float(value) for value in history["judged"][metric])
    best_rounds = int(booster.best_iteration) + 1
    result = FoldResult(booster, best_rounds, 0.0, curve)
    value = fold.measure(result.predict(fold, best_rounds), training)
    return FoldResult(booster, best_rounds, value, curve)
