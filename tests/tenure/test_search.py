"""A study follows from its records: resumed, on other threads or in another order, it ends the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import tenure.folds
from tenure.calibration import squash
from tenure.errors import TrainingError
from tenure.folds import make_folds
from tenure.objective import measure
from tenure.project import Metric, Training
from tenure.search import PRUNING_FOLDS, PRUNING_TRIALS, TrialRecord, search
from tenure.space import make_default, make_space

TYPES = ("q", "q", "c", "q")
SMALL = Training(trials=12, folds=4, max_rounds=40, early_stopping_rounds=8, seed=5)


def make_data(rows: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.column_stack(
        [rng.normal(size=rows), rng.normal(size=rows), rng.integers(0, 6, rows), rng.normal(size=rows)]
    ).astype(np.float32)
    z = 1.5 * X[:, 0] + np.where(X[:, 2] > 3, 1.0, -0.5) * X[:, 1] - 1
    y = (rng.random(rows) < squash(z)).astype(float)
    X[rng.random(X.shape) < 0.05] = np.nan
    return X, y


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    return make_data()


@pytest.fixture(scope="module")
def whole(data: tuple[np.ndarray, np.ndarray]) -> Any:
    """The study run in one go."""
    return search(*data, TYPES, SMALL, threads=2)


def travel(records: Any) -> list[TrialRecord]:
    """Send records through JSON, as the tracking server does."""
    return [TrialRecord.model_validate_json(record.model_dump_json()) for record in records]


def assert_same(one: Any, other: Any) -> None:
    assert one.trials == other.trials
    assert one.best == other.best
    np.testing.assert_array_equal(one.margins, other.margins)


@pytest.mark.parametrize("cut", range(13))
def test_resumes_exactly(data: Any, whole: Any, cut: int) -> None:
    resumed = search(*data, TYPES, SMALL, travel(whole.trials[:cut]), threads=1)
    assert_same(resumed, whole)


@pytest.mark.parametrize("threads", [1, 3, None])
def test_threads_change_nothing(data: Any, whole: Any, threads: int | None) -> None:
    assert_same(search(*data, TYPES, SMALL, threads=threads), whole)


def test_resumes_from_records_in_any_order_up_to_a_gap(data: Any, whole: Any) -> None:
    new: list[int] = []
    previous = [record for record in reversed(whole.trials) if record.number != 6]
    resumed = search(
        *data, TYPES, SMALL, travel(previous), on_trial=lambda record: new.append(record.number), threads=2
    )
    assert_same(resumed, whole)
    assert new == list(range(6, 12))


def test_a_finished_study_runs_nothing_new(data: Any, whole: Any) -> None:
    def refuse(record: TrialRecord) -> None:
        raise AssertionError(f"trial {record.number} was run again")

    assert_same(search(*data, TYPES, SMALL, whole.trials, on_trial=refuse), whole)


def test_an_interrupted_study_has_told_every_trial(data: Any, whole: Any) -> None:
    told: list[TrialRecord] = []

    def interrupt(record: TrialRecord) -> None:
        told.append(record)
        if record.number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(*data, TYPES, SMALL, on_trial=interrupt)
    assert tuple(told) == whole.trials[:5]
    assert_same(search(*data, TYPES, SMALL, travel(told)), whole)


def test_fewer_trials_are_the_beginning_of_more(data: Any, whole: Any) -> None:
    short = SMALL.model_copy(update={"trials": 7})
    assert search(*data, TYPES, short).trials == whole.trials[:7]
    assert search(*data, TYPES, short, whole.trials).trials == whole.trials[:7]


def test_another_seed_is_another_study(data: Any, whole: Any) -> None:
    other = search(*data, TYPES, SMALL.model_copy(update={"seed": 6, "trials": 3}))
    assert other.trials[1].params != whole.trials[1].params


def test_begins_with_the_default(whole: Any) -> None:
    assert whole.trials[0].params == make_default(SMALL)
    assert [record.number for record in whole.trials] == list(range(12))


def test_losers_are_pruned(whole: Any) -> None:
    pruned = [record for record in whole.trials if record.state == "pruned"]
    assert pruned
    for record in pruned:
        assert record.number >= PRUNING_TRIALS
        assert PRUNING_FOLDS <= len(record.fold_values) < SMALL.folds
    for record in whole.trials:
        if record.state == "complete":
            assert len(record.fold_values) == SMALL.folds


def test_the_best_is_complete_and_best(whole: Any) -> None:
    complete = [record for record in whole.trials if record.state == "complete"]
    assert whole.best in complete
    assert whole.best.value == max(record.value for record in complete)


@pytest.mark.parametrize("metric", list(Metric))
def test_the_value_is_the_objective_out_of_fold(data: Any, metric: Metric) -> None:
    training = SMALL.model_copy(update={"objective": metric, "trials": 6})
    found = search(*data, TYPES, training)
    X, y = data
    values = [
        measure(metric, y[fold.rows], squash(found.margins[fold.rows]), training.precision)
        for fold in make_folds(X, y, TYPES, training)
    ]
    assert found.best.value == math.fsum(values) / len(values)
    better = max if metric.higher_is_better else min
    assert found.best.value == better(r.value for r in found.trials if r.state == "complete")


def test_folds_hold_every_row_once(data: Any) -> None:
    X, y = data
    folds = make_folds(X, y, TYPES, SMALL)
    assert sorted(np.concatenate([fold.rows for fold in folds]).tolist()) == list(range(len(y)))
    for fold in folds:
        assert len(fold.labels) + len(fold.rows) == len(y)
        assert fold.judged_labels.mean() == pytest.approx(y.mean(), abs=0.02)


def test_weights_come_from_the_rows_fitted_on(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data
    allowed = {fold.labels.tobytes() for fold in make_folds(X, y, TYPES, SMALL)}
    weights: list[float] = []
    build = tenure.folds.build_parameters

    def spy(params: Any, labels: np.ndarray, seed: int) -> dict[str, Any]:
        assert labels.tobytes() in allowed
        parameters = build(params, labels, seed)
        assert parameters["scale_pos_weight"] == (labels == 0).sum() / (labels == 1).sum()
        weights.append(parameters["scale_pos_weight"])
        return parameters

    monkeypatch.setattr(tenure.folds, "build_parameters", spy)
    search(X, y, TYPES, SMALL.model_copy(update={"imbalance": ("weight",), "trials": 1}))
    assert len(weights) == SMALL.folds


def test_imbalance_is_searched_when_there_is_a_choice(data: Any) -> None:
    training = SMALL.model_copy(update={"imbalance": ("none", "weight"), "trials": 10})
    found = search(*data, TYPES, training)
    assert {record.params["imbalance"] for record in found.trials} == {"none", "weight"}
    assert_same(search(*data, TYPES, training, travel(found.trials[:4])), found)


def test_noise_stays_noise() -> None:
    X, _ = make_data(600, seed=1)
    y = np.random.default_rng(9).permutation(np.repeat([0.0, 1.0], [400, 200]))
    found = search(X, y, TYPES, SMALL)
    assert 0.4 < measure(Metric.ROC_AUC, y, squash(found.margins)) < 0.6


def test_curves_are_short_and_end_at_the_last_common_round(whole: Any) -> None:
    for record in whole.trials:
        rounds = [point[0] for point in record.curve]
        assert rounds == sorted(set(rounds))
        assert 1 <= len(rounds) <= 50
        assert rounds[-1] <= SMALL.max_rounds
        assert record.rounds <= SMALL.max_rounds


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(400), "0 left and 400 stayed"),
        (np.ones(400), "400 left and 0 stayed"),
        (np.repeat([1.0, 0.0], [3, 397]), "4 folds need 4 of each"),
        (np.repeat([1.0, 0.0, np.nan], [200, 199, 1]), "1 labels are neither 0 nor 1"),
        (np.repeat([1.0, 0.0, 2.0], [200, 198, 2]), "2 labels are neither"),
        (np.repeat([1.0, 0.0], [200, 199]), "disagree"),
    ],
)
def test_refuses_labels_that_cannot_be_learned(data: Any, y: np.ndarray, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        search(data[0], y, TYPES, SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": Metric.LOG_LOSS}, "watched auc on 4 folds, the project asks for logloss on 4"),
        ({"folds": 5}, "asks for auc on 5"),
        ({"folds": 3}, "asks for auc on 3"),
        ({"imbalance": ("weight",)}, "does not fit the search space"),
    ],
)
def test_refuses_records_of_another_study(
    data: Any, whole: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        search(*data, TYPES, SMALL.model_copy(update=changes), whole.trials)


def test_refuses_a_record_without_a_parameter(data: Any, whole: Any) -> None:
    first = whole.trials[0]
    params = {name: value for name, value in first.params.items() if name != "eta"}
    with pytest.raises(TrainingError, match="does not fit the search space"):
        search(*data, TYPES, SMALL, [first.model_copy(update={"params": params})])


def test_refuses_records_without_a_complete_trial(data: Any, whole: Any) -> None:
    pruned = next(record for record in whole.trials if record.state == "pruned")
    with pytest.raises(TrainingError, match="no trial of the study is complete"):
        search(
            *data, TYPES, SMALL.model_copy(update={"trials": 1}), [pruned.model_copy(update={"number": 0})]
        )


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        TrialRecord,
        number=st.integers(0, 10_000),
        params=st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), FLOATS, st.text(max_size=5))),
        state=st.sampled_from(["complete", "pruned"]),
        value=FLOATS,
        fold_values=st.lists(FLOATS, min_size=1, max_size=5).map(tuple),
        curve=st.lists(st.tuples(st.integers(1, 500), FLOATS), max_size=5).map(tuple),
        curve_metric=st.just("auc"),
        rounds=st.integers(1, 500),
    )
)
def test_records_survive_json_exactly(record: TrialRecord) -> None:
    again = TrialRecord.model_validate_json(record.model_dump_json())
    assert again == record
    assert {name: type(value) for name, value in again.params.items()} == {
        name: type(value) for name, value in record.params.items()
    }


@pytest.mark.parametrize("change", [{"value": math.nan}, {"fold_values": ()}, {"rounds": 0}, {"colour": 1}])
def test_refuses_an_impossible_record(whole: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrialRecord.model_validate({**whole.trials[0].model_dump(), **change})


def test_the_default_lies_in_the_space() -> None:
    for imbalance in (("none",), ("weight",), ("weight", "none")):
        training = SMALL.model_copy(update={"imbalance": imbalance})
        space, default = make_space(training), make_default(training)
        assert space.keys() == default.keys()
        for name, value in default.items():
            assert space[name]._contains(space[name].to_internal_repr(value)), name
