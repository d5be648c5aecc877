"""A bundle's trees by XGBoost itself: columns to codes, `inplace_predict`, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

from benchmarks.peers.bundle import read_datatypes, read_document


class Trees:
    """The trees of one bundle.

    Attributes:
        datatypes: The features and their V2 datatypes, in the trees' order.
        threshold: Probability from which a customer counts as leaving.
    """

    def __init__(self, directory: Path) -> None:
        features = read_document(directory, "featuriser.json")["features"]
        calibrator = read_document(directory, "calibrator.json")
        self.datatypes = read_datatypes(directory)
        self.threshold = float(read_document(directory, "metadata.json")["threshold"])
        self._codes = {
            feature["name"]: {category: code for code, category in enumerate(feature["categories"])}
            for feature in features
        }
        self._slope, self._intercept = float(calibrator["slope"]), float(calibrator["intercept"])
        self._booster = xgb.Booster({"nthread": 1}, model_file=directory / "model.ubj")

    def encode(self, columns: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the matrix that the trees read, float32 [rows, features]; unknown and missing are NaN."""
        rows = len(columns[next(iter(self.datatypes))])
        matrix = np.empty((rows, len(self.datatypes)), dtype=np.float32)
        for place, (name, datatype) in enumerate(self.datatypes.items()):
            values = columns[name]
            if datatype == "BYTES":
                codes = self._codes[name]
                values = [codes.get(v.decode() if type(v) is bytes else v, np.nan) for v in values]
            matrix[:, place] = np.asarray(values, dtype=np.float32).reshape(rows)
        return matrix

    def score(self, columns: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the calibrated probability of each row, shape [rows]."""
        margins = self._booster.inplace_predict(self.encode(columns), predict_type="margin")
        return self.calibrate(margins.astype(np.float64))

    def calibrate(
        self, margins: np.ndarray[Any, np.dtype[np.float64]]
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Turn margins (log-odds) into probabilities."""
        return np.asarray(1 / (1 + np.exp(-(self._slope * margins + self._intercept))))
