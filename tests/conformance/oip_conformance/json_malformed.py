"""Malformed requests over REST: JSON that is none, or says a thing twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from oip_conformance.checks import Level, Tolerance, malformed
from oip_conformance.clauses import Clause, rest
from oip_conformance.clauses import json as rfc8259
from oip_conformance.rest import RestRequest
from oip_conformance.session import Session
from oip_conformance.spoiling import NO_NAME, write

MUST, SHOULD = Level.MUST, Level.SHOULD
EITHER = Tolerance.ANSWER_OR_REFUSE
_INPUTS = rest("Inference Request JSON Object: inputs")

_OBJECTS = rfc8259("4. Objects (names SHOULD be unique)")


def _twice(id_: str, text: str, wrong: str) -> None:
    """Enter a request whose first input has a member twice: first a wrong one, for most take the last."""

    def build(session: Session) -> RestRequest:
        body = write(session.example.to_json())
        start = body.index(b"[{") + 2
        return RestRequest(body[:start] + wrong.encode() + b", " + body[start:], text)

    malformed(f"rest.malformed.{id_}", SHOULD, _OBJECTS, text)(build)


_twice("duplicate-name-key", "an input has two names", f'"name": "{NO_NAME}"')
_twice("duplicate-shape-key", "an input has two shapes", '"shape": [7]')
_twice("duplicate-data-key", "an input has data twice", '"data": []')


@malformed("rest.malformed.duplicate-inputs-key", SHOULD, _OBJECTS, "the request has inputs twice")
def _(session: Session) -> RestRequest:
    return RestRequest(b'{"inputs": [], ' + write(session.example.to_json())[1:], "inputs twice")


def _text(
    id_: str,
    clause: Clause,
    text: str,
    spoil: Callable[[bytes], bytes],
    level: Level = MUST,
    tolerance: Tolerance = Tolerance.REFUSE,
) -> None:
    """Enter a request whose JSON is broken."""

    def build(session: Session) -> RestRequest:
        return RestRequest(spoil(json.dumps(session.example.to_json()).encode()), text)

    malformed(f"rest.malformed.{id_}", level, clause, text, tolerance)(build)


_GRAMMAR = rfc8259("2. JSON Grammar")
_ENCODING = rfc8259("8.1. Character Encoding")
_text("body-empty", _GRAMMAR, "the body is empty", lambda _: b"")
_text("body-blank", _GRAMMAR, "the body is blanks", lambda _: b"  \n ")
_text("body-list", _INPUTS, "the body is a list", lambda body: b"[" + body + b"]")
_text("body-string", _INPUTS, "the body is a string", lambda _: b'"inputs"')
_text("body-null", _INPUTS, "the body is null", lambda _: b"null")
_text("body-number", _INPUTS, "the body is a number", lambda _: b"1")
_text("truncated-json", _GRAMMAR, "the JSON ends in the middle", lambda body: body[: len(body) // 2])
_text("truncated-end", _GRAMMAR, "the last brace is not there", lambda body: body[:-1])
_text("trailing-garbage", _GRAMMAR, "a word follows the JSON", lambda body: body + b" abc")
_text("two-documents", _GRAMMAR, "the body has two documents", lambda body: body + b"\n" + body)
_text("trailing-comma", _GRAMMAR, "a comma follows the last member", lambda body: body[:-1] + b",}")
_text("comment", _GRAMMAR, "the JSON has a comment", lambda body: b"/* a */" + body)
_text("single-quotes", _GRAMMAR, "strings are in single quotes", lambda body: body.replace(b'"', b"'"))
_text("nul-byte", _GRAMMAR, "a NUL byte follows the JSON", lambda body: body + b"\0")
_text(
    "not-utf-8",
    _ENCODING,
    "a name has a byte that is not UTF-8",
    lambda body: body.replace(b'"name": "', b'"name": "\xff', 1),
)
_text(
    "not-utf-8-unknown",
    _ENCODING,
    "a member that the protocol does not have is not UTF-8",
    lambda body: b'{"comment": "a: \xff", ' + body[1:],
)
_text("utf-16", _ENCODING, "the body is UTF-16", lambda body: body.decode().encode("utf-16"), SHOULD)
_text(
    "byte-order-mark",
    _ENCODING,
    "a byte order mark is in front",
    lambda body: b"\xef\xbb\xbf" + body,
    SHOULD,
    EITHER,
)


@malformed("rest.malformed.binary-garbage", MUST, _GRAMMAR, "the body is bytes without meaning")
def _(_: Session) -> RestRequest:
    return RestRequest(bytes(range(256)) * 4, "256 different bytes, four times")


@malformed("rest.malformed.pickle", MUST, _GRAMMAR, "the body is a pickle")
def _(_: Session) -> RestRequest:
    return replace(RestRequest(b"\x80\x04N."), note="the pickle of None")
