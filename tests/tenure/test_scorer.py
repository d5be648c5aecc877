"""The scorer agrees with XGBoost on every row there can be, and says why."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenure.bundle import Bundle
from tenure.contract import Column, Contract, Type
from tenure.errors import BundleError, RowError
from tenure.partition import Part
from tenure.scorer import Scorer, score_with_xgboost, to_columns

Parts = dict[Part, pd.DataFrame]


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> Scorer:
    return Scorer(bundle)


def draw_value(column: Column) -> st.SearchStrategy[Any]:
    """Any value that the contract lets through: missing and unseen ones included."""
    if column.type is Type.STRING:
        value: st.SearchStrategy[Any] = st.sampled_from(column.categories or ("a",)) | st.text(max_size=8)
    elif column.type is Type.BOOLEAN:
        value = st.booleans()
    elif column.type is Type.INTEGER:
        value = st.integers(int(column.minimum or 0), int(column.maximum or 10**6))
    else:
        value = st.floats(column.minimum or 0.0, column.maximum or 1e9)
    return value | st.none() if column.nullable else value


def draw_rows(contract: Contract) -> st.SearchStrategy[list[dict[str, Any]]]:
    row = st.fixed_dictionaries({column.name: draw_value(column) for column in contract.features})
    return st.lists(row, min_size=1, max_size=40)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(data=st.data())
def test_equals_xgboost_on_any_row(bundle: Bundle, scorer: Scorer, data: st.DataObject) -> None:
    rows = data.draw(draw_rows(bundle.contract))
    columns = to_columns(rows, bundle.featuriser.names)
    ours = scorer.score_columns(columns)
    theirs = score_with_xgboost(bundle, bundle.featuriser.transform(columns))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert ((ours > 0) & (ours < 1)).all()
    singly = [scorer.score_columns(to_columns([row], bundle.featuriser.names))[0] for row in rows]
    np.testing.assert_allclose(singly, ours, rtol=0, atol=1e-9)


def test_equals_xgboost_on_any_matrix(bundle: Bundle, scorer: Scorer) -> None:
    rng = np.random.default_rng(0)
    columns = [
        rng.integers(-1, len(feature.categories) + 3, 20_000)
        if feature.categories
        else rng.normal(0, 100, 20_000)
        for feature in bundle.featuriser.features
    ]
    X = np.column_stack(columns).astype(np.float32)
    X[X == -1] = np.nan
    X[rng.random(X.shape) < 0.2] = np.nan
    np.testing.assert_allclose(scorer.score_matrix(X), score_with_xgboost(bundle, X), rtol=0, atol=1e-6)


def test_equals_xgboost_on_real_customers(bundle: Bundle, scorer: Scorer, telco_parts: Parts) -> None:
    X = bundle.featuriser.transform_frame(pd.concat(telco_parts.values()))
    np.testing.assert_allclose(scorer.score_matrix(X), score_with_xgboost(bundle, X), rtol=0, atol=1e-6)


def test_answers_the_probe(bundle: Bundle, scorer: Scorer) -> None:
    scores = scorer.score_columns(to_columns(bundle.probe(), bundle.featuriser.names))
    np.testing.assert_allclose(scores, bundle.probe_scores(), rtol=0, atol=1e-6)


def test_an_unseen_category_counts_as_missing(bundle: Bundle, scorer: Scorer) -> None:
    row = bundle.probe()[10]
    names = bundle.featuriser.names
    for place, feature in enumerate(bundle.featuriser.features):
        if not feature.categories:
            continue
        unseen = scorer.score_columns(to_columns([{**row, names[place]: "on the moon"}], names))
        X = bundle.featuriser.transform(to_columns([row], names))
        X[0, place] = np.nan
        assert unseen == scorer.score_matrix(X)


def test_a_missing_value_is_answered(bundle: Bundle, scorer: Scorer) -> None:
    rows = [{**row, "total_charges": None} for row in bundle.probe()]
    scores = scorer.score_columns(to_columns(rows, bundle.featuriser.names))
    assert ((scores > 0) & (scores < 1)).all()


def test_a_bad_row_is_refused(bundle: Bundle, scorer: Scorer) -> None:
    row = {**bundle.probe()[0], "tenure": -1}
    with pytest.raises(RowError, match="tenure"):
        scorer.score_columns(to_columns([row], bundle.featuriser.names))


def test_no_rows_no_answers(bundle: Bundle, scorer: Scorer) -> None:
    empty = np.empty((0, len(bundle.featuriser.names)), dtype=np.float32)
    assert scorer.score_matrix(empty).shape == (0,)
    assert scorer.explain(empty, 3) == []


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((2, 3), np.float32),
        np.zeros(19, np.float32),
        np.zeros((2, 19)),
        np.zeros((1, 2, 19), np.float32),
    ],
    ids=["width", "one dimension", "float64", "three dimensions"],
)
def test_another_matrix_is_refused(scorer: Scorer, X: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected float32 \[rows, 19\]"):
        scorer.score_matrix(X)
    with pytest.raises(ValueError, match=r"expected float32 \[rows, 19\]"):
        scorer.explain(X, 1)


def test_threads_share_it(bundle: Bundle, scorer: Scorer, telco_parts: Parts) -> None:
    X = bundle.featuriser.transform_frame(telco_parts[Part.HELD_OUT])
    expected, reasons = scorer.score_matrix(X), scorer.explain(X[:50], 3)
    with ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(scorer.score_matrix, [X] * 12))
        explained = list(pool.map(lambda rows: scorer.explain(rows, 3), [X[:50]] * 12))
    for score in scores:
        np.testing.assert_array_equal(score, expected)
    assert explained == [reasons] * 12


def test_more_threads_give_the_same(bundle: Bundle, scorer: Scorer, telco_parts: Parts) -> None:
    X = bundle.featuriser.transform_frame(telco_parts[Part.HELD_OUT])
    np.testing.assert_allclose(Scorer(bundle, threads=2).score_matrix(X), scorer.score_matrix(X), atol=1e-6)


def test_reasons_add_up_to_the_score(bundle: Bundle, scorer: Scorer, telco_parts: Parts) -> None:
    X = bundle.featuriser.transform_frame(telco_parts[Part.HELD_OUT].head(200))
    p = scorer.score_matrix(X)
    log_odds = np.log(p / (1 - p))
    sums = np.array([sum(share for _, share in row) for row in scorer.explain(X, X.shape[1])])
    # What is left is the same for everybody: the average customer's log-odds.
    np.testing.assert_allclose(log_odds - sums, (log_odds - sums)[0], rtol=0, atol=1e-4)


def test_reasons_are_the_strongest_first(bundle: Bundle, scorer: Scorer, telco_parts: Parts) -> None:
    X = bundle.featuriser.transform_frame(telco_parts[Part.HELD_OUT].head(50))
    everything = scorer.explain(X, X.shape[1])
    for whole, short in zip(everything, scorer.explain(X, 3), strict=True):
        strengths = [abs(share) for _, share in whole]
        assert strengths == sorted(strengths, reverse=True)
        assert short == whole[:3]
        assert {name for name, _ in whole} <= set(bundle.featuriser.names)
    assert scorer.explain(X, 0) == [[]] * 50
    with pytest.raises(ValueError, match="top is -1"):
        scorer.explain(X, -1)


def test_reasons_without_xgboost_say_so(
    bundle: Bundle, telco_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    X = bundle.featuriser.transform_frame(telco_parts[Part.HELD_OUT].head(1))
    scorer = Scorer(bundle)
    assert scorer.score_matrix(X).shape == (1,)
    with pytest.raises(BundleError, match="not installed"):
        scorer.explain(X, 3)


def test_rows_become_columns() -> None:
    rows = [{"a": 1, "b": "x"}, {"b": "y", "c": 3}]
    assert to_columns(rows, ["b", "a"]) == {"b": ["x", "y"], "a": [1, None]}
    assert to_columns([], ["a"]) == {"a": []}
