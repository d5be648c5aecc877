"""Malformed requests over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oip_conformance.checks import Level, Tolerance, malformed
from oip_conformance.clauses import grpc, proto, status
from oip_conformance.errors import NotApplicableError
from oip_conformance.expectations import UNKNOWN
from oip_conformance.rpc import RpcRequest
from oip_conformance.rpc_entries import Spoil, enter_message
from oip_conformance.session import Session
from oip_conformance.spoiling import NO_NAME, find_datatype, swap_case

MUST, SHOULD = Level.MUST, Level.SHOULD
EITHER = Tolerance.ANSWER_OR_REFUSE
_INPUTS = proto("ModelInferRequest.inputs")
_NAME = proto("InferInputTensor.name")
_DATATYPE = grpc("Tensor Data Types")
_SHAPE = proto("InferInputTensor.shape")
_CONTENTS = proto("InferTensorContents")
_RAW = proto("ModelInferRequest.raw_input_contents")
_OUTPUTS = proto("ModelInferRequest.outputs")


def _set(**fields: Any) -> Spoil:
    """Set fields of the first input."""

    def spoil(_: Session, message: Any) -> None:
        for name, value in fields.items():
            setattr(message.inputs[0], name, value)

    return spoil


def _repeat(session: Session, message: Any, position: int = 0) -> Any:
    """Add the first input once more, with its raw contents."""
    entry = message.inputs.add()
    entry.CopyFrom(message.inputs[position])
    if message.raw_input_contents:
        message.raw_input_contents.append(message.raw_input_contents[position])
    return entry


def _add_extra(session: Session, message: Any) -> None:
    _repeat(session, message).name = NO_NAME


def _drop(session: Session, message: Any) -> None:
    if len(message.inputs) < 2:
        raise NotApplicableError("the model has one input: see grpc.malformed.inputs-empty")
    del message.inputs[0]
    if message.raw_input_contents:
        del message.raw_input_contents[0]


def _swap(session: Session, message: Any) -> None:
    message.inputs[0].name = swap_case(session.example.inputs[0])


def _clear(_: Session, message: Any) -> None:
    del message.inputs[:]
    del message.raw_input_contents[:]


enter_message("duplicate-tensor", SHOULD, _NAME, "an input is there twice", lambda s, m: _repeat(s, m))
enter_message("missing-tensor", MUST, _INPUTS, "an input that the model requires is not there", _drop)
enter_message("extra-tensor", SHOULD, _INPUTS, "there is an input that the model does not have", _add_extra)
enter_message(
    "misnamed-tensor", MUST, _NAME, "an input has a name that the model does not know", _set(name=NO_NAME)
)
enter_message("name-case", SHOULD, _NAME, "an input's name is in the other case", _swap)
enter_message("name-empty", MUST, _NAME, "an input has no name", _set(name=""))
enter_message("inputs-empty", MUST, _INPUTS, "there are no inputs", _clear)
enter_message(
    "model-unknown",
    MUST,
    proto("ModelInferRequest.model_name"),
    "the model is not there",
    lambda _, m: setattr(m, "model_name", UNKNOWN),
)
enter_message(
    "model-empty",
    MUST,
    proto("ModelInferRequest.model_name"),
    "the model has no name",
    lambda _, m: setattr(m, "model_name", ""),
)
enter_message(
    "version-unknown",
    MUST,
    proto("ModelInferRequest.model_version"),
    "the version is not there",
    lambda _, m: setattr(m, "model_version", "no-such-version"),
)
enter_message(
    "outputs-unknown",
    MUST,
    _OUTPUTS,
    "an output is asked for that the model does not have",
    lambda _, m: m.outputs.add(name="no-such-output"),
)
enter_message(
    "outputs-nameless",
    MUST,
    _OUTPUTS,
    "an output that is asked for has no name",
    lambda _, m: m.outputs.add(),
)


def _ask_twice(session: Session, message: Any) -> None:
    for name in [*session.baseline, *session.baseline]:
        message.outputs.add(name=name)


enter_message("outputs-twice", SHOULD, _OUTPUTS, "an output is asked for twice", _ask_twice, EITHER)

enter_message(
    "datatype-unknown", MUST, _DATATYPE, "a datatype is not in the table", _set(datatype="FLOAT128")
)
enter_message("datatype-empty", MUST, _DATATYPE, "an input has no datatype", _set(datatype=""))
enter_message(
    "datatype-case",
    MUST,
    _DATATYPE,
    "a datatype is in small letters",
    lambda _, m: setattr(m.inputs[0], "datatype", m.inputs[0].datatype.lower()),
)


def _mistype(session: Session, message: Any) -> None:
    """Make the first input one of another kind, with data of that kind."""
    entry, count = message.inputs[0], len(session.example.inputs[0].data)
    entry.ClearField("contents")
    if session.example.inputs[0].type.kind == "text":
        entry.datatype = "FP64"
        entry.contents.fp64_contents.extend([1.5] * count)
    else:
        entry.datatype = "BYTES"
        entry.contents.bytes_contents.extend([b"a"] * count)


def _misplace(session: Session, message: Any) -> None:
    """Keep the first input's datatype, and put its data into another type's field."""
    entry, count = message.inputs[0], len(session.example.inputs[0].data)
    entry.ClearField("contents")
    if session.example.inputs[0].type.field == "uint64_contents":
        entry.contents.bytes_contents.extend([b"a"] * count)
    else:
        entry.contents.uint64_contents.extend([1] * count)


def _double(session: Session, message: Any) -> None:
    """Give the first input data in two fields."""
    other = "uint_contents" if session.example.inputs[0].type.field != "uint_contents" else "int64_contents"
    getattr(message.inputs[0].contents, other).append(1)


enter_message(
    "datatype-other",
    MUST,
    _DATATYPE,
    "datatype and data of an input are of another kind",
    _mistype,
    raw=False,
)
enter_message(
    "contents-misplaced", MUST, _CONTENTS, "an input's data are in another type's field", _misplace, raw=False
)
enter_message("contents-doubled", MUST, _CONTENTS, "an input has data in two fields", _double, raw=False)
enter_message(
    "contents-missing",
    MUST,
    _CONTENTS,
    "an input has no contents",
    lambda _, m: m.inputs[0].ClearField("contents"),
    raw=False,
)
enter_message(
    "contents-empty",
    MUST,
    _CONTENTS,
    "an input's contents are empty",
    lambda s, m: m.inputs[0].contents.ClearField(s.example.inputs[0].type.field),
    raw=False,
)


def _lengthen(session: Session, message: Any) -> None:
    field = getattr(message.inputs[0].contents, session.example.inputs[0].type.field)
    field.append(field[0])


enter_message(
    "contents-longer", MUST, _CONTENTS, "there is one element more than the shape says", _lengthen, raw=False
)


def _shape(id_: str, text: str, make: Callable[[list[int]], list[int]], level: Level = MUST) -> None:
    """Enter two requests with another shape of the first input: with contents, and raw."""

    def spoil(session: Session, message: Any) -> None:
        message.inputs[0].shape[:] = make(list(session.example.inputs[0].shape))

    for raw in (False, True):
        name = f"raw-shape-{id_}" if raw else f"shape-{id_}"
        enter_message(name, level, _RAW if raw else _SHAPE, text + (" (raw)" if raw else ""), spoil, raw=raw)


_shape("longer", "the shape says more rows than there are", lambda s: [s[0] + 1, *s[1:]])
_shape("shorter", "the shape says fewer elements than there are", lambda s: [*s[:-1], s[-1] - 1])
_shape("negative", "a dimension is -1", lambda s: [-1, *s[1:]])
_shape("negative-pair", "two dimensions are negative, their product fits", lambda s: [-s[0], *s[1:], -1])
_shape("zero", "a dimension is 0, and there are data", lambda s: [0, *s[1:]])
_shape("huge", "a dimension is 2^31", lambda s: [2**31, *s[1:]])
_shape("enormous", "a dimension is 2^62", lambda s: [2**62, *s[1:]])
_shape("overflow", "the dimensions' product is 0 in 64 bits", lambda s: [2**32, 2**32, *s])
_shape("least", "a dimension is -2^63", lambda s: [-(2**63), *s[1:]])
_shape("empty", "the shape has no dimension", lambda _: [])
_shape("rank", "the shape has more dimensions than the model's", lambda s: [*s, 1, 1, 1], SHOULD)


def _exceed(session: Session, message: Any) -> None:
    at = find_datatype(session.example, "INT8", "INT16", "UINT8", "UINT16")
    tensor = session.example.inputs[at]
    getattr(message.inputs[at].contents, tensor.type.field)[0] = int(tensor.type.high) + 1


enter_message(
    "above-type", MUST, _CONTENTS, "an integer is one more than its datatype holds", _exceed, raw=False
)
enter_message(
    "long-string",
    SHOULD,
    _CONTENTS,
    "a string has a million characters",
    lambda s, m: m.inputs[find_datatype(s.example, "BYTES")].contents.bytes_contents.__setitem__(
        0, b"a" * 1_000_000
    ),
    EITHER,
    raw=False,
)


def _pad(session: Session, message: Any) -> None:
    message.parameters["padding"].string_param = "a" * session.target.oversize


enter_message(
    "oversized",
    SHOULD,
    status("RESOURCE_EXHAUSTED"),
    "a parameter makes the message very large",
    _pad,
    EITHER,
)


def _bytes(id_: str, text: str, make: Callable[[bytes], bytes]) -> None:
    """Enter bytes that are no message. gRPC's own table gives INTERNAL to those."""

    def build(session: Session) -> RpcRequest:
        if session.rpc is None:
            raise NotApplicableError("no address of gRPC was given")
        return RpcRequest(make(session.make_message().SerializeToString()), text)

    clause = status("INTERNAL (request does not parse)")
    malformed(f"grpc.malformed.{id_}", SHOULD, clause, text)(build)


_bytes("truncated-message", "the message ends in the middle of a field", lambda raw: raw[:-1])
_bytes("garbage-message", "the message is bytes without meaning", lambda _: b"\xff" * 64)
_bytes("wrong-wire-type", "a length goes beyond the message", lambda raw: b"\x0a\xff\xff\xff\xff\x0f" + raw)


@malformed("grpc.malformed.method-unknown", MUST, status("UNIMPLEMENTED"), "the method is not there")
def _(session: Session) -> RpcRequest:
    if session.rpc is None:
        raise NotApplicableError("no address of gRPC was given")
    return RpcRequest(session.make_message(), "NoSuchMethod", method="NoSuchMethod")
