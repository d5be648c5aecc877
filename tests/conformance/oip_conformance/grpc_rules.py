"""The protocol's rules over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oip_conformance import answers
from oip_conformance.checks import Level, rule
from oip_conformance.clauses import grpc, proto, proto3
from oip_conformance.errors import BrokenError, NotApplicableError
from oip_conformance.example import Example
from oip_conformance.expectations import UNKNOWN, expect, expect_tensors, make_batch
from oip_conformance.rpc import RpcReply, RpcRequest
from oip_conformance.session import Session

MUST, SHOULD = Level.MUST, Level.SHOULD
CALLER = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "FAILED_PRECONDITION",
    "UNIMPLEMENTED",
    "RESOURCE_EXHAUSTED",
    "PERMISSION_DENIED",
}
"""Codes that say that the call is wrong; UNKNOWN, INTERNAL and others say that the server is."""


def _call(session: Session, method: str, **fields: Any) -> Any:
    reply = session.call(method, **fields)
    expect(reply.ok, f"expected OK, got {reply.describe()}")
    return reply.message


def _expect_refusal(reply: RpcReply) -> None:
    expect(reply.code.name in CALLER, f"expected an error of the caller, got {reply.describe()}")
    expect(bool(reply.details.strip()), f"the status {reply.code.name} has no message")


@rule("grpc.server-live", MUST, grpc("Server Live"), "ServerLive says live")
def _(session: Session) -> None:
    expect(_call(session, "ServerLive").live, "live is false")


@rule("grpc.server-ready", MUST, grpc("Server Ready"), "ServerReady says ready")
def _(session: Session) -> None:
    expect(_call(session, "ServerReady").ready, "ready is false")


@rule("grpc.model-ready", MUST, grpc("Model Ready"), "ModelReady says that the model is ready")
def _(session: Session) -> None:
    expect(_call(session, "ModelReady", name=session.model).ready, "ready is false")


@rule("grpc.model-ready-unknown", MUST, grpc("Model Ready"), "a model that is not there is not ready")
def _(session: Session) -> None:
    reply = session.call("ModelReady", name=UNKNOWN)
    if reply.ok:
        expect(not reply.message.ready, f"{UNKNOWN} is ready")
    else:
        _expect_refusal(reply)


@rule("grpc.server-metadata", MUST, grpc("Server Metadata"), "ServerMetadata says name and version")
def _(session: Session) -> None:
    message = _call(session, "ServerMetadata")
    expect(bool(message.name and message.version), f"name {message.name!r}, version {message.version!r}")


def _describe(tensors: Any) -> list[dict[str, Any]]:
    return [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in tensors]


@rule(
    "grpc.model-metadata",
    MUST,
    proto("ModelMetadataResponse"),
    "ModelMetadata says name and platform, and each input and output with name, datatype and shape",
)
def _(session: Session) -> None:
    message = _call(session, "ModelMetadata", name=session.model)
    expect(message.name == session.model, f"name is {message.name!r}")
    expect(bool(message.platform), "platform is empty")
    for where, tensors in (("inputs", message.inputs), ("outputs", message.outputs)):
        expect(bool(tensors), f"{where} is empty")
        expect_tensors(_describe(tensors), where)


@rule(
    "grpc.metadata-as-rest",
    SHOULD,
    grpc("The GRPC API closely follows the concepts defined in the HTTP/REST API"),
    "both transports say the same of the model's tensors and versions",
)
def _(session: Session) -> None:
    message = _call(session, "ModelMetadata", name=session.model)
    spoken: Mapping[str, Any] = {
        "inputs": _describe(message.inputs),
        "outputs": _describe(message.outputs),
        "versions": list(message.versions),
    }
    for key, value in spoken.items():
        said = session.model_metadata.get(key) or []
        if key != "versions" and isinstance(said, list):
            said = [{name: one.get(name) for name in ("name", "datatype", "shape")} for one in said]
        expect(value == said, f"{key}: {value} over gRPC, {said} over REST"[:300])


@rule(
    "grpc.model-metadata-unknown",
    MUST,
    grpc("Model Metadata"),
    "metadata of a model that is not there: an error",
)
def _(session: Session) -> None:
    _expect_refusal(session.call("ModelMetadata", name=UNKNOWN))


@rule(
    "grpc.infer", MUST, proto("InferTensorContents"), "a good request with contents gets a well-formed answer"
)
def _(session: Session) -> None:
    missing = [one.datatype for one in session.example.inputs if not one.type.field]
    if missing:
        raise NotApplicableError(f"{missing[0]} has no field in InferTensorContents")
    answer = session.call_infer(session.make_message(raw=False))
    expect(bool(answer), "there are no outputs")


@rule(
    "grpc.infer-raw",
    MUST,
    proto("ModelInferRequest.raw_input_contents"),
    "a good request with raw contents gets a well-formed answer, the one that it gets with contents",
)
def _(session: Session) -> None:
    answer = session.call_infer(session.make_message(raw=True))
    expect(bool(answer), "there are no outputs")
    if all(one.type.field for one in session.example.inputs):
        answers.compare(answer, session.call_infer(session.make_message(raw=False)))


@rule(
    "grpc.infer-as-rest",
    SHOULD,
    grpc("The GRPC API closely follows the concepts defined in the HTTP/REST API"),
    "both transports give the same answer",
)
def _(session: Session) -> None:
    answers.compare(session.call_infer(), session.baseline)


@rule("grpc.infer-id", MUST, proto("ModelInferRequest.id"), "the request's id comes back as it was")
def _(session: Session) -> None:
    for wanted in ("42", "Zürich \N{WHITE SMILING FACE}"):
        message = session.make_message()
        message.id = wanted
        reply = session.send_rpc(RpcRequest(message))
        expect(reply.ok, f"expected OK, got {reply.describe()}")
        expect(reply.message.id == wanted, f"id is {reply.message.id!r}, sent {wanted!r}")


@rule(
    "grpc.infer-model-name", MUST, proto("ModelInferResponse.model_name"), "the answer says the model's name"
)
def _(session: Session) -> None:
    reply = session.send_rpc(RpcRequest(session.make_message()))
    expect(reply.ok, f"expected OK, got {reply.describe()}")
    expect(reply.message.model_name == session.model, f"model_name is {reply.message.model_name!r}")


@rule(
    "grpc.versions", MUST, proto("ModelInferRequest.model_version"), "an announced version can be asked for"
)
def _(session: Session) -> None:
    versions = list(_call(session, "ModelMetadata", name=session.model).versions)
    if not versions:
        raise NotApplicableError("the metadata announce no versions")
    for method in ("ModelReady", "ModelMetadata"):
        _call(session, method, name=session.model, version=versions[0])
    message = session.make_message()
    message.model_version = versions[0]
    reply = session.send_rpc(RpcRequest(message))
    expect(reply.ok, f"expected OK, got {reply.describe()}")
    expect(reply.message.model_version == versions[0], f"model_version is {reply.message.model_version!r}")


@rule(
    "grpc.infer-all-outputs",
    MUST,
    proto("ModelInferRequest.outputs"),
    "a request that names no outputs gets all that the metadata list",
)
def _(session: Session) -> None:
    listed = [one.name for one in _call(session, "ModelMetadata", name=session.model).outputs]
    got = session.call_infer()
    missing = [name for name in listed if name not in got]
    expect(
        bool(listed) and not missing, f"listed, but not answered: {', '.join(missing) or 'nothing listed'}"
    )


@rule(
    "grpc.infer-one-output",
    MUST,
    proto("ModelInferRequest.outputs"),
    "a request that names one output gets that",
)
def _(session: Session) -> None:
    for name, tensor in _need_baseline(session).items():
        message = session.make_message()
        message.outputs.add(name=name)
        answers.compare(session.call_infer(message), {name: tensor})


def _need_baseline(session: Session) -> answers.Answer:
    """Return the good request's answer."""
    answer = session.rpc_baseline
    if session.rpc is None:
        raise NotApplicableError("no address of gRPC was given")
    if answer is None:
        raise BrokenError("the good request gets no answer")
    return answer


