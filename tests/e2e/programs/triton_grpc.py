"""What a program does with tritonclient over gRPC: ask through the gateway for the service's own host.

Arguments: address, host, model. Reads {tensor: [datatype, values]} from standard input and writes the answer
as JSON. It has a process of its own because kserve and tritonclient carry the same protobuf file.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from tritonclient import grpc as triton

DTYPES = {"BOOL": np.bool_, "INT64": np.int64, "FP64": np.float64, "BYTES": np.object_}


def main() -> None:
    address, host, model = sys.argv[1:]
    inputs = []
    for name, (datatype, values) in json.load(sys.stdin).items():
        inputs.append(triton.InferInput(name, [len(values)], datatype))
        inputs[-1].set_data_from_numpy(np.array(values, dtype=DTYPES[datatype]))
    with triton.InferenceServerClient(address, channel_args=[("grpc.default_authority", host)]) as client:
        ready = client.is_model_ready(model)
        result = client.infer(model, inputs, headers={"x-tenure-variant": "stable"})
    answer = {
        "ready": ready,
        "version": result.get_response().model_version,
        "churn_probability": result.as_numpy("churn_probability").tolist(),
        "churn": result.as_numpy("churn").tolist(),
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
