from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.pilot.course import KEEP, SCALE, assign_places, step

NAMES = st.sampled_from(["a", "b", "c"])
WEIGHTS = st.dictionaries(NAMES, st.integers(0, 100), min_size=1).filter(
    lambda weights: sum(weights.values())
)


@pytest.mark.parametrize(
    ("now", "wanted", "places"),
    [
        ([], ["s", "c"], ["s", "c"]),
        ([("s", 100)], ["s", "c"], ["s", "c"]),
        ([("s", 0), ("c", 100)], ["c"], [None, "c"]),
        ([("c", 0), ("c", 100)], ["c", "d"], ["d", "c"]),
        ([("s", 80), ("c", 20)], ["s", "d"], ["s", "d"]),
        ([("s", 100), ("c", 0)], ["s"], ["s"]),
        ([("gone", 100)], ["s"], ["s"]),
    ],
)
def test_places(now, wanted, places):
    assert assign_places(now, wanted) == places


@given(
    now=st.lists(st.tuples(NAMES, st.integers(0, 100)), max_size=4),
    wanted=st.lists(NAMES, min_size=1, unique=True),
)
def test_everybody_wanted_has_one_place_and_keeps_it(now, wanted):
    places = assign_places(now, wanted)
    assert sorted(name for name in places if name) == sorted(wanted)
    for name in wanted:
        weights = [weight for other, weight in now if other == name]
        if weights:
            assert now[places.index(name)] == (name, max(weights))


@given(now=WEIGHTS, wanted=WEIGHTS)
def test_every_way_ends_and_nobody_comes_or_goes_in_a_jump(now, wanted):
    weights = {name: now.get(name, 0) for name in wanted}
    ways = [weights]
    while weights != wanted:
        weights = step(weights, wanted)
        ways.append(weights)
        assert len(ways) <= 4
    if not sum(ways[0].values()):
        return  # whoever had requests is gone: there is nobody to hand over from
    for before, after in itertools.pairwise(ways):
        total, sum_after = sum(before.values()), sum(after.values())
        for name in wanted:
            if after[name] and not before[name]:
                assert after[name] * SCALE == KEEP * sum_after
            if before[name] and not after[name]:
                assert before[name] * SCALE <= KEEP * total
