"""What a bundle itself predicts for generated requests: the answer that a server of it has to give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oip_conformance.errors import BrokenError
from oip_conformance.example import Example, Tensor
from tenure.errors import RowError
from tenure.normalisation import normalise_columns
from tenure.scorer import Scorer

if TYPE_CHECKING:
    from oip_conformance.answers import Answer
    from tenure.bundle import Bundle


class BundleOracle:
    """Scores rows with a bundle, in this process and past every server."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._scorer = Scorer(bundle)

    def __call__(self, example: Example) -> Answer:
        """Return the answer to an example.

        Raises:
            BrokenError: A row breaks the contract: the server must not have answered.
        """
        features = self._bundle.featuriser.features
        columns = {tensor.name: list(tensor.data) for tensor in example.inputs}
        try:
            scores = self._scorer.score_columns(normalise_columns(columns, features))
        except RowError as error:
            raise BrokenError(f"the bundle refuses it: {error}") from error
        churn = scores >= self._bundle.threshold
        shape = (len(scores),)
        return {
            "churn_probability": Tensor("churn_probability", "FP64", shape, tuple(scores.tolist())),
            "churn": Tensor("churn", "BOOL", shape, tuple(churn.tolist())),
        }
