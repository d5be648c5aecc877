"""The protocol's protobuf messages, from descriptors made here in a pool of their own.

Generated code enters protobuf's one default pool, where the files of kserve, tritonclient and others clash:
the same package with other file names. A private pool clashes with none.

Source of names and numbers: open_inference_grpc.proto (see `clauses`).
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_Type = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Type.TYPE_BOOL,
    "int32": _Type.TYPE_INT32,
    "int64": _Type.TYPE_INT64,
    "uint32": _Type.TYPE_UINT32,
    "uint64": _Type.TYPE_UINT64,
    "float": _Type.TYPE_FLOAT,
    "double": _Type.TYPE_DOUBLE,
    "string": _Type.TYPE_STRING,
    "bytes": _Type.TYPE_BYTES,
}

# Field: type, `*` for a repeated one, `map` for a map of strings to InferParameter. They are numbered from 1.
_TENSOR = {"name": "string", "datatype": "string", "shape": "*int64"}
_FULL_TENSOR = {**_TENSOR, "parameters": "map", "contents": "InferTensorContents"}
_MODEL = {"name": "string", "version": "string"}
_MESSAGES: dict[str, dict[str, str]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": "bool"},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": "bool"},
    "ModelReadyRequest": _MODEL,
    "ModelReadyResponse": {"ready": "bool"},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {"name": "string", "version": "string", "extensions": "*string"},
    "ModelMetadataRequest": _MODEL,
    "ModelMetadataResponse": {
        "name": "string",
        "versions": "*string",
        "platform": "string",
        "inputs": "*ModelMetadataResponse.TensorMetadata",
        "outputs": "*ModelMetadataResponse.TensorMetadata",
    },
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelInferRequest": {
        "model_name": "string",
        "model_version": "string",
        "id": "string",
        "parameters": "map",
        "inputs": "*ModelInferRequest.InferInputTensor",
        "outputs": "*ModelInferRequest.InferRequestedOutputTensor",
        "raw_input_contents": "*bytes",
    },
    "ModelInferRequest.InferInputTensor": _FULL_TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": {"name": "string", "parameters": "map"},
    "ModelInferResponse": {
        "model_name": "string",
        "model_version": "string",
        "id": "string",
        "parameters": "map",
        "outputs": "*ModelInferResponse.InferOutputTensor",
        "raw_output_contents": "*bytes",
    },
    "ModelInferResponse.InferOutputTensor": _FULL_TENSOR,
    "InferParameter": {
        "bool_param": "bool",
        "int64_param": "int64",
        "string_param": "string",
        "double_param": "double",
        "uint64_param": "uint64",
    },
    "InferTensorContents": {
        "bool_contents": "*bool",
        "int_contents": "*int32",
        "int64_contents": "*int64",
        "uint_contents": "*uint32",
        "uint64_contents": "*uint64",
        "fp32_contents": "*float",
        "fp64_contents": "*double",
        "bytes_contents": "*bytes",
    },
}
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="oip_conformance/protocol.proto", package=PACKAGE, syntax="proto3"
    )
    made: dict[str, Any] = {}
    for path, fields in _MESSAGES.items():
        outer, _, inner = path.rpartition(".")
        message = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=path)
        made[path] = message
        for number, (name, kind) in enumerate(fields.items(), start=1):
            _add_field(message, path, number, name, kind)
    parameter = made["InferParameter"]
    parameter.oneof_decl.add(name="parameter_choice")
    for field in parameter.field:
        field.oneof_index = 0
    return file


def _add_field(message: Any, path: str, number: int, name: str, kind: str) -> None:
    repeated = kind.startswith("*") or kind == "map"
    field = message.field.add(name=name, number=number)
    field.label = _Type.LABEL_REPEATED if repeated else _Type.LABEL_OPTIONAL
    kind = kind.lstrip("*")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    field.type = _Type.TYPE_MESSAGE
    if kind != "map":
        field.type_name = f".{PACKAGE}.{kind}"
        return
    entry = message.nested_type.add(name=f"{name.title()}Entry")
    entry.options.map_entry = True
    _add_field(entry, "", 1, "key", "string")
    _add_field(entry, "", 2, "value", "InferParameter")
    field.type_name = f".{PACKAGE}.{path}.{entry.name}"


def _build() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_describe().SerializeToString())
    return {
        path: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{path}"))
        for path in _MESSAGES
    }


MESSAGES = _build()
"""The message classes by their names in the proto file."""
