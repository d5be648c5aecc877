"""Scoring logged rows again, with the bundles themselves and without a model server in between."""

from __future__ import annotations

import logging
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients import names
from clients.store import Store
from tenure.bundle import load_bundle
from tenure.errors import RowError
from tenure.normalisation import normalise_columns
from tenure.scorer import Scorer, to_columns

logger = logging.getLogger("tenure.pilot")

KEPT = 6
"""Bundles that stay loaded; the least recently used one goes."""

Floats = NDArray[np.float64]


class Rescorer:
    """Scores rows with bundles from the store, each verified once and then kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._scorers: OrderedDict[str, Scorer] = OrderedDict()

    def score(self, uri: str, rows: Sequence[Mapping[str, Any]]) -> Floats:
        """Return the scores that the bundle at `uri` gives n rows, shape [n]; NaN for a row that it refuses.

        Raises:
            clients.errors.ClientError: The store does not have it, or does not answer.
            tenure.errors.BundleError: It is not what its digest says.
        """
        scorer = self._load(uri)
        try:
            return _score(scorer, rows)
        except RowError:
            return np.array([_score_row(scorer, row) for row in rows])

    def _load(self, uri: str) -> Scorer:
        scorer = self._scorers.pop(uri, None)
        if scorer is None:
            with tempfile.TemporaryDirectory() as directory:
                folder = self._store.download_directory(uri, Path(directory))
                scorer = Scorer(load_bundle(folder, names.digest_of(uri)))
        self._scorers[uri] = scorer
        while len(self._scorers) > KEPT:
            self._scorers.popitem(last=False)
        return scorer


def _score(scorer: Scorer, rows: Sequence[Mapping[str, Any]]) -> Floats:
    """Score rows as they were logged: KServe's agent logs what came, not what the predictor made of it."""
    featuriser = scorer.bundle.featuriser
    columns = to_columns(rows, featuriser.names)
    return scorer.score_columns(normalise_columns(columns, featuriser.features))


def _score_row(scorer: Scorer, row: Mapping[str, Any]) -> float:
    try:
        return float(_score(scorer, [row])[0])
    except RowError as refused:
        logger.debug("bundle %s refuses a logged row: %s", scorer.bundle.version, refused)
        return float("nan")
