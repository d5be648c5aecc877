"""Malformed requests over REST: the data of a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oip_conformance.checks import Level, Tolerance, malformed
from oip_conformance.clauses import json as rfc8259
from oip_conformance.clauses import rest
from oip_conformance.datatypes import DATATYPES
from oip_conformance.entries import FIRST, enter_first, enter_value
from oip_conformance.rest import RestRequest
from oip_conformance.session import Session
from oip_conformance.spoiling import find_datatype, post, replace_input, replace_value

MUST, SHOULD = Level.MUST, Level.SHOULD
EITHER = Tolerance.ANSWER_OR_REFUSE
_INPUT = rest("Request Input")
_SHAPE = rest("Request Input: shape")
_DATA = rest("Tensor Data")
_PARAMETERS = rest("Parameters")

enter_first("data-missing", MUST, _INPUT, "an input has no data", lambda _: {"data": ...})
enter_first("data-null", MUST, _INPUT, "data is null", lambda _: {"data": None})
enter_first("data-scalar", MUST, _DATA, "data is one value without a list", lambda t: {"data": t.data[0]})
enter_first("data-object", MUST, _DATA, "data is an object", lambda t: {"data": {"0": t.data[0]}})
enter_first("data-empty", MUST, _SHAPE, "data is empty, the shape is not", lambda _: {"data": []})
enter_first(
    "data-longer",
    MUST,
    _SHAPE,
    "there is one value more than the shape says",
    lambda t: {"data": [*t.data, t.data[0]]},
)
enter_first(
    "data-ragged",
    MUST,
    _DATA,
    "data has lists of different lengths",
    lambda t: {"data": [list(t.data), [t.data[0]] * 2]},
)
enter_first(
    "data-deeper",
    SHOULD,
    _DATA,
    "data is nested deeper than the shape",
    lambda t: {"data": [[[list(t.data)]]]},
)

_NUMBERS = ("int", "float")
enter_value("string-in-numbers", MUST, _DATA, "a number is a word", _NUMBERS, "abc")
enter_value("digits-in-numbers", SHOULD, _DATA, "a number is a string of digits", _NUMBERS, "1")
enter_value("empty-in-numbers", MUST, _DATA, "a number is the empty string", _NUMBERS, "")
enter_value("boolean-in-numbers", SHOULD, _DATA, "a number is true", _NUMBERS, True)
enter_value("object-in-numbers", MUST, _DATA, "a number is an object", _NUMBERS, {"a": 1})
enter_value("list-in-numbers", MUST, _DATA, "one number is a list of two", _NUMBERS, [1, 2])
enter_value(
    "null-in-numbers",
    SHOULD,
    _DATA,
    "a number is null; a model may take it for missing",
    _NUMBERS,
    None,
    EITHER,
)
enter_value("fraction-in-integers", SHOULD, _DATA, "an integer has a fraction", ("int",), 1.5)
enter_value("word-in-booleans", MUST, _DATA, "a boolean is a word", ("bool",), "maybe")
enter_value("two-in-booleans", MUST, _DATA, "a boolean is 2", ("bool",), 2)
enter_value("number-in-strings", SHOULD, _DATA, "a string is a number", ("text",), 5)
enter_value("object-in-strings", MUST, _DATA, "a string is an object", ("text",), {"a": 1})
enter_value(
    "long-string", SHOULD, _DATA, "a string has a million characters", ("text",), "a" * 1_000_000, EITHER
)
enter_value("nul-in-string", SHOULD, _DATA, "a string has a NUL character in it", ("text",), "a\0b", EITHER)

enter_value("nan", MUST, rfc8259("6. Numbers"), "a number is NaN", _NUMBERS, 0, raw="NaN")
enter_value("infinity", MUST, rfc8259("6. Numbers"), "a number is Infinity", _NUMBERS, 0, raw="Infinity")
enter_value(
    "negative-infinity", MUST, rfc8259("6. Numbers"), "a number is -Infinity", _NUMBERS, 0, raw="-Infinity"
)
enter_value("leading-zero", MUST, rfc8259("6. Numbers"), "a number begins with 0", _NUMBERS, 0, raw="01")
enter_value("hexadecimal", MUST, rfc8259("6. Numbers"), "a number is 0x10", _NUMBERS, 0, raw="0x10")
enter_value("plus", MUST, rfc8259("6. Numbers"), "a number begins with +", _NUMBERS, 0, raw="+1")
enter_value(
    "beyond-double",
    SHOULD,
    rfc8259("6. Numbers"),
    "a number is 1e999, beyond every datatype",
    ("float",),
    0,
    raw="1e999",
)
enter_value(
    "many-digits",
    SHOULD,
    rfc8259("6. Numbers"),
    "a number has a hundred thousand digits",
    _NUMBERS,
    0,
    raw="1" * 100_000,
)


def _beyond(
    id_: str, text: str, step: Callable[[Any], Any], names: tuple[str, ...], level: Level = MUST
) -> None:
    """Enter a number that its datatype does not hold; `step` takes the datatype's greatest value."""

    def build(session: Session) -> RestRequest:
        at = find_datatype(session.example, *names)
        tensor = session.example.inputs[at]
        data = replace_value(tensor, step(tensor.type))
        return post(text, replace_input(session.example, at, data=data))

    malformed(f"rest.malformed.{id_}", level, rest("Tensor Data Types"), text)(build)


_INTEGERS = tuple(name for name, one in DATATYPES.items() if one.kind == "int")
_beyond("above-type", "an integer is one more than its datatype holds", lambda d: int(d.high) + 1, _INTEGERS)
_beyond("below-type", "an integer is one less than its datatype holds", lambda d: d.low - 1, _INTEGERS)
_beyond("above-single", "a number is beyond FP16 or FP32", lambda d: d.high * 10, ("FP16", "FP32"), SHOULD)


@malformed("rest.malformed.deep-data", MUST, _DATA, "data is nested a hundred thousand deep")
def _(session: Session) -> RestRequest:
    deep = "[" * 100_000 + "1" + "]" * 100_000
    return post("data of [[[...]]]", replace_input(session.example, 0, data=FIRST), deep)


@malformed(
    "rest.malformed.deep-parameters", SHOULD, _PARAMETERS, "a parameter is nested a hundred thousand deep"
)
def _(session: Session) -> RestRequest:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    return post("parameters of {{{...}}}", session.example.to_json(parameters={"a": FIRST}), deep)
