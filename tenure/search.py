"""The search for a model: Optuna proposes, XGBoost is cross-validated, losers are pruned, studies resume.

A study is the list of its trial records and nothing else. What comes next follows from them alone: the
sampler is seeded again for every trial from the project's seed and the trial's number, folds are drawn once
from the seed, and every fit runs on one thread. So a study that was interrupted and resumed from its records
ends in the same model as one that was not, on any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tenure.errors import TrainingError
from tenure.folds import Fold, FoldResult, count_threads, make_folds, run_folds
from tenure.objective import name_curve
from tenure.space import make_default, make_space

if TYPE_CHECKING:
    import optuna
    from numpy.typing import NDArray

    from tenure.project import Training

STARTUP_TRIALS = 8  # proposed at random before the sampler trusts what it has seen
PRUNING_TRIALS = 4  # complete trials that a median is worth something with
PRUNING_FOLDS = 2  # folds that a trial gets in any case
CURVE_POINTS = 50

Finite = Annotated[float, Field(allow_inf_nan=False)]


class TrialRecord(BaseModel):
    """Everything that is known of one trial. Survives JSON exactly.

    Attributes:
        number: From 0; the order of the study.
        params: The point of the search space.
        state: `pruned` trials stopped after some folds.
        value: The objective: mean over the folds, each scored after the same `rounds`; for a pruned trial the
            mean of `fold_values`.
        fold_values: The objective of each fold that was run, after that fold's own best round. Pruning
            compares these.
        curve: (round from 1, mean over the folds of what early stopping watches), thinned.
        curve_metric: XGBoost's name of what early stopping watches.
        rounds: Mean of the folds' best rounds: how long the final fit runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(ge=0)
    params: dict[str, int | Finite | str]
    state: Literal["complete", "pruned"]
    value: Finite
    fold_values: tuple[Finite, ...] = Field(min_length=1)
    curve: tuple[tuple[int, Finite], ...] = ()
    curve_metric: str
    rounds: int = Field(ge=1)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The complete trial with the best value; the earliest of equals.
        trials: All trials in order, those of earlier runs included.
        margins: The best trial's out-of-fold margins, float64 [rows] in the order of the rows.
    """

    best: TrialRecord
    trials: tuple[TrialRecord, ...]
    margins: NDArray[np.float64]


def search(
    X: NDArray[np.float32],
    y: NDArray[Any],
    types: Sequence[str],
    training: Training,
    previous: Sequence[TrialRecord] = (),
    on_trial: Callable[[TrialRecord], None] | None = None,
    *,
    threads: int | None = None,
) -> SearchResult:
    """Search for the best parameters by cross-validation.

    Args:
        X: Features of the training part, shape [rows, features], NaN is missing.
        y: Labels 0 and 1, shape [rows].
        types: XGBoost's type of each feature, "q" or "c".
        training: The project's settings.
        previous: Records of the same study's earlier trials in any order. They are trusted up to the first
            number that is missing; what follows a gap is run again.
        on_trial: Called with each new record as soon as it is known, in order, in the calling thread. What it
            raises ends the search.
        threads: Folds fitted at once; by default the CPUs this process may use. Never changes the result.

    Raises:
        TrainingError: Too few rows of a class for the folds, a label other than 0 and 1, or previous records
            that are of another study.
    """
    import optuna

    if X.ndim != 2 or len(types) != X.shape[1] or y.shape != (len(X),):
        raise TrainingError(f"search: features {X.shape}, labels {y.shape} and {len(types)} types disagree")
    folds = make_folds(X, y, types, training)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if training.objective.higher_is_better else "minimize")
    space = make_space(training)
    records = _take_previous(previous, training)
    for record in records:
        _add_record(study, record, space)
    if not records:
        study.enqueue_trial(make_default(training))
    best: tuple[TrialRecord, NDArray[np.float64]] | None = None
    with ThreadPoolExecutor(
        max_workers=min(count_threads(threads), training.folds), thread_name_prefix="fold"
    ) as pool:
        while len(records) < training.trials:
            number = len(records)
            study.sampler = _make_sampler(training.seed, number)
            trial = study.ask(space)
            params = _plain(trial.params)
            record, results = _run_trial(pool, folds, params, number, records, training)
            for step, mean in enumerate(_running_means(record.fold_values)):
                trial.report(mean, step)
            if record.state == "complete":
                study.tell(trial, record.value)
            else:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            records.append(record)
            if record is _choose_best(records, training):
                best = record, _join_margins(folds, results, record.rounds)
            if on_trial is not None:
                on_trial(record)
        winner = _choose_best(records, training)
        if best is None or best[0] is not winner:
            # The winner is of an earlier run: its folds are fitted again, to the same bits.
            results = run_folds(pool, folds, winner.params, training)
            best = winner, _join_margins(folds, results, winner.rounds)
    return SearchResult(best=winner, trials=tuple(records), margins=best[1])


def _take_previous(previous: Sequence[TrialRecord], training: Training) -> list[TrialRecord]:
    """Return the records 0, 1, 2... as far as they go without a gap, at most as many as were asked for."""
    by_number = {record.number: record for record in previous}
    records: list[TrialRecord] = []
    while len(records) < training.trials and len(records) in by_number:
        record = by_number[len(records)]
        folds, metric = len(record.fold_values), name_curve(training.objective)
        fits = folds == training.folds if record.state == "complete" else folds < training.folds
        if record.curve_metric != metric or not fits:
            raise TrainingError(
                f"trial {record.number} of the study to resume ({record.state}) watched "
                f"{record.curve_metric} on {folds} folds, the project asks for {metric} on "
                f"{training.folds}: it is another study, start anew"
            )
        records.append(record)
    return records


def _add_record(study: optuna.Study, record: TrialRecord, space: dict[str, Any]) -> None:
    """Give an earlier run's trial to Optuna."""
    import optuna

    complete = record.state == "complete"
    try:
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
            value=record.value if complete else None,
            params=dict(record.params),
            distributions=space,
            intermediate_values=dict(enumerate(_running_means(record.fold_values))),
        )
        study.add_trial(trial)
    except ValueError as error:
        raise TrainingError(
            f"trial {record.number} of the study to resume does not fit the search space ({error}): it is "
            "another study, start anew"
        ) from error


