"""The world model: how likely a customer is to leave, as far as the real rows tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tenure.baseline import build_logistic_regression
from tenure.errors import SimulationError
from tenure.featuriser import Featuriser, encode_labels

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tenure.contract import Contract


@dataclass(frozen=True)
class World:
    """A smooth, calibrated P(leaves) for every customer there could be.

    A logistic regression on all real rows. It only says how much an intervention changes a customer's
    chance; without one the real outcome stands, so no model is ever judged by another model.
    """

    featuriser: Featuriser
    model: Any

    @classmethod
    def fit(cls, frame: pd.DataFrame, contract: Contract) -> Self:
        """Fit it on canonical rows; those without a label are left out.

        Raises:
            SimulationError: The rows know no leavers, or nobody else.
        """
        labels = encode_labels(frame, contract)
        known = ~np.isnan(labels)
        y = labels[known]
        if not 0 < y.sum() < len(y):
            raise SimulationError(
                f"of {len(y)} labelled customers {int(y.sum())} left: the simulation needs both kinds"
            )
        rows = frame.loc[known]
        featuriser = Featuriser.fit(rows, contract)
        model = build_logistic_regression(featuriser.types, 0).fit(featuriser.transform_frame(rows), y)
        return cls(featuriser, model)

    def predict(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Return the chance that each canonical row's customer leaves, shape [rows]."""
        if not len(frame):
            return np.empty(0)
        chances = self.model.predict_proba(self.featuriser.transform_frame(frame))[:, 1]
        return np.asarray(chances, dtype=np.float64)


def decide_outcomes(
    left: NDArray[np.bool_],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    luck: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Say who leaves when each customer's chance goes from `before` to `after`.

    Nobody's fate changes more than it must (the maximal coupling of two Bernoulli variables): where the
    chance rises, a stayer leaves with probability (after - before) / (1 - before) and every leaver still
    leaves; where it falls, a leaver stays with probability (before - after) / before. If `before` is
    calibrated, `after` is the new chance of leaving.

    Args:
        left: Who left in reality, shape [rows].
        before: Their chances in reality, within (0, 1), shape [rows].
        after: Their chances under the intervention, within [0, 1], shape [rows].
        luck: A uniform number in [0, 1) each, shape [rows].
    """
    leaves = luck < (after - before) / (1 - before)
    stays = luck < (before - after) / before
    return np.where(left, ~stays, leaves)
