"""The protocol's REST part as an OpenAPI document for one model.

The one that the protocol's repository has puts `${MODEL_NAME}` into its paths, which is no path parameter,
and cannot say which tensors a model takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oip_conformance.datatypes import DATATYPES

_STRING = {"type": "string"}
_SCALAR = {"type": ["string", "number", "boolean"]}
_PARAMETERS = {"type": "object", "additionalProperties": _SCALAR}
_ERROR = {"type": "object", "properties": {"error": _STRING}, "required": ["error"]}
_REFUSALS = {
    "400": "not a good request",
    "404": "no such model or version",
    "405": "another method",
    "413": "too large",
    "415": "not JSON",
}


def describe(metadata: Mapping[str, Any], example: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document.

    Args:
        metadata: The model's, from the server.
        example: A good request.
    """
    model, version = metadata["name"], metadata["versions"][0]
    base = f"/v2/models/{model}"
    infer = {"post": _describe_infer(metadata, example)}
    tensors = {"name": _STRING, "datatype": {"enum": sorted(DATATYPES)}, "shape": _list({"type": "integer"})}
    about = _object(tensors, ["name", "datatype", "shape"])
    model_schema = _object(
        {"name": _STRING, "platform": _STRING, "versions": _list(_STRING)}
        | {"inputs": _list(about), "outputs": _list(about)},
        ["name", "platform", "inputs", "outputs"],
    )
    server = _object(
        {"name": _STRING, "version": _STRING, "extensions": _list(_STRING)}, ["name", "version", "extensions"]
    )
    ready = _object({"name": _STRING, "ready": {"type": "boolean"}}, ["name", "ready"])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Open Inference Protocol", "version": "2"},
        "paths": {
            "/v2": _get(server),
            "/v2/health/live": _get({"type": "object"}),
            "/v2/health/ready": _get({"type": "object"}),
            base: _get(model_schema),
            f"{base}/ready": _get(ready),
            f"{base}/infer": infer,
            f"{base}/versions/{version}": _get(model_schema),
            f"{base}/versions/{version}/ready": _get(ready),
            f"{base}/versions/{version}/infer": infer,
        },
    }


def _object(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": required}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _answer(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _answers(schema: Any) -> dict[str, Any]:
    refusals = {status: _answer(text, _ERROR) for status, text in _REFUSALS.items()}
    return {"200": _answer("as asked", schema), **refusals}


def _get(schema: Any) -> dict[str, Any]:
    return {"get": {"responses": _answers(schema)}}


def _describe_infer(metadata: Mapping[str, Any], example: Mapping[str, Any]) -> dict[str, Any]:
    size = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}
    data: dict[str, Any] = {
        "type": "array",
        "items": {"type": ["string", "number", "boolean", "null", "array"]},
    }
    names = [entry["name"] for entry in metadata["inputs"]]
    tensor = _object(
        {
            "name": {"enum": names},
            "shape": {**_list(size), "minItems": 1, "maxItems": 2},
            "datatype": {"enum": sorted({entry["datatype"] for entry in metadata["inputs"]})},
            "parameters": _PARAMETERS,
            "data": data,
        },
        ["name", "shape", "datatype", "data"],
    )
    wanted = _object(
        {"name": {"enum": [entry["name"] for entry in metadata["outputs"]]}, "parameters": _PARAMETERS},
        ["name"],
    )
    request = _object(
        {"id": _STRING, "parameters": _PARAMETERS, "inputs": _list(tensor), "outputs": _list(wanted)},
        ["inputs"],
    )
    output = _object(
        {"name": _STRING, "shape": _list(size), "datatype": {"enum": sorted(DATATYPES)}, "data": _list({})},
        ["name", "shape", "datatype"],
    )
    response = _object(
        {"model_name": _STRING, "model_version": _STRING, "id": _STRING, "outputs": _list(output)},
        ["model_name", "outputs"],
    )
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": request, "examples": {"good": {"value": example}}}},
        },
        "responses": _answers(response),
    }
