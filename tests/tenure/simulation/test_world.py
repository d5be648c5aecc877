"""The world model, and how it bends fates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.errors import SimulationError
from tenure.featuriser import encode_labels
from tenure.project import Project
from tenure.simulation.world import World, decide_outcomes

CHANCES = st.floats(0.001, 0.999)


def test_the_world_is_calibrated_on_the_real_customers(telco: pd.DataFrame, project: Project) -> None:
    y = encode_labels(telco, project.contract)
    chances = World.fit(telco, project.contract).predict(telco)
    assert chances.mean() == pytest.approx(y.mean(), abs=0.002)
    for group in np.array_split(np.argsort(chances), 5):
        assert chances[group].mean() == pytest.approx(y[group].mean(), abs=0.03)


def test_the_world_needs_leavers_and_stayers(telco: pd.DataFrame, project: Project) -> None:
    stayers = telco[telco["churn"] == "No"]
    with pytest.raises(SimulationError, match="of 5174 labelled customers 0 left"):
        World.fit(stayers, project.contract)


def test_nobody_is_asked_about(telco: pd.DataFrame, project: Project) -> None:
    assert World.fit(telco, project.contract).predict(telco[:0]).shape == (0,)


@given(before=CHANCES, after=CHANCES, seed=st.integers(0, 2**32))
def test_the_new_share_of_leavers_is_the_new_chance(before: float, after: float, seed: int) -> None:
    n = 4000
    real, luck = np.random.default_rng(seed).random((2, n))
    left = real < before
    now = decide_outcomes(left, np.full(n, before), np.full(n, after), luck)
    assert now.mean() == pytest.approx(after, abs=5 * 0.5 / n**0.5)
    changed = now != left
    assert not (changed & (left if after >= before else ~left)).any()


@given(chance=CHANCES, seed=st.integers(0, 2**32))
def test_without_a_change_the_real_outcome_stands(chance: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    left, luck = generator.random(100) < 0.3, generator.random(100)
    same = np.full(100, chance)
    assert np.array_equal(decide_outcomes(left, same, same, luck), left)
