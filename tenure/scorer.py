"""The scorer: columns -> featuriser -> ONNX Runtime -> calibrator, and no DataFrame anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.booster import load_booster, predict_margins
from tenure.bundle import GRAPH, TREES
from tenure.errors import BundleError
from tenure.graph import open_session, run_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tenure.bundle import Bundle


class Scorer:
    """Scores rows with one bundle. Safe to share between threads; cannot be pickled.

    Args:
        bundle: A verified bundle.
        threads: Threads that ONNX Runtime may use for one call.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.bundle = bundle
        self._session = open_session(bundle.read(GRAPH), threads)
        self._width = len(bundle.featuriser.names)
        self._trees: Any = None
        self._lock = Lock()

    def score_matrix(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the calibrated probability that each row's customer leaves.

        Args:
            X: From the bundle's featuriser: float32, shape [rows, features].

        Returns:
            Array of shape [rows].

        Raises:
            ValueError: Another shape or dtype.
        """
        self._check(X)
        if not len(X):
            return np.empty(0, dtype=np.float64)
        return self.bundle.calibrator.apply(run_session(self._session, X))

    def score_columns(self, columns: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the calibrated probabilities of columns, shape [rows].

        Args:
            columns: Feature name -> values (see `Featuriser.transform`).

        Raises:
            RowError: A row breaks the contract.
        """
        return self.score_matrix(self.bundle.featuriser.transform(columns))

    def explain(self, X: NDArray[np.float32], top: int) -> list[list[tuple[str, float]]]:
        """Return each row's strongest reasons: the features' SHAP values, in calibrated log-odds.

        Exact for trees (Lundberg, Erion and Lee 2018). Needs XGBoost, which is loaded at the first call.

        Args:
            X: As for `score_matrix`.
            top: How many features per row; fewer are returned if the others contribute nothing.

        Returns:
            For each row (feature, contribution), the largest absolute contribution first; above 0 speaks for
            leaving.

        Raises:
            ValueError: Another shape or dtype, or a negative `top`.
            BundleError: XGBoost is not installed here.
        """
        self._check(X)
        if top < 0:
            raise ValueError(f"top is {top}, expected 0 or more")
        if not len(X) or not top:
            return [[] for _ in range(len(X))]
        try:
            import xgboost as xgb
        except ImportError as error:
            raise BundleError(
                "reasons need the package xgboost (or xgboost-cpu), which is not installed"
            ) from error
        with self._lock:
            if self._trees is None:
                self._trees = load_booster(self.bundle.read(TREES))
            matrix = xgb.DMatrix(
                X, feature_types=list(self.bundle.featuriser.types), enable_categorical=True, nthread=1
            )
            shares = self._trees.predict(matrix, pred_contribs=True)
        contributions = np.asarray(shares, dtype=np.float64)[:, :-1] * self.bundle.calibrator.slope
        names = self.bundle.featuriser.names
        order = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :top]
        return [
            [(names[place], float(row[place])) for place in places if row[place] != 0.0]
            for row, places in zip(contributions, order.tolist(), strict=True)
        ]

    def _check(self, X: NDArray[Any]) -> None:
        if X.ndim != 2 or X.shape[1] != self._width or X.dtype != np.float32:
            raise ValueError(
                f"the matrix is {X.dtype} of shape {list(X.shape)}, expected float32 [rows, {self._width}]"
            )


def score_with_xgboost(bundle: Bundle, X: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what XGBoost itself says, calibrated: what `Scorer` must agree with to 1e-6. Shape [rows]."""
    trees = load_booster(bundle.read(TREES))
    return bundle.calibrator.apply(predict_margins(trees, X, bundle.featuriser.types))


def to_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Turn rows (name -> value) into columns; a name that a row lacks is missing (None)."""
    return {name: [row.get(name) for row in rows] for name in names}
