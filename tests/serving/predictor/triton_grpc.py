"""A gRPC client that nobody here wrote, in a process without kserve: the two carry the same protobuf file.

Reads one JSON document from standard input (address, model, datatypes, jobs) and writes one answer per job.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
import numpy as np
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

DTYPES = {"BOOL": np.bool_, "INT64": np.int64, "FP64": np.float64, "FP32": np.float32, "BYTES": np.object_}
FIELDS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def make_inputs(job: dict[str, Any], datatypes: dict[str, str]) -> list[Any]:
    inputs = []
    for name, values in job["columns"].items():
        datatype = job.get("datatypes", {}).get(name, datatypes.get(name, "BYTES"))
        array = np.array([np.nan if value is None else value for value in values], dtype=DTYPES[datatype])
        entry = triton.InferInput(name, list(array.shape), datatype)
        entry.set_data_from_numpy(array)
        inputs.append(entry)
    return inputs


def ask_raw(client: Any, model: str, job: dict[str, Any], datatypes: dict[str, str]) -> dict[str, Any]:
    """Ask as tritonclient does: every tensor as raw bytes."""
    outputs = [triton.InferRequestedOutput(name) for name in job["outputs"]] if "outputs" in job else None
    result = client.infer(
        job.get("model", model),
        make_inputs(job, datatypes),
        model_version=job.get("version", ""),
        request_id=job.get("id", ""),
        outputs=outputs,
        parameters=job.get("parameters"),
    )
    answer = {"version": result.get_response().model_version, "id": result.get_response().id}
    for name in ("churn_probability", "churn", "reasons"):
        values = result.as_numpy(name)
        if values is not None:
            answer[name] = [
                value.decode() if isinstance(value, bytes) else value for value in values.tolist()
            ]
    return answer


def ask_typed(stub: Any, model: str, job: dict[str, Any], datatypes: dict[str, str]) -> dict[str, Any]:
    """Ask with typed contents, as a client written from the protocol's file does."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, values in job["columns"].items():
        datatype = job.get("datatypes", {}).get(name, datatypes.get(name, "BYTES"))
        entry = request.inputs.add(name=name, datatype=datatype, shape=job.get("shape", [len(values)]))
        if datatype in FIELDS:
            getattr(entry.contents, FIELDS[datatype]).extend(
                value.encode() if isinstance(value, str) else float("nan") if value is None else value
                for value in values
            )
    response = stub.ModelInfer(request)
    probability, churn = response.outputs
    return {
        "version": response.model_version,
        "churn_probability": list(probability.contents.fp64_contents),
        "churn": list(churn.contents.bool_contents),
    }


def main() -> None:
    order = json.load(sys.stdin)
    address, model, datatypes = order["address"], order["model"], order["datatypes"]
    answers: list[Any] = []
    # Behind a gateway the name that is asked for is not the address.
    options = [("grpc.default_authority", order["authority"])] if "authority" in order else []
    with (
        triton.InferenceServerClient(address, channel_args=options or None) as client,
        grpc.insecure_channel(address, options) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for job in order["jobs"]:
            try:
                if job["kind"] == "raw":
                    answers.append(ask_raw(client, model, job, datatypes))
                elif job["kind"] == "typed":
                    answers.append(ask_typed(stub, model, job, datatypes))
                elif job["kind"] == "health":
                    answers.append(
                        [
                            client.is_server_live(),
                            client.is_server_ready(),
                            client.is_model_ready(model, job.get("version", "")),
                        ]
                    )
                elif job["kind"] == "metadata":
                    answers.append(client.get_model_metadata(model, job.get("version", ""), as_json=True))
                else:
                    client.unload_model(model)
                    answers.append(None)
            except triton.InferenceServerException as error:
                answers.append({"status": error.status(), "message": error.message()})
            except grpc.RpcError as error:
                answers.append({"status": str(error.code()), "message": error.details()})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
