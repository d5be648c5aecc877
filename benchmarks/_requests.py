"""The same rows as requests of each kind, and the scores in the answers to them.

Kinds: `json`, V2 in JSON; `binary`, V2 with binary tensors both ways; `grpc`, V2 with typed contents;
`grpc raw`, V2 with raw contents; `rows`, a JSON list with an object per row; `codes`, V2 in JSON for
MLServer's XGBoost runtime, which takes no strings: the number of each category in place of its name.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from _clients import HOST, INFER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tenure.bundle import Bundle

Rows = Sequence[Mapping[str, Any]]
DATATYPES = {"string": "BYTES", "float": "FP64", "integer": "INT64", "boolean": "BOOL"}
DTYPES = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}
PROBABILITY = "churn_probability"
PATIENCE = 30.0


def is_grpc(kind: str) -> bool:
    return kind.startswith("grpc")


def build_request(kind: str, rows: Rows, bundle: Bundle, name: str) -> bytes:
    """Return a request for the model `name`: all bytes of HTTP/1.1, or a gRPC message."""
    if is_grpc(kind):
        return build_message(rows, bundle, name, raw=kind == "grpc raw")
    path = f"/v2/models/{name}/infer"
    if kind == "json":
        return build_http(path, json.dumps({"inputs": build_tensors(rows, bundle)}).encode())
    if kind == "rows":
        return build_http("/predict", json.dumps(rows).encode())
    if kind == "codes":
        return build_http(path, json.dumps(build_codes(rows, bundle)).encode())
    assert kind == "binary"
    tensors = build_tensors(rows, bundle)
    tail = b""
    for tensor in tensors:
        raw = pack(tensor["datatype"], tensor.pop("data"))
        tensor["parameters"] = {"binary_data_size": len(raw)}
        tail += raw
    outputs = [{"name": output, "parameters": {"binary_data": True}} for output in (PROBABILITY, "churn")]
    head = json.dumps({"inputs": tensors, "outputs": outputs}).encode()
    lines = f"Inference-Header-Content-Length: {len(head)}\r\n"
    return build_http(path, head + tail, "application/octet-stream", lines)


def build_http(path: str, body: bytes, content: str = "application/json", lines: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content}\r\n{lines}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def build_tensors(rows: Rows, bundle: Bundle) -> list[dict[str, Any]]:
    """Return one tensor per feature."""
    return [
        {
            "name": column.name,
            "shape": [len(rows)],
            "datatype": DATATYPES[column.type],
            "data": [row[column.name] for row in rows],
        }
        for column in bundle.contract.features
    ]


def build_codes(rows: Rows, bundle: Bundle) -> dict[str, Any]:
    names = bundle.featuriser.names
    matrix = bundle.featuriser.transform({name: [row[name] for row in rows] for name in names})
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": "FP64", "data": values.tolist()}
        for name, values in zip(names, matrix.T, strict=True)
    ]
    return {"parameters": {"content_type": "pd"}, "inputs": inputs}


def build_message(rows: Rows, bundle: Bundle, name: str, *, raw: bool) -> bytes:
    from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest

    message = ModelInferRequest(model_name=name)
    for tensor in build_tensors(rows, bundle):
        datatype, data = tensor["datatype"], tensor["data"]
        entry = message.inputs.add(name=tensor["name"], datatype=datatype, shape=tensor["shape"])
        if raw:
            message.raw_input_contents.append(pack(datatype, data))
        else:
            values = [value.encode() for value in data] if datatype == "BYTES" else data
            getattr(entry.contents, f"{datatype.lower()}_contents").extend(values)
    return bytes(message.SerializeToString())


def pack(datatype: str, data: Sequence[Any]) -> bytes:
    """Return a tensor's binary form: little-endian numbers, or strings each after its length."""
    if datatype == "BYTES":
        texts = [value.encode() for value in data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.array(data, dtype=DTYPES[datatype]).tobytes()


def ask(kind: str, port: int, request: bytes, bundle: Bundle) -> NDArray[np.float64]:
    """Send one request and return the scores that it is answered with.

    Raises:
        ValueError: The answer is no answer.
    """
    if is_grpc(kind):
        return read_message(call(port, request))
    with socket.create_connection((HOST, port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read()
    if response.status != 200:
        raise ValueError(f"status {response.status}: {body[:500].decode(errors='replace')}")
    if kind == "rows":
        return np.array([entry[PROBABILITY] for entry in json.loads(body)])
    if kind == "codes":
        odds = np.array(json.loads(body)["outputs"][0]["data"])
        return bundle.calibrator.apply(np.log(odds / (1 - odds)))
    length = int(response.headers.get("Inference-Header-Content-Length", len(body)))
    position = length
    for output in json.loads(body[:length])["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size", 0)
        if output["name"] == PROBABILITY:
            if kind == "binary":
                return np.frombuffer(body[position : position + size], dtype="<f8")
            return np.array(output["data"])
        position += size
    raise ValueError(f"there is no {PROBABILITY} in {body[:500]!r}")


def call(port: int, message: bytes) -> bytes:
    import grpc

    with grpc.insecure_channel(f"{HOST}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            return bytes(channel.unary_unary(INFER)(message, timeout=PATIENCE))
        except grpc.RpcError as error:
            raise ValueError(str(error)) from error


def read_message(data: bytes) -> NDArray[np.float64]:
    from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferResponse

    message = ModelInferResponse.FromString(data)
    for place, output in enumerate(message.outputs):
        if output.name == PROBABILITY:
            if message.raw_output_contents:
                return np.frombuffer(message.raw_output_contents[place], dtype="<f8")
            return np.array(output.contents.fp64_contents)
    raise ValueError(f"there is no {PROBABILITY} in the answer")
