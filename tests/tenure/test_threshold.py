"""Thresholds against a search through all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from tenure.project import Threshold
from tenure.threshold import choose_threshold

SCORES = st.lists(st.integers(1, 12).map(lambda step: step / 13), min_size=2, max_size=40)


@given(SCORES, st.data())
def test_max_f1_is_the_best_there_is(scores: list[float], data: st.DataObject) -> None:
    p = np.array(scores)
    y = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=len(p), max_size=len(p))))
    assume(0 < y.sum() < len(y))
    threshold = choose_threshold(Threshold(), y, p)
    best = max(f1_score(y, p >= cut) for cut in np.unique(p))
    assert f1_score(y, p >= threshold) == pytest.approx(best)
    assert np.abs(p - threshold).min() > 1e-3  # no score sits on it


@given(SCORES, st.floats(0, 1))
def test_top_fraction_flags_at_most_that_many(scores: list[float], fraction: float) -> None:
    p = np.array(scores)
    threshold = choose_threshold(Threshold(rule="top_fraction", value=fraction), np.zeros(len(p)), p)
    flagged = int((p >= threshold).sum())
    assert flagged <= fraction * len(p) + 1e-6
    left = p[p < threshold]
    if left.size:  # one score more would be too many
        assert flagged + (p == left.max()).sum() > fraction * len(p)


def test_top_fraction_of_distinct_scores_is_exact() -> None:
    p = np.random.default_rng(0).permutation(1000) / 1001
    threshold = choose_threshold(Threshold(rule="top_fraction", value=0.1), np.zeros(1000), p)
    assert (p >= threshold).sum() == 100


@pytest.mark.parametrize("value", [0.0, 0.37, 1.0])
def test_fixed_is_taken_as_it_is(value: float) -> None:
    rule = Threshold(rule="fixed", value=value)
    assert choose_threshold(rule, np.array([0.0, 1.0]), np.array([0.1, 0.2])) == value
