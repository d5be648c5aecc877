"""The stream of visits: the same for the same seed, and true to the customers it is drawn from."""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tenure.contract import Contract
from tenure.errors import SimulationError
from tenure.partition import Part, assign_parts
from tenure.project import Project, Split
from tenure.simulation.scenario import SCENARIOS, Scenario, find_scenario
from tenure.simulation.stream import BLOCK, Stream, Visit
from tenure.validation import Validated

Streams = Any


@pytest.fixture(scope="module")
def build(telco_validated: Validated, project: Project) -> Any:
    """Make a stream by scenario name and options; the world is fitted once."""
    base = Stream.build(telco_validated.good, project, Scenario(), 0)

    def make(scenario: str = "none", seed: int = 3, begins: int = 0, series: str = "") -> Stream:
        return dataclasses.replace(
            base, scenario=SCENARIOS[scenario], seed=seed, begins=begins, series=series
        )

    return make


def take(stream: Stream, count: int) -> list[Visit]:
    return list(islice(stream, count))


@hypothesis_settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    scenario=st.sampled_from(list(SCENARIOS)),
    counts=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    begins=st.integers(0, 700),
)
def test_the_same_seed_is_the_same_stream_however_far_it_is_read(
    build: Any, seed: int, scenario: str, counts: tuple[int, int], begins: int
) -> None:
    short, long = (take(build(scenario, seed, begins), count) for count in sorted(counts))
    assert long[: len(short)] == short
    assert [visit.number for visit in long] == list(range(len(long)))
    assert all((visit.phase == "during") == (visit.number >= begins) for visit in long)


@hypothesis_settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_other_seeds_are_other_streams(build: Any, seed: int) -> None:
    assert take(build(seed=seed), 50) != take(build(seed=seed + 1), 50)


@hypothesis_settings(max_examples=15)
@given(seed=st.integers(0, 2**31), scenario=st.sampled_from(list(SCENARIOS)), begins=st.integers(1, 600))
def test_before_it_begins_a_scenario_changes_nothing(
    build: Any, seed: int, scenario: str, begins: int
) -> None:
    assert take(build(scenario, seed, begins), begins) == [
        dataclasses.replace(visit, phase="before") for visit in take(build("none", seed), begins)
    ]


def test_without_a_scenario_the_real_customers_come_with_their_real_outcomes(
    build: Any, telco: pd.DataFrame, project: Project
) -> None:
    parts = assign_parts(telco, project.contract, project.split, project.name)
    real = telco[parts == Part.STREAM].set_index("customer_id")
    names = [column.name for column in project.contract.features]
    for visit in take(build(), 300):
        row = real.loc[visit.customer_id.rpartition("-")[0]]
        assert visit.outcome == row["churn"]
        assert visit.left == (row["churn"] == "Yes")
        assert {name: None if pd.isna(row[name]) else row[name] for name in names} == visit.features


def test_every_visit_is_a_customer_of_its_own(build: Any) -> None:
    one, other = take(build(series="a"), 3000), take(build(series="b"), 3000)
    assert len({visit.customer_id for visit in one + other}) == 6000
    assert [visit.features for visit in one] == [visit.features for visit in other]


def test_outcomes_become_true_within_the_horizon_and_known_afterwards(build: Any, project: Project) -> None:
    visits = take(build("price-rise"), 3000)
    horizon = project.labels.horizon_days
    assert all(0 < visit.true_days <= horizon for visit in visits)
    assert all(visit.true_days <= visit.known_days <= horizon + 5 for visit in visits)
    days = pd.Series([visit.true_days for visit in visits])
    assert days.mean() == pytest.approx(horizon / 2, rel=0.05)
    # What is known at any moment is a fair sample: when does not depend on what.
    left = pd.Series([visit.left for visit in visits])
    assert days[left].mean() == pytest.approx(days[~left].mean(), rel=0.08)


def test_features_are_plain_values(build: Any) -> None:
    for visit in take(build("broken-column"), BLOCK):
        assert all(
            value is None or type(value) in (str, bool, int, float) for value in visit.features.values()
        )
        assert visit.features["total_charges"] is None


def test_a_project_without_a_stream_part_has_nobody_to_play(telco: pd.DataFrame, project: Project) -> None:
    whole = project.model_copy(update={"split": Split(train=0.7, held_out=0.3, stream=0)})
    with pytest.raises(SimulationError, match=r"split\.stream"):
        Stream.build(telco, whole, Scenario(), 1)


def test_ids_that_are_numbers_are_refused(telco: pd.DataFrame, project: Project) -> None:
    document = project.contract.model_dump(mode="json")
    document["columns"][0] |= {"type": "integer", "from_row_order": False}
    numbered = project.model_copy(update={"contract": Contract.model_validate(document)})
    with pytest.raises(SimulationError, match="ids of type string"):
        Stream.build(telco, numbered, Scenario(), 1)


def test_unknown_scenarios_and_foreign_contracts_are_named(project: Project, make_contract: Any) -> None:
    with pytest.raises(SimulationError, match="no scenario 'flood'; known are none, price-rise"):
        find_scenario("flood", project.contract)
    with pytest.raises(SimulationError, match="needs the feature 'monthly_charges'"):
        find_scenario("price-rise", make_contract())
    assert find_scenario("none", make_contract()) is SCENARIOS["none"]
    odd = make_contract({"name": "contract", "type": "string", "categories": ["A", "B"]})
    with pytest.raises(SimulationError, match="'Two year' in 'contract'"):
        find_scenario("contract-mix", odd)
