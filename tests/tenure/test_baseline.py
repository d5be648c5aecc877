"""The baselines: what they are, that they work on the canonical frame, and that they repeat themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from tenure.baseline import score_baselines
from tenure.contract import Contract
from tenure.errors import EvaluationError
from tenure.featuriser import encode_labels
from tenure.project import Project


def make_project(contract: Contract, **training: object) -> Project:
    return Project.model_validate(
        {
            "name": "small",
            "source": {"uri": "rows.csv"},
            "contract": contract,
            "training": training,
            "rollout": {"service": "small"},
        }
    )


def make_frame(rows: int, seed: int) -> pd.DataFrame:
    """Canonical rows whose leavers depend on a number, a category, a boolean and on what is missing."""
    rng = np.random.default_rng(seed)
    plan = rng.choice(["basic", "plus"], rows).astype(object)
    plan[rng.random(rows) < 0.2] = None
    spend = rng.normal(50, 20, rows)
    spend[rng.random(rows) < 0.2] = np.nan
    loud = pd.array(rng.random(rows) < 0.5, dtype="boolean")
    loud[rng.random(rows) < 0.1] = pd.NA
    missing = pd.isna(plan).astype(float)
    logit = 2 * (plan == "plus") - 3 * missing + np.nan_to_num((spend - 50) / 20) - 1.0 * np.isnan(spend)
    y = rng.random(rows) < 1 / (1 + np.exp(-logit))
    return pd.DataFrame(
        {
            "id": [f"{seed}-{row}" for row in range(rows)],
            "left": np.where(y, "Yes", "No").astype(object),
            "plan": plan,
            "spend": spend,
            "calls": pd.array(rng.integers(0, 9, rows), dtype="Int64"),
            "loud": loud,
        }
    )


@pytest.fixture
def small(make_contract: Callable[..., Contract]) -> Contract:
    return make_contract(
        {"name": "plan", "type": "string", "nullable": True},
        {"name": "spend", "type": "float", "nullable": True},
        {"name": "calls", "type": "integer"},
        {"name": "loud", "type": "boolean", "nullable": True},
    )


def test_both_learn_from_mixed_and_missing_columns(small: Contract) -> None:
    train, held_out = make_frame(1500, 1), make_frame(600, 2)
    held_out.loc[0, "plan"] = "unheard of"
    logistic, trees = score_baselines(train, held_out, make_project(small))
    y = encode_labels(held_out, small)
    assert (logistic.name, trees.name) == ("baseline", "default_xgboost")
    for baseline in (logistic, trees):
        assert baseline.scores.shape == (600,)
        assert baseline.scores.dtype == np.float64
        assert ((baseline.scores >= 0) & (baseline.scores <= 1)).all()
        assert 0 < baseline.threshold < 1
    assert roc_auc_score(y, logistic.scores) > 0.85
    assert roc_auc_score(y, trees.scores) > 0.8


def test_logistic_regression_is_scikit_learns_on_standardised_numbers(
    make_contract: Callable[..., Contract],
) -> None:
    contract = make_contract({"name": "x", "type": "float"}, {"name": "z", "type": "float"})
    rng = np.random.default_rng(0)
    # float32 values: the featuriser's matrix holds these exactly
    X = rng.normal(3, 7, (400, 2)).astype(np.float32).astype(float)
    y = X[:, 0] + rng.normal(0, 5, 400) > 3
    frame = pd.DataFrame(
        {"id": [str(row) for row in range(400)], "left": np.where(y, "Yes", "No"), "x": X[:, 0], "z": X[:, 1]}
    )
    logistic, _ = score_baselines(frame[:300], frame[300:], make_project(contract))
    scaler = StandardScaler().fit(X[:300])
    model = LogisticRegression(tol=1e-8).fit(scaler.transform(X[:300]), y[:300])
    expected = model.predict_proba(scaler.transform(X[300:]))[:, 1]
    np.testing.assert_allclose(logistic.scores, expected, atol=1e-3)


def test_repeats_itself(small: Contract) -> None:
    train, held_out, project = make_frame(300, 1), make_frame(100, 2), make_project(small)
    for first, second in zip(
        score_baselines(train, held_out, project), score_baselines(train, held_out, project), strict=True
    ):
        np.testing.assert_array_equal(first.scores, second.scores)
        assert first.threshold == second.threshold


def test_rows_without_a_label_are_left_out(small: Contract) -> None:
    train, held_out, project = make_frame(300, 1), make_frame(100, 2), make_project(small)
    unlabelled = make_frame(50, 3)
    unlabelled["left"] = None
    padded = pd.concat([train, unlabelled], ignore_index=True)
    for first, second in zip(
        score_baselines(train, held_out, project), score_baselines(padded, held_out, project), strict=True
    ):
        np.testing.assert_array_equal(first.scores, second.scores)


def test_the_threshold_follows_the_projects_rule(small: Contract) -> None:
    train, held_out = make_frame(600, 1), make_frame(600, 2)
    fixed = make_project(small, threshold={"rule": "fixed", "value": 0.25})
    assert {baseline.threshold for baseline in score_baselines(train, held_out, fixed)} == {0.25}
    top = make_project(small, threshold={"rule": "top_fraction", "value": 0.2})
    for baseline in score_baselines(train, held_out, top):
        assert (baseline.scores >= baseline.threshold).mean() == pytest.approx(0.2, abs=0.06)


def test_a_column_without_any_value_does_no_harm(small: Contract) -> None:
    train, held_out = make_frame(300, 1), make_frame(100, 2)
    train["spend"] = np.nan
    train["plan"] = None
    for baseline in score_baselines(train, held_out, make_project(small)):
        assert np.isfinite(baseline.scores).all()


def test_one_class_in_training_is_refused(small: Contract) -> None:
    train, held_out = make_frame(300, 1), make_frame(100, 2)
    train["left"] = "No"
    with pytest.raises(EvaluationError, match="at least 5 training rows of each class, but the rarer has 0"):
        score_baselines(train, held_out, make_project(small))
