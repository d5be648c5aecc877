"""Malformed requests over REST: the request's members, its tensors' names, datatypes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oip_conformance.checks import Level, Tolerance
from oip_conformance.clauses import Clause, rest
from oip_conformance.clauses import json as rfc8259
from oip_conformance.entries import Document, enter_document, enter_first
from oip_conformance.errors import NotApplicableError
from oip_conformance.example import Tensor
from oip_conformance.session import Session
from oip_conformance.spoiling import (
    NO_NAME,
    other_datatype,
    overflow,
    replace_input,
    replace_value,
    swap_case,
)

MUST, SHOULD = Level.MUST, Level.SHOULD
EITHER = Tolerance.ANSWER_OR_REFUSE
_INPUTS = rest("Inference Request JSON Object: inputs")
_INPUT = rest("Request Input")
_SHAPE = rest("Request Input: shape")
_DATATYPE = rest("Request Input: datatype")
_DATA = rest("Tensor Data")
_NAME = rest("Request Input: name")

# Which tensors


@enter_document("duplicate-tensor", SHOULD, _NAME, "an input is there twice, with the same data")
def _(session: Session) -> Document:
    document = session.example.to_json()
    document["inputs"].append(document["inputs"][0])
    return document


@enter_document("conflicting-tensor", MUST, _NAME, "an input is there twice, with different data")
def _(session: Session) -> Document:
    document = session.example.to_json()
    tensor = session.example.inputs[0]
    other: dict[str, Any] = {"text": "b", "bool": not tensor.data[0], "int": 2, "float": 2.5}
    document["inputs"].append(tensor.to_json(data=replace_value(tensor, other[tensor.type.kind])))
    return document


@enter_document(
    "missing-tensor", MUST, rest("Model Metadata: inputs"), "an input that the model requires is not there"
)
def _(session: Session) -> Document:
    if len(session.example.inputs) < 2:
        raise NotApplicableError("the model has one input: see rest.malformed.inputs-empty")
    document = session.example.to_json()
    del document["inputs"][0]
    return document


@enter_document(
    "extra-tensor", SHOULD, rest("Model Metadata: inputs"), "there is an input that the model does not have"
)
def _(session: Session) -> Document:
    document = session.example.to_json()
    document["inputs"].append({**document["inputs"][0], "name": NO_NAME})
    return document


enter_first(
    "misnamed-tensor",
    MUST,
    _NAME,
    "an input has a name that the model does not know",
    lambda _: {"name": NO_NAME},
)
enter_first(
    "name-case", SHOULD, _NAME, "an input's name is in the other case", lambda t: {"name": swap_case(t)}
)
enter_first("name-missing", MUST, _INPUT, "an input has no name", lambda _: {"name": ...})
enter_first("name-number", MUST, _INPUT, "an input's name is a number", lambda _: {"name": 7})
enter_first("name-null", MUST, _INPUT, "an input's name is null", lambda _: {"name": None})
enter_first("name-empty", MUST, _NAME, "an input's name is empty", lambda _: {"name": ""})
enter_first(
    "name-surrogate",
    SHOULD,
    rfc8259("8.2. Unicode Characters"),
    "an input's name is half a surrogate pair",
    lambda _: {"name": "\ud800"},
)

# The request's own members


@enter_document("inputs-missing", MUST, _INPUTS, "the request has no inputs member")
def _(_: Session) -> Document:
    return {"id": "1"}


def _members(id_: str, level: Level, clause: Clause, text: str, **members: Any) -> None:
    """Enter a request with other members."""
    enter_document(id_, level, clause, text)(lambda session: session.example.to_json() | members)


_PARAMETERS = rest("Parameters")
_OUTPUTS = rest("Request Output")
_members("inputs-empty", MUST, _INPUTS, "inputs is an empty list", inputs=[])
_members("inputs-null", MUST, _INPUTS, "inputs is null", inputs=None)
_members("inputs-object", MUST, _INPUTS, "inputs is an object", inputs={"name": "a"})
_members("inputs-of-null", MUST, _INPUT, "inputs is a list of null", inputs=[None])
_members("inputs-of-lists", MUST, _INPUT, "inputs is a list of lists", inputs=[[1, 2], [3]])
_members("id-number", MUST, rest("Inference Request JSON Object: id"), "id is a number", id=42)
_members("id-object", MUST, rest("Inference Request JSON Object: id"), "id is an object", id={"a": 1})
_members("parameters-list", MUST, _PARAMETERS, "parameters is a list", parameters=[1])
_members("parameters-string", MUST, _PARAMETERS, "parameters is a string", parameters="a")
_members(
    "parameters-nested", SHOULD, _PARAMETERS, "a parameter's value is an object", parameters={"a": {"b": {}}}
)
_members("outputs-object", MUST, _OUTPUTS, "outputs is an object", outputs={"name": "a"})
_members("outputs-strings", MUST, _OUTPUTS, "outputs is a list of strings", outputs=["a"])
_members("outputs-nameless", MUST, _OUTPUTS, "an output that is asked for has no name", outputs=[{}])
_members(
    "outputs-unknown",
    MUST,
    _OUTPUTS,
    "an output is asked for that the model does not have",
    outputs=[{"name": "no-such-output"}],
)


@enter_document("outputs-twice", SHOULD, _OUTPUTS, "an output is asked for twice", EITHER)
def _(session: Session) -> Document:
    return session.example.to_json(
        outputs=[{"name": name} for name in [*session.baseline, *session.baseline]]
    )


# Datatypes


@enter_document(
    "datatype-other", MUST, _DATATYPE, "datatype and data of an input are of another kind than the model's"
)
def _(session: Session) -> Document:
    tensor = session.example.inputs[0]
    datatype, value = other_datatype(tensor)
    return replace_input(session.example, 0, datatype=datatype, data=[value] * len(tensor.data))


@enter_document("datatype-lies", MUST, _DATA, "an input's datatype is of another kind than its data")
def _(session: Session) -> Document:
    tensor = session.example.inputs[0]
    return replace_input(session.example, 0, datatype=other_datatype(tensor)[0])


enter_first(
    "datatype-unknown", MUST, _DATATYPE, "a datatype is not in the table", lambda _: {"datatype": "FLOAT128"}
)
enter_first(
    "datatype-case",
    MUST,
    _DATATYPE,
    "a datatype is in small letters",
    lambda t: {"datatype": t.datatype.lower()},
)
enter_first("datatype-missing", MUST, _INPUT, "an input has no datatype", lambda _: {"datatype": ...})
enter_first("datatype-number", MUST, _INPUT, "a datatype is a number", lambda _: {"datatype": 64})
enter_first("datatype-null", MUST, _INPUT, "a datatype is null", lambda _: {"datatype": None})

# Shapes


def _shape(id_: str, level: Level, text: str, make: Callable[[Tensor], Any]) -> None:
    enter_first(f"shape-{id_}", level, _SHAPE, text, lambda tensor: {"shape": make(tensor)})


def _lead(size: Any) -> Callable[[Tensor], list[Any]]:
    return lambda tensor: [size, *tensor.shape[1:]]


_shape("longer", MUST, "the shape says more rows than there are", lambda t: [t.shape[0] + 1, *t.shape[1:]])
_shape(
    "shorter",
    MUST,
    "the shape says fewer elements than there are",
    lambda t: [*t.shape[:-1], t.shape[-1] - 1],
)
_shape("negative", MUST, "a dimension is -1", _lead(-1))
_shape(
    "negative-pair",
    MUST,
    "two dimensions are negative, their product fits",
    lambda t: [-t.shape[0], *t.shape[1:], -1],
)
_shape("zero", MUST, "a dimension is 0, and there are data", _lead(0))
_shape("huge", MUST, "a dimension is 2^31", _lead(2**31))
_shape("enormous", MUST, "a dimension is 2^62", _lead(2**62))
_shape(
    "overflow",
    MUST,
    "the product of the dimensions fits in 64 bits only because it wraps round",
    lambda t: overflow(len(t.data)),
)
_shape("beyond", MUST, "a dimension is 2^64 more than is right", lambda t: [2**64 + t.shape[0], *t.shape[1:]])
_shape("fraction", MUST, "a dimension is a fraction", lambda t: [t.shape[0] + 0.5, *t.shape[1:]])
_shape("string", MUST, "a dimension is a string", lambda t: [str(t.shape[0]), *t.shape[1:]])
_shape("null-dimension", MUST, "a dimension is null", _lead(None))
_shape("boolean", MUST, "a dimension is true", _lead(True))
_shape("nested", MUST, "the shape is a list in a list", lambda t: [list(t.shape)])
_shape("number", MUST, "the shape is a number", lambda t: t.shape[0])
_shape("null", MUST, "the shape is null", lambda _: None)
_shape("missing", MUST, "an input has no shape", lambda _: ...)
_shape("empty", MUST, "the shape has no dimension", lambda _: [])
_shape("rank", SHOULD, "the shape has more dimensions than the model's", lambda t: [*t.shape, 1, 1, 1])
_shape("long", SHOULD, "the shape has ten thousand dimensions", lambda t: [*t.shape, *[1] * 10_000])


@enter_document("rows-differ", MUST, _INPUT, "one input has one row more than the others")
def _(session: Session) -> Document:
    if len(session.example.inputs) < 2:
        raise NotApplicableError("the model has one input")
    tensor = session.example.inputs[0]
    longer = tensor.take([*range(tensor.shape[0]), 0])
    return replace_input(session.example, 0, shape=list(longer.shape), data=list(longer.data))


@enter_document("no-rows", SHOULD, _SHAPE, "every input has no rows, and no data", EITHER)
def _(session: Session) -> Document:
    return session.example.take([]).to_json()
