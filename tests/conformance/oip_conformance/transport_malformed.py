"""Malformed requests over REST below JSON: HTTP's headers, lengths and framing."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping

from oip_conformance.checks import Level, Tolerance, malformed
from oip_conformance.clauses import http, http1
from oip_conformance.errors import NotApplicableError
from oip_conformance.rest import HEADER_LENGTH, JSON_TYPE, RestRequest
from oip_conformance.session import Session

MUST, SHOULD = Level.MUST, Level.SHOULD
EITHER, CLOSE = Tolerance.ANSWER_OR_REFUSE, Tolerance.REFUSE_OR_CLOSE
_TYPE = http("15.5.16. 415 Unsupported Media Type")
_CODING = http("8.4. Content-Encoding")
_LENGTH = http1("8. Handling Incomplete Messages")


def _write(session: Session) -> bytes:
    return json.dumps(session.example.to_json()).encode()


@malformed("rest.malformed.content-type", SHOULD, _TYPE, "Content-Type says XML")
def _(session: Session) -> RestRequest:
    return RestRequest(
        _write(session), "JSON as application/xml", headers={"Content-Type": "application/xml"}
    )


@malformed("rest.malformed.content-type-image", SHOULD, _TYPE, "Content-Type says image/png")
def _(session: Session) -> RestRequest:
    return RestRequest(_write(session), "JSON as image/png", headers={"Content-Type": "image/png"})


@malformed("rest.malformed.encoding-lies", MUST, _CODING, "Content-Encoding says gzip, the body is plain")
def _(session: Session) -> RestRequest:
    headers = {"Content-Type": JSON_TYPE, "Content-Encoding": "gzip"}
    return RestRequest(_write(session), "plain JSON as gzip", headers=headers)


@malformed(
    "rest.malformed.encoding-gzip", SHOULD, _CODING, "the body is compressed as its header says", EITHER
)
def _(session: Session) -> RestRequest:
    headers = {"Content-Type": JSON_TYPE, "Content-Encoding": "gzip"}
    return RestRequest(gzip.compress(_write(session)), "gzip", headers=headers)


@malformed("rest.malformed.encoding-unknown", SHOULD, _CODING, "Content-Encoding names a coding that is none")
def _(session: Session) -> RestRequest:
    headers = {"Content-Type": JSON_TYPE, "Content-Encoding": "no-such-coding"}
    return RestRequest(_write(session), "Content-Encoding: no-such-coding", headers=headers)


@malformed(
    "rest.malformed.oversized",
    SHOULD,
    http("15.5.14. 413 Content Too Large"),
    "the body is a good request after very many blanks",
    EITHER,
)
def _(session: Session) -> RestRequest:
    body = b" " * session.target.oversize + _write(session)
    return RestRequest(body, f"{session.target.oversize} blanks, then a good request")


def _raw(
    session: Session,
    headers: Mapping[str, str],
    body: bytes,
    note: str,
    *,
    path: str = "",
    half_close: bool = True,
) -> RestRequest:
    """Return a request of these very bytes."""
    if not session.rest.plain:
        raise NotApplicableError("over TLS no raw bytes are sent")
    path = path or f"{session.path}/infer"
    head = [f"POST {session.rest.prefix}/{path} HTTP/1.1", f"Host: {session.rest.authority}"]
    head += [f"{key}: {value}" for key, value in {"Content-Type": JSON_TYPE, **headers}.items()]
    raw = "\r\n".join([*head, "", ""]).encode("latin-1") + body
    return RestRequest(note=note, raw=raw, half_close=half_close)


@malformed(
    "rest.malformed.truncated-body",
    MUST,
    _LENGTH,
    "the connection ends before Content-Length is reached",
    CLOSE,
)
def _(session: Session) -> RestRequest:
    body = _write(session)
    return _raw(session, {"Content-Length": str(len(body) + 50)}, body, "50 bytes fewer than Content-Length")


@malformed("rest.malformed.truncated-chunk", MUST, _LENGTH, "the connection ends inside of a chunk", CLOSE)
def _(session: Session) -> RestRequest:
    body = b"ffff\r\n" + _write(session)
    return _raw(session, {"Transfer-Encoding": "chunked"}, body, "a chunk shorter than it says")


@malformed(
    "rest.malformed.chunk-size",
    MUST,
    http1("7.1. Chunked Transfer Coding"),
    "the size of a chunk is no number",
    CLOSE,
)
def _(session: Session) -> RestRequest:
    body = b"zz\r\n" + _write(session) + b"\r\n0\r\n\r\n"
    return _raw(session, {"Transfer-Encoding": "chunked"}, body, "a chunk of the size zz", half_close=False)


@malformed(
    "rest.malformed.length-not-a-number",
    MUST,
    http("8.6. Content-Length"),
    "Content-Length is no number",
    CLOSE,
)
def _(session: Session) -> RestRequest:
    return _raw(session, {"Content-Length": "many"}, _write(session), "Content-Length: many")


@malformed(
    "rest.malformed.length-negative", MUST, http("8.6. Content-Length"), "Content-Length is negative", CLOSE
)
def _(session: Session) -> RestRequest:
    return _raw(session, {"Content-Length": "-1"}, _write(session), "Content-Length: -1")


@malformed(
    "rest.malformed.length-and-chunks",
    SHOULD,
    http1("6.3. Message Body Length"),
    "the request has a Content-Length and is chunked",
    CLOSE,
)
def _(session: Session) -> RestRequest:
    body = _write(session)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    headers = {"Content-Length": "3", "Transfer-Encoding": "chunked"}
    return _raw(
        session, headers, chunked, "Content-Length: 3 and Transfer-Encoding: chunked", half_close=False
    )


@malformed(
    "rest.malformed.header-length-alone",
    SHOULD,
    http("6.4. Content"),
    "the binary extension's header is there, and no binary data are",
    EITHER,
)
def _(session: Session) -> RestRequest:
    body = _write(session)
    headers = {"Content-Type": JSON_TYPE, HEADER_LENGTH: str(len(body))}
    return RestRequest(body, f"{HEADER_LENGTH}: {len(body)}", headers=headers)


@malformed(
    "rest.malformed.long-path",
    MUST,
    http("15.5.15. 414 URI Too Long"),
    "the model's name has 100,000 letters",
    CLOSE,
)
def _(session: Session) -> RestRequest:
    body, path = _write(session), f"v2/models/{'a' * 100_000}/infer"
    length = {"Content-Length": str(len(body))}
    return _raw(session, length, body, "a name of 100,000 letters", path=path, half_close=False)


@malformed(
    "rest.malformed.large-header",
    SHOULD,
    http("5.4. Field Limits"),
    "a header has 200,000 letters",
    Tolerance.ANSWER_OR_REFUSE,
)
def _(session: Session) -> RestRequest:
    headers = {"Content-Type": JSON_TYPE, "X-Padding": "a" * 200_000}
    return RestRequest(_write(session), "a header of 200,000 letters", headers=headers)
