"""Sizes of differences: against closed forms, and for what the reference never saw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tenure.drift.effect import (
    Difference,
    Effects,
    choose_edges,
    compute_auc,
    compute_l1,
    compute_psi,
    count_bins,
)
from tenure.drift.reference import Reference, Sample
from tenure.monitoring import Effect

counts = st.lists(st.integers(0, 10_000), min_size=3, max_size=3).map(lambda values: np.array(values))


def test_psi_is_the_formula() -> None:
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.3, 0.3])
    million = 1_000_000
    found = compute_psi((p * million).astype(int), (q * million).astype(int))
    assert found == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=1e-4)


@given(counts, counts)
def test_psi_is_finite_and_no_less_than_nothing(reference: np.ndarray, window: np.ndarray) -> None:  # type: ignore[type-arg]
    assert 0 <= compute_psi(reference, window) < 50
    assert compute_psi(reference, window) == pytest.approx(compute_psi(window, reference))
    assert compute_psi(reference, reference * 3) < 0.2 or reference.sum() < 30


def test_l1() -> None:
    assert compute_l1(np.array([[60, 40, 0], [5, 4, 1]])) == pytest.approx(0.1 + 0 + 0.1)
    assert compute_l1(np.array([[10, 0], [0, 7]])) == 2
    assert compute_l1(np.array([[10, 5], [0, 0]])) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=80))
def test_auc_is_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([float(label) for label, _ in rows])
    scores = np.array([score / 9 for _, score in rows])
    if len(set(labels)) < 2:
        assert compute_auc(labels, scores) is None
    else:
        assert compute_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_few_numbers_have_a_bin_each() -> None:
    values = np.array([-np.inf, 0, 0, 0, 1, 2])
    edges = choose_edges(values)
    assert edges.tolist() == [0, 1, 2]
    assert count_bins(values, edges).tolist() == [1, 3, 1, 1, 0]
    assert count_bins(np.array([0.5, 9, -4, -np.inf, -np.inf]), edges).tolist() == [2, 1, 1, 0, 1]


def test_many_numbers_have_ten_bins() -> None:
    values = np.arange(1000.0)
    edges = choose_edges(values)
    assert len(edges) == 9
    assert (np.abs(count_bins(values, edges)[1:] - 100) <= 1).all()


def test_nothing_but_missing_numbers() -> None:
    edges = choose_edges(np.array([-np.inf, -np.inf]))
    assert count_bins(np.array([1.0, -np.inf]), edges).tolist() == [1, 1]


def test_measures_each_kind(
    make_reference: Callable[..., Reference],
    make_frame: Callable[..., pd.DataFrame],
    make_window: Callable[..., Sample],
) -> None:
    frame = make_frame(2000)
    effects = Effects(make_reference(), Effect())
    same = make_window(frame)
    assert {name: effects.measure(name, same).measure for name in same.columns} == {
        "price": "psi",
        "months": "psi",
        "plan": "l1",
        "senior": "l1",
        "score": "psi",
    }
    assert all(effects.measure(name, same).value == pytest.approx(0, abs=1e-9) for name in same.columns)
    changed = frame.assign(price=np.nan, plan="gold", months=frame["months"] + 5)
    found = {name: effects.measure(name, make_window(changed)) for name in same.columns}
    assert found["price"].value > 3
    assert found["plan"].value == pytest.approx(2)
    assert found["months"].value > 0.5
    assert {name for name in found if found[name].material} == {"price", "plan", "months"}


def test_measures_outcomes(
    make_reference: Callable[..., Reference],
    make_frame: Callable[..., pd.DataFrame],
    make_window: Callable[..., Sample],
) -> None:
    frame = make_frame(2000)
    effects = Effects(make_reference("outcomes"), Effect())
    share = frame["label"].mean()
    auc = roc_auc_score(frame["label"], frame["score"])
    flipped = make_window(frame.assign(label=1 - frame["label"]), "outcomes")
    assert effects.measure("label", flipped) == Difference("share", pytest.approx(1 - 2 * share), 0.05)
    assert effects.measure("performance", flipped) == Difference("auc", pytest.approx(2 * auc - 1), 0.03)
    assert effects.measure("performance", flipped).material
    nobody = make_window(frame.assign(label=0.0), "outcomes")
    assert effects.measure("label", nobody).value == pytest.approx(-share)
    assert effects.measure("performance", nobody).value == 0  # one class has no AUC
    empty = make_window(frame.head(0), "outcomes")
    assert effects.measure("label", empty).value == effects.measure("performance", empty).value == 0


def test_what_is_material() -> None:
    assert Difference("psi", 0.1, 0.1).material
    assert not Difference("psi", 0.09, 0.1).material
    assert Difference("share", -0.06, 0.05).material
    assert not Difference("auc", -0.2, 0.03).material  # better than before
    assert Difference("auc", 0.04, 0.03).material