def _make_sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Return a sampler whose choices follow from the study, the seed and the trial's number only."""
    import optuna

    state = np.random.SeedSequence((seed, number)).generate_state(1)[0]
    return optuna.samplers.TPESampler(seed=int(state), n_startup_trials=STARTUP_TRIALS)


def _plain(params: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Turn numpy's numbers, if the sampler gave any, into Python's."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in params.items()}


def _run_trial(
    pool: ThreadPoolExecutor,
    folds: Sequence[Fold],
    params: dict[str, int | float | str],
    number: int,
    earlier: Sequence[TrialRecord],
    training: Training,
) -> tuple[TrialRecord, list[FoldResult]]:
    """Cross-validate one point, fold by fold, until it is done or hopeless."""

    def is_hopeless(values: Sequence[float]) -> bool:
        return _is_below_median(values, earlier, training)

    results = run_folds(pool, folds, params, training, stop=is_hopeless)
    rounds = max(1, round(sum(result.best_rounds for result in results) / len(results)))
    values = tuple(result.best_value for result in results)
    complete = len(results) == len(folds)
    if complete:
        at_rounds = [
            fold.measure(result.predict(fold, rounds), training)
            for fold, result in zip(folds, results, strict=True)
        ]
        value = math.fsum(at_rounds) / len(at_rounds)
    else:
        value = math.fsum(values) / len(values)
    record = TrialRecord(
        number=number,
        params=params,
        state="complete" if complete else "pruned",
        value=value,
        fold_values=values,
        curve=_average_curves([result.curve for result in results]),
        curve_metric=name_curve(training.objective),
        rounds=rounds,
    )
    return record, results


def _is_below_median(values: Sequence[float], earlier: Sequence[TrialRecord], training: Training) -> bool:
    """Whether a trial's mean so far is worse than the median of the complete trials' on the same folds.

    Optuna's MedianPruner compares the best of a trial's means instead, which would forgive everything after
    one easy fold.
    """
    if not PRUNING_FOLDS <= len(values) < training.folds:
        return False
    rivals = [record.fold_values for record in earlier if record.state == "complete"]
    if len(rivals) < PRUNING_TRIALS:
        return False
    median = float(np.median([_running_means(rival)[len(values) - 1] for rival in rivals]))
    mean = _running_means(values)[-1]
    return mean < median if training.objective.higher_is_better else mean > median


def _running_means(values: Sequence[float]) -> list[float]:
    """Return the mean of the first, of the first two, ... values."""
    return [math.fsum(values[: end + 1]) / (end + 1) for end in range(len(values))]


def _average_curves(curves: Sequence[Sequence[float]]) -> tuple[tuple[int, float], ...]:
    """Average over the rounds that all folds reached, and keep `CURVE_POINTS` of them, the last included."""
    length = min(len(curve) for curve in curves)
    step = max(1, math.ceil(length / CURVE_POINTS))
    kept = range(length - 1, -1, -step)
    return tuple(
        (index + 1, math.fsum(curve[index] for curve in curves) / len(curves)) for index in reversed(kept)
    )


def _choose_best(records: Sequence[TrialRecord], training: Training) -> TrialRecord:
    """Return the best complete trial; the first trials are never pruned, so there is one."""
    complete = [record for record in records if record.state == "complete"]
    if not complete:
        raise TrainingError("no trial of the study is complete: the records to resume from are damaged")
    sign = 1 if training.objective.higher_is_better else -1
    return max(complete, key=lambda record: (sign * record.value, -record.number))


def _join_margins(folds: Sequence[Fold], results: Sequence[FoldResult], rounds: int) -> NDArray[np.float64]:
    """Put the folds' margins, each from trees that never saw the row, back into the order of the rows."""
    margins = np.empty(sum(len(fold.rows) for fold in folds), dtype=np.float64)
    for fold, result in zip(folds, results, strict=True):
        margins[fold.rows] = result.predict(fold, rounds)
    return margins
