"""The model of the tiny server: what it takes, what it answers, and what it refuses."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

from oip_conformance.example import Example, Tensor
from oip_conformance.reader import Reader, Reading
from oip_conformance.session import Session

NAME, VERSION = "tiny", "1"
EXAMPLE = Example(
    (
        Tensor("pair", "FP64", (1, 2), (1.5, 2.0)),
        Tensor("whole", "INT64", (1,), (3,)),
        Tensor("text", "BYTES", (1,), ("Zürich",)),
        Tensor("flag", "BOOL", (1,), (True,)),
        Tensor("single", "FP32", (1,), (0.25,)),
        Tensor("small", "INT8", (1,), (4,)),
    )
)
GOOD = json.dumps(EXAMPLE.to_json()).encode()
INPUTS = [
    {"name": one.name, "datatype": one.datatype, "shape": [-1, *one.shape[1:]]} for one in EXAMPLE.inputs
]
OUTPUTS = [
    {"name": "total", "datatype": "FP64", "shape": [-1]},
    {"name": "label", "datatype": "BYTES", "shape": [-1]},
]
METADATA = {"name": NAME, "versions": [VERSION], "platform": "tiny_sum", "inputs": INPUTS, "outputs": OUTPUTS}
SERVER = {"name": "tiny", "version": "0", "extensions": ["binary_tensor_data"]}
MODEL_PATHS = (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/{VERSION}")
INFER_PATHS = [f"{path}/infer" for path in MODEL_PATHS]
GARBAGE = b'{"outputs": [{"name": "total", "shape": [7], "datatype": "FP64", "data": [1]}]}'


def predict(example: Example) -> dict[str, Tensor]:
    by_name = {tensor.name: tensor for tensor in example.inputs}
    rows = example.rows
    numbers = [by_name[name] for name in ("pair", "whole", "single", "small")]
    total = tuple(
        sum(math.atan(value) for tensor in numbers for value in tensor.take([row]).data)  # never infinite
        for row in range(rows)
    )
    label = tuple(f"{by_name['text'].data[row]} {by_name['flag'].data[row]}" for row in range(rows))
    return {
        "total": Tensor("total", "FP64", (rows,), total),
        "label": Tensor("label", "BYTES", (rows,), label),
    }


SESSION: Any = SimpleNamespace(
    example=EXAMPLE,
    model_metadata=METADATA,
    baseline=predict(EXAMPLE),
    model=NAME,
    list_versions=lambda: [VERSION],
)
READER = Reader(SESSION)
GOOD_MESSAGE = Session.make_message(SESSION, EXAMPLE, raw=False).SerializeToString()


class Refusal(Exception):  # noqa: N818 - an answer
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def understand(reading: Reading) -> Example:
    values = [value for tensor in reading.example.inputs for value in tensor.data]
    if reading.coerced or any(value is None for value in values):
        raise Refusal(400, "a value, datatype or shape is not the model's")
    return reading.example
