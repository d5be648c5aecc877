"""The calibrator: Platt's optimum, a strictly kept order, and no way to read a damaged one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.optimize import minimize

from tenure.calibration import MIN_SLOPE, Calibrator, squash
from tenure.errors import BundleError, TrainingError
from tenure.objective import measure
from tenure.project import Metric


def draw_labels(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    return (rng.random(len(p)) < p).astype(float)


@given(
    st.lists(st.floats(-8, 8), min_size=2, max_size=30).filter(
        lambda margins: min(np.diff(np.sort(margins))) > 1e-3
    ),
    st.floats(0.1, 1),
    st.floats(-5, 5),
)
def test_keeps_the_order_strictly(margins: list[float], slope: float, intercept: float) -> None:
    p = Calibrator(slope, intercept).apply(np.sort(margins))
    assert (np.diff(p) > 0).all()
    assert ((p > 0) & (p < 1)).all()


def test_squash_neither_overflows_nor_changes_shape() -> None:
    p = squash(np.array([[-1e6, 0.0], [1e6, -745.0]]))
    assert p.shape == (2, 2)
    assert p[0, 0] == 0.0
    assert p[0, 1] == 0.5
    assert p[1, 0] == 1.0
    assert 0 < p[1, 1] < 1e-300


@given(st.integers(0, 10_000), st.floats(0.2, 4), st.floats(-3, 3))
@example(0, 0.25, 3.0)  # so few stayed that the free optimum would reverse the order
def test_finds_the_optimum_of_platts_loss(seed: int, slope: float, intercept: float) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.normal(0.3, 2.0, 300)
    y = draw_labels(rng, squash(slope * margins + intercept))
    assume(5 < y.sum() < 295)
    targets = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / (len(y) - y.sum() + 2))

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * margins + parameters[1]
        return float((np.logaddexp(0, z) - targets * z).sum())

    fitted = Calibrator.fit(margins, y)
    best = minimize(loss, np.array([1.0, 0.0]), bounds=[(MIN_SLOPE, None), (None, None)], method="L-BFGS-B")
    assert loss(np.array([fitted.slope, fitted.intercept])) <= best.fun + 1e-6


def test_recovers_a_shifted_prior() -> None:
    rng = np.random.default_rng(3)
    true = rng.normal(-1.5, 1.2, 20_000)
    y = draw_labels(rng, squash(true))
    fitted = Calibrator.fit(1.7 * true + 2.0, y)  # as class weights would distort it
    assert fitted.slope == pytest.approx(1 / 1.7, rel=0.05)
    p = fitted.apply(1.7 * true + 2.0)
    assert p.mean() == pytest.approx(y.mean(), abs=0.001)
    assert measure(Metric.LOG_LOSS, y, p) < measure(Metric.LOG_LOSS, y, squash(1.7 * true + 2.0))


def test_a_model_worse_than_chance_is_flattened_not_reversed() -> None:
    rng = np.random.default_rng(4)
    margins = rng.normal(size=500)
    y = draw_labels(rng, squash(-2 * margins - 1))
    fitted = Calibrator.fit(margins, y)
    assert fitted.slope == MIN_SLOPE
    assert fitted.apply(margins).mean() == pytest.approx(y.mean(), abs=0.005)


@pytest.mark.parametrize(
    ("margins", "y"),
    [
        ([-3.0, -2.0, 2.0, 3.0], [0, 0, 1, 1]),
        ([1.0, 1.0, 1.0], [0, 1, 1]),
        ([-1e4, 1e4], [0, 1]),
        ([1e4, -1e4], [0, 1]),
        ([0.0] * 999 + [1e-9], [0] * 999 + [1]),
    ],
    ids=["separated", "constant", "huge", "huge and reversed", "almost constant"],
)
def test_survives_degenerate_margins(margins: list[float], y: list[int]) -> None:
    fitted = Calibrator.fit(np.array(margins), np.array(y))
    p = fitted.apply(np.array(margins))
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p[np.argsort(margins, kind="stable")]) >= 0).all()


@pytest.mark.parametrize(
    ("margins", "y"),
    [([], []), ([1.0, 2.0], [1, 1]), ([1.0, 2.0], [0, 0]), ([1.0, np.nan], [0, 1]), ([1.0], [0, 1])],
)
def test_refuses_what_cannot_be_fitted(margins: list[float], y: list[int]) -> None:
    with pytest.raises(TrainingError, match="calibration"):
        Calibrator.fit(np.array(margins), np.array(y, dtype=float))


@given(st.floats(1e-6, 1e6), st.floats(-1e6, 1e6))
def test_survives_json(slope: float, intercept: float) -> None:
    calibrator = Calibrator(slope, intercept)
    assert Calibrator.from_document(json.loads(json.dumps(calibrator.to_document()))) == calibrator


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"method": "isotonic"},
        {"slope": 0},
        {"slope": -1.0},
        {"slope": "steep"},
        {"slope": None},
        {"intercept": float("nan")},
        {"intercept": float("inf")},
    ],
)
def test_refuses_a_wrong_document(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="calibrator"):
        Calibrator.from_document({**Calibrator(1.0, 0.0).to_document(), **change})


def test_refuses_an_incomplete_document() -> None:
    with pytest.raises(BundleError, match="malformed"):
        Calibrator.from_document({"format": 1, "method": "platt", "slope": 1.0})
