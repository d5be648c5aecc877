"""The stream: one customer after the other, endless, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from tenure.contract import Type
from tenure.errors import SimulationError
from tenure.featuriser import encode_labels
from tenure.partition import Part, assign_parts
from tenure.simulation.scenario import Scenario
from tenure.simulation.world import World, decide_outcomes

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tenure.contract import Contract
    from tenure.project import Project

Phase = Literal["before", "during"]
BLOCK = 256
"""Visits that are made together. Part of the seed's meaning: another number gives another stream."""

_LAG_DAYS = 0.5  # mean time from an outcome to the record of it
_MAX_LAG_DAYS = 5.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One customer about whom the model is asked, and what will become of them.

    Attributes:
        number: Place in the stream, from 0.
        customer_id: New for every visit, so that each counts as a customer of its own.
        features: What the upstream system says, by the contract's feature names; None for missing.
        left: Whether the customer leaves.
        outcome: The same as a value of the contract's label column.
        phase: Whether the scenario had begun.
        true_days: Days from the visit until the outcome is true, within (0, horizon].
        known_days: Days from the visit until it is known; at least `true_days`.
    """

    number: int
    customer_id: str
    features: Mapping[str, Any]
    left: bool
    outcome: str
    phase: Phase
    true_days: float
    known_days: float


@dataclass(frozen=True)
class Stream:
    """Visits of the customers of the stream part, drawn with replacement; iterate as far as you want.

    Every block of visits has random numbers of its own, which follow from the seed alone: the same seed gives
    the same stream however much of it is read, and two scenarios meet the same customers with the same luck
    (unless one draws other customers).

    An outcome becomes true at the customer's next renewal, which is spread evenly over the horizon and does
    not depend on what the customer will do: so the outcomes that are known at any moment are a fair sample.
    The record of it lags behind exponentially.

    Attributes:
        customers: Canonical rows of the stream part, all labelled.
        contract: Their contract.
        horizon_days: From the project: an outcome counts within so many days.
        world: Fitted on all real rows.
        scenario: What happens.
        seed: Any integer from 0.
        begins: Number of the first visit under the scenario.
        series: Goes into every id: two series never share a customer.
    """

    customers: pd.DataFrame
    contract: Contract
    horizon_days: float
    world: World
    scenario: Scenario
    seed: int
    begins: int = 0
    series: str = ""

    @classmethod
    def build(
        cls,
        frame: pd.DataFrame,
        project: Project,
        scenario: Scenario,
        seed: int,
        *,
        begins: int = 0,
        series: str = "",
    ) -> Self:
        """Make a stream from all canonical rows of a project.

        Raises:
            SimulationError: The stream part is empty, its ids are not of type string, or the world model
                cannot be fitted.
        """
        contract = project.contract
        if contract.id.type is not Type.STRING:
            raise SimulationError(
                f"{contract.id.name!r} is of type {contract.id.type}: the simulation makes new ids, and only "
                "ids of type string can be told from real ones"
            )
        parts = assign_parts(frame, contract, project.split, project.name)
        chosen = (parts == Part.STREAM.value) & ~np.isnan(encode_labels(frame, contract))
        if not chosen.any():
            raise SimulationError(
                "nobody can be played: the stream part has no labelled customer (split.stream in the project)"
            )
        customers = frame[chosen].reset_index(drop=True)
        world = World.fit(frame, contract)
        return cls(customers, contract, project.labels.horizon_days, world, scenario, seed, begins, series)

    def __iter__(self) -> Iterator[Visit]:
        """Yield visit 0, 1, 2, ... for ever."""
        block = 0
        while True:
            yield from self._play(block)
            block += 1

    def _play(self, block: int) -> list[Visit]:
        """Return the visits of one block."""
        first = block * BLOCK
        calm = min(max(self.begins - first, 0), BLOCK)
        luck = np.random.default_rng([self.seed, block]).random((5, BLOCK))
        return [
            *self._visit(first, luck[:, :calm], Scenario(), "before"),
            *self._visit(first + calm, luck[:, calm:], self.scenario, "during"),
        ]

    def _visit(
        self, first: int, luck: NDArray[np.float64], scenario: Scenario, phase: Phase
    ) -> Iterator[Visit]:
        """Yield one visit per column of `luck`: the draw, the change, the fate, the renewal, the lag."""
        if not luck.shape[1]:
            return
        weights = np.cumsum(scenario.weigh(self.customers))
        places = np.searchsorted(weights, luck[0] * weights[-1], side="right")
        before = self.customers.iloc[places].reset_index(drop=True)
        after = scenario.change(before, luck[1])
        chances = self.world.predict(before)
        left = decide_outcomes(
            encode_labels(before, self.contract) == 1,
            chances,
            scenario.judge(before, after, chances, self.world),
            luck[2],
        )
        true_days = (1 - luck[3]) * self.horizon_days
        known_days = true_days + np.minimum(-_LAG_DAYS * np.log1p(-luck[4]), _MAX_LAG_DAYS)
        rows = _list_rows(scenario.corrupt(after), self.contract)
        ids = before[self.contract.id.name].tolist()
        values = _name_outcomes(self.contract)
        for index, row in enumerate(rows):
            number = first + index
            yield Visit(
                number=number,
                customer_id=f"{ids[index]}-{self.series}{number:06d}",
                features=row,
                left=bool(left[index]),
                outcome=values[bool(left[index])],
                phase=phase,
                true_days=float(true_days[index]),
                known_days=float(known_days[index]),
            )


def _list_rows(frame: pd.DataFrame, contract: Contract) -> list[dict[str, Any]]:
    """Return the features as plain Python values, None for missing."""
    names = [column.name for column in contract.features]
    columns = [
        [
            None if missing else value
            for value, missing in zip(frame[name].tolist(), frame[name].isna(), strict=True)
        ]
        for name in names
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _name_outcomes(contract: Contract) -> tuple[str, str]:
    """Return the label's values for staying and leaving, as the ledger keeps them."""
    label = contract.label
    if label.type is Type.BOOLEAN:
        return "false", "true"
    others = [value for value in label.categories or ("No",) if value != label.positive]
    return others[0] if others else f"not {label.positive}", str(label.positive)
