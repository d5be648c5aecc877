"""Malformed requests with binary tensors, for servers that announce the extension."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from oip_conformance.binary_rules import make_parts, make_request
from oip_conformance.checks import Level, Tolerance, malformed
from oip_conformance.clauses import binary
from oip_conformance.datatypes import pack
from oip_conformance.rest import BINARY_TYPE, HEADER_LENGTH, RestRequest
from oip_conformance.session import Session
from oip_conformance.spoiling import find_datatype, replace_value

MUST, SHOULD = Level.MUST, Level.SHOULD
_HEADER = binary("Inference-Header-Content-Length")
_SIZE = binary("binary_data_size")
_DATA = binary("Binary data of a tensor")


def _header(id_: str, text: str, make: Callable[[int, int], str]) -> None:
    """Enter a request with another header length; `make` takes the lengths of JSON and body."""

    def build(session: Session) -> RestRequest:
        session.need_binary()
        request = make_request(*make_parts(session.example), text)
        length = make(int(request.headers[HEADER_LENGTH]), len(request.body))
        headers = {**request.headers, HEADER_LENGTH: length}
        return RestRequest(request.body, text, headers=headers)

    malformed(f"binary.malformed.header-{id_}", MUST, _HEADER, text)(build)


_header("beyond", "the header's length is beyond the body", lambda _, body: str(body + 1))
_header("huge", "the header's length is 2^63", lambda _, __: str(2**63))
_header("digits", "the header's length has ten thousand digits", lambda _, __: "9" * 10_000)
_header("negative", "the header's length is negative", lambda head, _: str(-head))
_header("word", "the header's length is a word", lambda _, __: "abc")
_header("empty", "the header's length is empty", lambda _, __: "")
_header("zero", "the header's length is 0", lambda _, __: "0")
_header("short", "the header's length is one less than the JSON's", lambda head, _: str(head - 1))
_header("long", "the header's length is one more than the JSON's", lambda head, _: str(head + 1))
_header("all", "the header's length is the whole body's", lambda _, body: str(body))


@malformed("binary.malformed.header-missing", MUST, _HEADER, "there are binary data, but not the header")
def _(session: Session) -> RestRequest:
    session.need_binary()
    request = make_request(*make_parts(session.example))
    return RestRequest(request.body, "binary data without the header", headers={"Content-Type": BINARY_TYPE})


def _size(id_: str, text: str, make: Callable[[int], Any]) -> None:
    """Enter a request whose first input says another size of its data."""

    def build(session: Session) -> RestRequest:
        session.need_binary()
        document, tail = make_parts(session.example)
        document["inputs"][0]["parameters"]["binary_data_size"] = make(len(tail[0]))
        return make_request(document, tail, text)

    malformed(f"binary.malformed.size-{id_}", MUST, _SIZE, text)(build)


_size("less", "binary_data_size is one less than there is", lambda size: size - 1)
_size("more", "binary_data_size is one more than there is", lambda size: size + 1)
_size("negative", "binary_data_size is negative", lambda size: -size)
_size("zero", "binary_data_size is 0", lambda _: 0)
_size("huge", "binary_data_size is 2^62", lambda _: 2**62)
_size("beyond", "binary_data_size is 2^64 more than is right", lambda size: 2**64 + size)
_size("string", "binary_data_size is a string", lambda size: str(size))
_size("fraction", "binary_data_size is a fraction", lambda size: size + 0.5)
_size("boolean", "binary_data_size is true", lambda _: True)
_size("list", "binary_data_size is a list", lambda size: [size])


def _parts(
    id_: str,
    level: Level,
    text: str,
    spoil: Callable[[Session, Any, list[bytes]], Any],
    tolerance: Tolerance = Tolerance.REFUSE,
) -> None:
    """Enter a request whose parts are changed in place."""

    def build(session: Session) -> RestRequest:
        session.need_binary()
        document, tail = make_parts(session.example)
        spoil(session, document, tail)
        return make_request(document, tail, text)

    malformed(f"binary.malformed.{id_}", level, _DATA, text, tolerance)(build)


def _both(session: Session, document: Any, _: list[bytes]) -> None:
    document["inputs"][0]["data"] = list(session.example.inputs[0].data)


def _shape(_: Session, document: Any, __: list[bytes]) -> None:
    document["inputs"][0]["shape"][0] += 1


def _put(session: Session, document: Any, tail: list[bytes], at: int, raw: bytes) -> None:
    tail[at] = raw
    document["inputs"][at]["parameters"]["binary_data_size"] = len(raw)


def _split_element(session: Session, document: Any, tail: list[bytes]) -> None:
    at = find_datatype(
        session.example, "INT16", "INT32", "INT64", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64"
    )
    _put(session, document, tail, at, tail[at] + b"\0")


def _one_more(session: Session, document: Any, tail: list[bytes]) -> None:
    tensor = session.example.inputs[0]
    _put(session, document, tail, 0, pack(tensor.type, [*tensor.data, tensor.data[0]]))


def _odd_boolean(session: Session, document: Any, tail: list[bytes]) -> None:
    at = find_datatype(session.example, "BOOL")
    _put(session, document, tail, at, b"\2" + tail[at][1:])


def _string(prefix: bytes) -> Callable[[Session, Any, list[bytes]], None]:
    def spoil(session: Session, document: Any, tail: list[bytes]) -> None:
        at = find_datatype(session.example, "BYTES")
        _put(session, document, tail, at, prefix + tail[at][4:])

    return spoil


def _element(value: Any, *names: str) -> Callable[[Session, Any, list[bytes]], None]:
    def spoil(session: Session, document: Any, tail: list[bytes]) -> None:
        at = find_datatype(session.example, *names)
        tensor = session.example.inputs[at]
        _put(session, document, tail, at, pack(tensor.type, replace_value(tensor, value)))

    return spoil


_EITHER = Tolerance.ANSWER_OR_REFUSE
_parts("trailing", MUST, "bytes follow that belong to no tensor", lambda _, __, tail: tail.append(b"abc"))
_parts("missing", MUST, "the last tensor's bytes are not there", lambda _, __, tail: tail.pop())
_parts("both", MUST, "an input has data and binary data", _both)
_parts("shape", MUST, "the shape says one row more than there is", _shape)
_parts("one-more", MUST, "there is one element more than the shape says", _one_more)
_parts("split-element", MUST, "the bytes are no whole number of elements", _split_element)
_parts("odd-boolean", SHOULD, "a boolean's byte is 2", _odd_boolean)
_parts("string-beyond", MUST, "a string's length goes beyond its tensor", _string(struct.pack("<I", 2**31)))
_parts("string-huge", MUST, "a string's length is 2^32 - 1", _string(b"\xff\xff\xff\xff"))
_parts("string-cut", MUST, "a string's length has two bytes of four", _string(b"\1\0"))
_parts(
    "string-not-utf-8",
    SHOULD,
    "a string is not UTF-8; a model may take bytes",
    _element(b"\xff\xfe", "BYTES"),
    _EITHER,
)
_parts(
    "nan",
    SHOULD,
    "a number is NaN; a model may take it for missing",
    _element(float("nan"), "FP16", "FP32", "FP64"),
    _EITHER,
)
_parts(
    "infinity",
    SHOULD,
    "a number is infinite; a model may take it",
    _element(float("inf"), "FP16", "FP32", "FP64"),
    _EITHER,
)


@malformed("binary.malformed.header-json", MUST, _HEADER, "the JSON in front of the bytes is broken")
def _(session: Session) -> RestRequest:
    session.need_binary()
    document, tail = make_parts(session.example)
    head = json.dumps(document).encode()[:-1]
    headers = {"Content-Type": BINARY_TYPE, HEADER_LENGTH: str(len(head))}
    return RestRequest(head + b"".join(tail), "JSON without its last brace, then bytes", headers=headers)


@malformed("binary.malformed.switch", SHOULD, binary("binary_data"), "binary_data of an output is a word")
def _(session: Session) -> RestRequest:
    session.need_binary()
    outputs = [{"name": name, "parameters": {"binary_data": "maybe"}} for name in session.baseline]
    return RestRequest(json.dumps(session.example.to_json(outputs=outputs)).encode(), "binary_data: maybe")
