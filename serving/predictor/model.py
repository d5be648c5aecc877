"""Our kserve Model: what kserve's own V1 route calls. V2 is answered in front of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kserve import Model

from serving.predictor.encoding import render_predictions

if TYPE_CHECKING:
    from serving.predictor.engine import Engine


class ChurnModel(Model):  # type: ignore[misc]  # kserve carries no types
    """One bundle under one name."""

    def __init__(self, name: str, engine: Engine) -> None:
        super().__init__(name)
        self.backend = engine  # `engine` is a flag of kserve's
        self.load()

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the V2 metadata of the input tensors."""
        return self.backend.inputs

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the V2 metadata of the output tensors."""
        return self.backend.outputs

    async def predict(
        self,
        payload: bytes,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Answer the body of a V1 request with a V1 document.

        Raises:
            RequestError: The request breaks the protocol or the contract.
        """
        with self.backend.metrics.watch("v1"):
            query = self.backend.decoder.parse_instances(payload)
            answer = await self.backend.answer(query)
            return render_predictions(answer, query, model=self.name, version=self.backend.version)