@rule(
    "grpc.infer-batch",
    MUST,
    proto("InferTensorContents"),
    "rows follow one another, and each gets the answer that it gets alone",
)
def _(session: Session) -> None:
    single, tripled = make_batch(session)
    for raw in (False, True):
        if not raw and any(not one.type.field for one in single.inputs):
            continue
        alone = session.call_infer(session.make_message(single, raw))
        got = session.call_infer(session.make_message(tripled, raw))
        answers.compare(got, answers.join([alone, alone, alone]))


@rule("grpc.infer-input-order", SHOULD, proto("InferInputTensor.name"), "inputs are known by their names")
def _(session: Session) -> None:
    if len(session.example.inputs) < 2:
        raise NotApplicableError("the model has one input")
    message = session.make_message(Example(session.example.inputs[::-1]))
    answers.compare(session.call_infer(message), _need_baseline(session))


@rule(
    "grpc.unknown-field",
    MUST,
    proto3("Unknown Fields"),
    "a field that this version of the protocol does not have is passed over",
)
def _(session: Session) -> None:
    # Field 99, a string: tag 99 << 3 | 2 as a varint, its length, its bytes.
    extra = b"\x9a\x06\x03abc"
    answers.compare(
        session.call_infer(session.make_message().SerializeToString() + extra), _need_baseline(session)
    )
