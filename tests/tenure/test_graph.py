"""The ONNX graph gives XGBoost's margins, whatever the trees and the rows look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenure.booster import build_parameters, fit_booster, load_booster, predict_margins
from tenure.graph import convert_booster, open_session, run_session

PARAMS: dict[str, Any] = {
    "max_depth": 5,
    "eta": 0.1,
    "min_child_weight": 1.0,
    "subsample": 0.9,
    "colsample": 1.0,
    "lambda": 1.0,
    "alpha": 0.01,
    "gamma": 0.0,
    "imbalance": "none",
}


def make_rows(rng: np.random.Generator, kinds: tuple[int, ...], rows: int, missing: float) -> np.ndarray:
    """Columns with that many categories each, or numbers where it is 0."""
    X = np.column_stack(
        [rng.integers(0, kind, rows) if kind else rng.normal(size=rows) for kind in kinds]
    ).astype(np.float32)
    X[rng.random(X.shape) < missing] = np.nan
    return X


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1000),
    kinds=st.lists(st.sampled_from([0, 2, 3, 4, 5, 20, 150]), min_size=1, max_size=5).map(tuple),
    missing=st.sampled_from([0.0, 0.2]),
    depth=st.integers(2, 6),
    imbalance=st.sampled_from(["none", "weight"]),
)
def test_equals_xgboost(
    seed: int, kinds: tuple[int, ...], missing: float, depth: int, imbalance: str
) -> None:
    rng = np.random.default_rng(seed)
    X = make_rows(rng, kinds, 400, missing)
    first = np.nan_to_num(X[:, 0])
    y = (rng.random(400) < 1 / (1 + np.exp(1 - np.sin(first * 3)))).astype(float)
    types = ["c" if kind else "q" for kind in kinds]
    params = {**PARAMS, "max_depth": depth, "imbalance": imbalance}
    booster = fit_booster(X, y, types, params, 20, seed)
    start = build_parameters(params, y, seed)["base_score"]
    data = convert_booster(booster, len(kinds), start)
    assert data == convert_booster(booster, len(kinds), start)
    # Rows with missing values and with codes that the trees never saw.
    other = make_rows(rng, tuple(kind and kind + 5 for kind in kinds), 300, 0.3)
    asked = np.vstack([X, other])
    ours = run_session(open_session(data), asked)
    np.testing.assert_allclose(ours, predict_margins(booster, asked, types), rtol=0, atol=2e-6)
    again = load_booster(bytes(booster.save_raw("ubj")))
    np.testing.assert_array_equal(
        predict_margins(again, asked, types), predict_margins(booster, asked, types)
    )


def test_values_on_a_split_go_the_same_way() -> None:
    rng = np.random.default_rng(1)
    X = rng.integers(0, 6, (500, 3)).astype(np.float32) / 3
    y = (X.sum(axis=1) + rng.normal(size=500) > 2.5).astype(float)
    booster = fit_booster(X, y, "qqq", PARAMS, 30, 1)
    data = convert_booster(booster, 3, build_parameters(PARAMS, y, 1)["base_score"])
    ours, theirs = run_session(open_session(data), X), predict_margins(booster, X, "qqq")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    edges = np.array(
        [
            float(row.split(":[f0<")[1].split("]")[0])
            for row in booster.get_dump()[0].split("\n")
            if "f0<" in row
        ],
        dtype=np.float32,
    )
    for edge in edges:
        around = np.array([np.nextafter(edge, -9), edge, np.nextafter(edge, 9)], dtype=np.float32)
        rows = np.column_stack([around, np.ones(3), np.ones(3)]).astype(np.float32)
        np.testing.assert_allclose(
            run_session(open_session(data), rows), predict_margins(booster, rows, "qqq"), rtol=0, atol=1e-6
        )


def test_trees_without_a_split() -> None:
    X = np.ones((60, 2), dtype=np.float32)
    y = np.array([0.0, 1.0, 1.0] * 20)
    booster = fit_booster(X, y, "qc", PARAMS, 3, 0)
    data = convert_booster(booster, 2, build_parameters(PARAMS, y, 0)["base_score"])
    ours = run_session(open_session(data), X)
    np.testing.assert_allclose(ours, predict_margins(booster, X, "qc"), rtol=0, atol=1e-6)
    assert ours[0] == pytest.approx(np.log(2), abs=0.02)


def test_one_row_at_a_time_equals_the_batch() -> None:
    rng = np.random.default_rng(2)
    X = make_rows(rng, (0, 5, 0), 300, 0.1)
    y = (rng.random(300) < 0.4).astype(float)
    booster = fit_booster(X, y, "qcq", PARAMS, 60, 2)
    data = convert_booster(booster, 3, build_parameters(PARAMS, y, 2)["base_score"])
    session = open_session(data)
    singles = np.concatenate([run_session(session, X[row : row + 1]) for row in range(len(X))])
    np.testing.assert_allclose(singles, run_session(session, X), rtol=0, atol=1e-6)
    np.testing.assert_allclose(run_session(open_session(data, 2), X), singles, rtol=0, atol=1e-6)
