"""The search space: what a trial may choose, for tables of thousands to hundreds of thousands of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from tenure.project import Training

Value = int | float | str


def make_space(training: Training) -> dict[str, BaseDistribution]:
    """Return each parameter's distribution.

    Shallow trees and strong shrinkage: churn tables are small and noisy, deeper trees only learn the noise.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "max_depth": IntDistribution(2, 6),
        "eta": FloatDistribution(0.02, 0.3, log=True),
        "min_child_weight": FloatDistribution(1.0, 50.0, log=True),
        "subsample": FloatDistribution(0.5, 1.0),
        "colsample": FloatDistribution(0.3, 1.0),
        "lambda": FloatDistribution(0.01, 50.0, log=True),
        "alpha": FloatDistribution(0.001, 10.0, log=True),
        "gamma": FloatDistribution(0.0, 5.0),
        "imbalance": CategoricalDistribution(tuple(dict.fromkeys(training.imbalance))),
    }


def make_default(training: Training) -> dict[str, Value]:
    """Return the first trial's parameters: a good model on most churn tables, so that few trials suffice."""
    return {
        "max_depth": 3,
        "eta": 0.05,
        "min_child_weight": 8.0,
        "subsample": 0.8,
        "colsample": 0.5,
        "lambda": 5.0,
        "alpha": 0.1,
        "gamma": 0.0,
        "imbalance": training.imbalance[0],
    }
