"""Scenarios: what happens to the customers, to their reasons for leaving, or to the data about them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tenure.errors import SimulationError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tenure.contract import Contract
    from tenure.simulation.world import World


class Scenario:
    """What a simulation changes, in four places; this one changes nothing.

    The methods get canonical rows (see `validation.validate_frame`) and return new ones: they never write
    into what they are given. They are pure, so one instance serves every stream.

    Attributes:
        description: One sentence for a person.
        columns: Features that it needs, each with the categories that it speaks of.
    """

    description: ClassVar[str] = "Nothing changes."
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def weigh(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Return how often each customer is drawn, relative to the others, shape [rows]."""
        return np.ones(len(frame))

    def change(self, frame: pd.DataFrame, luck: NDArray[np.float64]) -> pd.DataFrame:
        """Return what the customers become; `luck` is a uniform number in [0, 1) for each."""
        return frame

    def judge(
        self,
        before: pd.DataFrame,
        after: pd.DataFrame,
        chances: NDArray[np.float64],
        world: World,
    ) -> NDArray[np.float64]:
        """Return each customer's new chance of leaving, shape [rows].

        Args:
            before: The customers in reality.
            after: What `change` made of them.
            chances: The world model's chances for `before`.
            world: To ask about other customers.
        """
        return chances

    def corrupt(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return what the upstream system says of the customers; the truth does not care."""
        return frame

    def check(self, name: str, contract: Contract) -> None:
        """Raise when the contract lacks what the scenario speaks of.

        Raises:
            SimulationError: Naming the columns and categories.
        """
        features = {column.name: column for column in contract.features}
        for column, categories in self.columns.items():
            if column not in features:
                raise SimulationError(
                    f"scenario {name!r} needs the feature {column!r}, which the contract does not have; "
                    "scenarios that fit every contract: none"
                )
            known = features[column].categories or ()
            missing = [category for category in categories if category not in known]
            if missing:
                raise SimulationError(
                    f"scenario {name!r} speaks of {', '.join(map(repr, missing))} in {column!r}, which the "
                    "contract does not list there"
                )


class PriceRise(Scenario):
    """Internet gets dearer, and those leave who were bound: by a contract, or by two years of habit.

    Their chance of leaving grows with the new price along a logistic curve, so that the model in service,
    which holds them for loyal, ranks them wrongly: a change of the customers, of their share that leaves,
    and of the reasons, all at once.
    """

    description = "Everyone with internet pays 30 % more; loyal customers who pay most leave."
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "monthly_charges": (),
        "internet_service": ("No",),
        "contract": ("Month-to-month",),
        "tenure": (),
    }
    factor = 1.3
    price = 80.0  # dollars a month at which half of the chance is reached
    width = 6.0
    most = 0.95
    habit = 24  # months

    def change(self, frame: pd.DataFrame, luck: NDArray[np.float64]) -> pd.DataFrame:
        """Raise the price of everyone with internet."""
        price = frame["monthly_charges"].to_numpy(np.float64)
        dearer = np.where(_has_internet(frame), (price * self.factor).round(2), price)
        return frame.assign(monthly_charges=dearer)

    def judge(
        self,
        before: pd.DataFrame,
        after: pd.DataFrame,
        chances: NDArray[np.float64],
        world: World,
    ) -> NDArray[np.float64]:
        """Let loyal customers with internet leave the more, the more they pay; nobody leaves less."""
        bound = (before["contract"] != "Month-to-month").to_numpy(bool)
        months = before["tenure"].to_numpy(np.float64)
        price = after["monthly_charges"].to_numpy(np.float64)
        anger = self.most / (1 + np.exp((self.price - price) / self.width))
        angry = _has_internet(before) & (bound | (months > self.habit))
        return np.where(angry, np.maximum(chances, anger), chances)


class ContractMix(Scenario):
    """Other customers come: month-to-month ones become rare. What makes each leave stays as it was."""

    description = "Customers with a contract of two years come four times as often."
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {"contract": ("Two year",)}
    factor = 4.0

    def weigh(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Draw customers with two-year contracts more often."""
        return np.where((frame["contract"] == "Two year").to_numpy(bool), self.factor, 1.0)


class UnseenCategory(Scenario):
    """A value appears that no model was trained on; it means nothing for who leaves."""

    description = "Three in ten customers pay by a digital wallet, which nobody did before."
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {"payment_method": ()}
    value = "Digital wallet"
    share = 0.3

    def change(self, frame: pd.DataFrame, luck: NDArray[np.float64]) -> pd.DataFrame:
        """Move a share of the customers to the new way of paying."""
        paid = frame["payment_method"].to_numpy(object)
        return frame.assign(payment_method=np.where(luck < self.share, self.value, paid))


class Concept(Scenario):
    """The very same customers, other reasons: whom a contract and time used to keep, they now drive away."""

    description = "The same customers come, but long contracts and long custom now drive them away."
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "contract": ("Month-to-month", "Two year"),
        "tenure": (),
    }

    def judge(
        self,
        before: pd.DataFrame,
        after: pd.DataFrame,
        chances: NDArray[np.float64],
        world: World,
    ) -> NDArray[np.float64]:
        """Give each customer the chance of one with the opposite contract and time."""
        swapped = before["contract"].replace({"Month-to-month": "Two year", "Two year": "Month-to-month"})
        months = 72 - before["tenure"].clip(upper=72)
        return world.predict(before.assign(contract=swapped, tenure=months))


class BrokenColumn(Scenario):
    """A job upstream fails: prices arrive as zero and totals not at all. Customers leave as ever."""

    description = "An upstream job sends 0 for monthly_charges and nothing for total_charges."
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {"monthly_charges": (), "total_charges": ()}

    def corrupt(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Lose the two columns."""
        return frame.assign(monthly_charges=0.0, total_charges=np.nan)

    def check(self, name: str, contract: Contract) -> None:
        """Also ask that the contract lets the broken values through: a refused request drifts nothing."""
        super().check(name, contract)
        if not contract["total_charges"].nullable:
            raise SimulationError(f"scenario {name!r} needs total_charges to be nullable in the contract")


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "none": Scenario(),
        "price-rise": PriceRise(),
        "contract-mix": ContractMix(),
        "unseen-category": UnseenCategory(),
        "concept": Concept(),
        "broken-column": BrokenColumn(),
    }
)
"""Every scenario by the name that a person types."""


def find_scenario(name: str, contract: Contract) -> Scenario:
    """Return the scenario called `name`, checked against the contract.

    Raises:
        SimulationError: There is none, or the contract lacks what it speaks of.
    """
    if name not in SCENARIOS:
        raise SimulationError(f"there is no scenario {name!r}; known are {', '.join(SCENARIOS)}")
    scenario = SCENARIOS[name]
    scenario.check(name, contract)
    return scenario


def _has_internet(frame: pd.DataFrame) -> NDArray[np.bool_]:
    return (frame["internet_service"] != "No").to_numpy(np.bool_)
