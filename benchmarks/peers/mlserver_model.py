"""A custom runtime for MLServer, as its documentation shows one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.trees import Trees


class ChurnModel(MLModel):  # type: ignore[misc]
    """The bundle's trees: one tensor per feature."""

    async def load(self) -> bool:
        self._trees = Trees(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        columns = {
            entry.name: self.decode(
                entry, default_codec=StringCodec if entry.datatype == "BYTES" else NumpyCodec
            )
            for entry in payload.inputs
        }
        scores = self._trees.score(columns)
        churn = np.asarray(scores >= self._trees.threshold)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[
                NumpyCodec.encode_output("churn_probability", scores),
                NumpyCodec.encode_output("churn", churn),
            ],
        )
