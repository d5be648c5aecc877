"""Malformed requests over gRPC: raw contents."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from oip_conformance.checks import Level, Tolerance
from oip_conformance.clauses import proto
from oip_conformance.datatypes import pack
from oip_conformance.rpc_entries import Spoil, enter_message
from oip_conformance.session import Session
from oip_conformance.spoiling import find_datatype, replace_value

MUST, SHOULD = Level.MUST, Level.SHOULD
EITHER = Tolerance.ANSWER_OR_REFUSE
_RAW = proto("ModelInferRequest.raw_input_contents")


def _raw(id_: str, level: Level, text: str, spoil: Spoil, tolerance: Tolerance = Tolerance.REFUSE) -> None:
    enter_message(f"raw-{id_}", level, _RAW, text, spoil, tolerance, raw=True)


def _add_contents(session: Session, message: Any) -> None:
    tensor = session.example.inputs[0]
    values = [value.encode() if isinstance(value, str) else value for value in tensor.data]
    getattr(message.inputs[0].contents, tensor.type.field or "fp32_contents").extend(values)


def _change_raw(change: Callable[[bytes], bytes], *names: str) -> Spoil:
    """Change the raw contents of the first input, or the first of these datatypes."""

    def spoil(session: Session, message: Any) -> None:
        at = find_datatype(session.example, *names) if names else 0
        message.raw_input_contents[at] = change(message.raw_input_contents[at])

    return spoil


def _element(value: Any, *names: str) -> Spoil:
    def spoil(session: Session, message: Any) -> None:
        at = find_datatype(session.example, *names)
        tensor = session.example.inputs[at]
        message.raw_input_contents[at] = pack(tensor.type, replace_value(tensor, value))

    return spoil


_FLOATS = ("FP16", "FP32", "FP64")
_raw("and-contents", MUST, "an input has contents as well as raw contents", _add_contents)
_raw("too-few", MUST, "one raw content fewer than there are inputs", lambda _, m: m.raw_input_contents.pop())
_raw(
    "too-many",
    MUST,
    "one raw content more than there are inputs",
    lambda _, m: m.raw_input_contents.append(b"\0"),
)
_raw("byte-more", MUST, "a raw content is one byte too long", _change_raw(lambda raw: raw + b"\0"))
_raw("byte-less", MUST, "a raw content is one byte too short", _change_raw(lambda raw: raw[:-1]))
_raw("empty", MUST, "a raw content is empty", _change_raw(lambda _: b""))
_raw(
    "string-beyond",
    MUST,
    "a string's length goes beyond its tensor",
    _change_raw(lambda raw: struct.pack("<I", 2**31) + raw[4:], "BYTES"),
)
_raw("string-cut", MUST, "a string's length has two bytes of four", _change_raw(lambda _: b"\1\0", "BYTES"))
_raw("odd-boolean", SHOULD, "a boolean's byte is 2", _change_raw(lambda raw: b"\2" + raw[1:], "BOOL"))
_raw(
    "not-utf-8",
    SHOULD,
    "a string is not UTF-8; a model may take bytes",
    _element(b"\xff\xfe", "BYTES"),
    EITHER,
)
_raw(
    "nan",
    SHOULD,
    "a number is NaN; a model may take it for missing",
    _element(float("nan"), *_FLOATS),
    EITHER,
)
_raw(
    "infinity", SHOULD, "a number is infinite; a model may take it", _element(float("inf"), *_FLOATS), EITHER
)
