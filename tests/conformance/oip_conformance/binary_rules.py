"""The rules of the binary tensor data extension, for servers that announce it."""

from __future__ import annotations

import json
from typing import Any

from oip_conformance import answers
from oip_conformance.checks import Level, rule
from oip_conformance.clauses import binary
from oip_conformance.datatypes import pack
from oip_conformance.errors import NotApplicableError
from oip_conformance.example import Example
from oip_conformance.expectations import expect, make_batch
from oip_conformance.rest import BINARY_TYPE, HEADER_LENGTH, RestReply, RestRequest
from oip_conformance.session import Session

MUST, SHOULD = Level.MUST, Level.SHOULD
_DATA = binary("Binary data of a tensor")
_SIZE = binary("binary_data_size")


def make_parts(example: Example, binary_inputs: set[int] | None = None) -> tuple[dict[str, Any], list[bytes]]:
    """Return the document of a binary request and its tensors' bytes; by default every input is binary."""
    document, tail = example.to_json(), []
    for at, tensor in enumerate(example.inputs):
        if binary_inputs is not None and at not in binary_inputs:
            continue
        raw = pack(tensor.type, tensor.data)
        entry = document["inputs"][at]
        del entry["data"]
        entry["parameters"] = {"binary_data_size": len(raw)}
        tail.append(raw)
    return document, tail


def make_request(document: Any, tail: list[bytes], note: str = "", **headers: str) -> RestRequest:
    """Return a request of JSON and bytes; `headers` replace its own, with `_` for `-`."""
    head = json.dumps(document).encode()
    all_headers = {"Content-Type": BINARY_TYPE, HEADER_LENGTH: str(len(head))}
    all_headers |= {key.replace("_", "-"): value for key, value in headers.items()}
    return RestRequest(head + b"".join(tail), note, headers=all_headers)


def _ask(session: Session, document: Any, tail: list[bytes]) -> RestReply:
    reply = session.send(make_request(document, tail, f"{json.dumps(document)[:120]} + binary"))
    expect(reply.status == 200, f"expected 200, got {reply.describe()}")
    return reply


@rule("binary.input", MUST, _DATA, "inputs as binary data get the answer that they get as JSON")
def _(session: Session) -> None:
    session.need_binary()
    answers.compare(answers.read_rest(_ask(session, *make_parts(session.example))), session.baseline)


@rule("binary.mixed", MUST, _SIZE, "one input may be binary while the others are JSON")
def _(session: Session) -> None:
    session.need_binary()
    if len(session.example.inputs) < 2:
        raise NotApplicableError("the model has one input")
    for at in (0, len(session.example.inputs) - 1):
        reply = _ask(session, *make_parts(session.example, {at}))
        answers.compare(answers.read_rest(reply), session.baseline)


@rule(
    "binary.batch",
    MUST,
    _DATA,
    "rows follow one another in the bytes: each gets the answer that it gets alone",
)
def _(session: Session) -> None:
    session.need_binary()
    single, tripled = make_batch(session)
    alone = answers.read_rest(_ask(session, *make_parts(single)))
    reply = _ask(session, *make_parts(tripled))
    answers.compare(answers.read_rest(reply), answers.join([alone, alone, alone]))


def _expect_binary(reply: RestReply, names: set[str]) -> None:
    expect(HEADER_LENGTH.lower() in reply.headers, f"there is no {HEADER_LENGTH}")
    for entry in reply.read_json()["outputs"]:
        size = (entry.get("parameters") or {}).get("binary_data_size")
        wanted = entry["name"] in names
        expect((size is not None) == wanted, f"{entry['name']}: binary_data_size is {size!r}")
        expect(("data" in entry) != wanted, f"{entry['name']}: has data in JSON as well, or nowhere")


@rule(
    "binary.output",
    MUST,
    binary("binary_data"),
    "an output is binary where binary_data asks for it, else JSON",
)
def _(session: Session) -> None:
    session.need_binary()
    names = list(session.baseline)
    outputs: list[dict[str, Any]] = [{"name": name} for name in names]
    outputs[0]["parameters"] = {"binary_data": True}
    reply = session.post(session.example.to_json(outputs=outputs))
    answers.compare(answers.read_rest(reply), session.baseline)
    _expect_binary(reply, {names[0]})


@rule(
    "binary.all-outputs",
    MUST,
    binary("binary_data_output"),
    "binary_data_output asks for all outputs as binary",
)
def _(session: Session) -> None:
    session.need_binary()
    reply = session.post(session.example.to_json(parameters={"binary_data_output": True}))
    answers.compare(answers.read_rest(reply), session.baseline)
    _expect_binary(reply, set(session.baseline))


@rule(
    "binary.override",
    MUST,
    binary("binary_data_output"),
    "binary_data of an output overrides binary_data_output",
)
def _(session: Session) -> None:
    session.need_binary()
    names = list(session.baseline)
    if len(names) < 2:
        raise NotApplicableError("the model has one output")
    outputs: list[dict[str, Any]] = [{"name": name} for name in names]
    outputs[0]["parameters"] = {"binary_data": False}
    reply = session.post(session.example.to_json(outputs=outputs, parameters={"binary_data_output": True}))
    answers.compare(answers.read_rest(reply), session.baseline)
    _expect_binary(reply, set(names[1:]))


@rule(
    "binary.content-type",
    SHOULD,
    binary("Examples"),
    "an answer with binary data says application/octet-stream",
)
def _(session: Session) -> None:
    session.need_binary()
    reply = session.post(session.example.to_json(parameters={"binary_data_output": True}))
    answers.read_rest(reply)
    kind = reply.headers.get("content-type", "")
    expect(kind.partition(";")[0].strip() == BINARY_TYPE, f"Content-Type is {kind!r}")
