"""XGBoost, as this project uses it: one thread per fit, native categoricals, nothing left to chance.

A fit always runs on one thread. On tables of this size more threads gain little, and sums of floats in
another order could change the last bit of a tree; what is parallel are the folds (see `search`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xgboost as xgb
    from numpy.typing import NDArray

# Names in a trial -> names in XGBoost.
_PARAMETERS = {
    "max_depth": "max_depth",
    "eta": "eta",
    "min_child_weight": "min_child_weight",
    "subsample": "subsample",
    "colsample": "colsample_bytree",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "gamma": "gamma",
}


def build_parameters(params: Mapping[str, Any], y: NDArray[Any], seed: int) -> dict[str, Any]:
    """Turn a trial's parameters into XGBoost's.

    The class weight and the starting score are computed from `y` alone: pass the labels of exactly those
    rows that the fit will see.

    Args:
        params: A point of the search space (see `space`).
        y: Labels 0 and 1 of the rows to fit, both present, shape [rows].
        seed: For row and column sampling.
    """
    positives = float(np.sum(y))
    negatives = float(len(y)) - positives
    weight = negatives / positives if params["imbalance"] == "weight" else 1.0
    share = weight * positives / (weight * positives + negatives)
    return {
        **{target: params[name] for name, target in _PARAMETERS.items()},
        "objective": "binary:logistic",
        "tree_method": "hist",
        "scale_pos_weight": weight,
        "base_score": float(np.float32(share)),
        "seed": seed,
        "nthread": 1,
        "verbosity": 1,
    }


def build_matrix(
    X: NDArray[np.float32],
    y: NDArray[Any],
    types: Sequence[str],
    reference: xgb.QuantileDMatrix | None = None,
) -> xgb.QuantileDMatrix:
    """Build a binned matrix; validation rows take their bins from the `reference`."""
    import xgboost as xgb

    return xgb.QuantileDMatrix(
        X, label=y, feature_types=list(types), enable_categorical=True, nthread=1, ref=reference
    )


def fit_booster(
    X: NDArray[np.float32],
    y: NDArray[Any],
    types: Sequence[str],
    params: Mapping[str, Any],
    rounds: int,
    seed: int,
) -> xgb.Booster:
    """Fit the final trees on all training rows."""
    import xgboost as xgb

    return xgb.train(build_parameters(params, y, seed), build_matrix(X, y, types), rounds)


def load_booster(data: bytes) -> xgb.Booster:
    """Read trees back from the bytes of `model.ubj`."""
    import xgboost as xgb

    return xgb.Booster({"nthread": 1}, model_file=bytearray(data))


def predict_margins(
    booster: xgb.Booster, X: NDArray[np.float32], types: Sequence[str]
) -> NDArray[np.float64]:
    """Return the margin (log-odds before calibration) of each row, shape [rows]."""
    import xgboost as xgb

    matrix = xgb.DMatrix(X, feature_types=list(types), enable_categorical=True, nthread=1)
    return np.asarray(booster.predict(matrix, output_margin=True), dtype=np.float64)
