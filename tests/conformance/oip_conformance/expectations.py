"""What rules expect of answers; each raises `BrokenError` if it is not so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oip_conformance import answers
from oip_conformance.datatypes import DATATYPES
from oip_conformance.errors import BrokenError, NotApplicableError
from oip_conformance.example import Example
from oip_conformance.rest import RestReply
from oip_conformance.session import Session

UNKNOWN = "no-such-model-here"


def expect(condition: bool, message: str) -> None:
    """Raise `BrokenError` with the message if the condition does not hold."""
    if not condition:
        raise BrokenError(message)


def expect_refusal(reply: RestReply) -> None:
    """Expect an error of the caller, or that something is not implemented, with an error object."""
    status = reply.status or 0
    expect(400 <= status < 500 or status == 501, f"expected 4xx, got {reply.describe()}")
    expect(reply.find_error() is not None, f'no {{"error": message}}: {reply.describe()}')


def expect_tensors(entries: Any, where: str) -> None:
    """Expect a list of *$metadata_tensor*."""
    expect(isinstance(entries, list), f"{where} is no list: {entries!r}")
    for entry in entries:
        expect(isinstance(entry, dict), f"{where}: {entry!r} is no object")
        name, shape = entry.get("name"), entry.get("shape")
        expect(isinstance(name, str) and bool(name), f"{where}: a tensor has no name")
        expect(entry.get("datatype") in DATATYPES, f"{name}: datatype {entry.get('datatype')!r} is unknown")
        sizes = isinstance(shape, list) and all(type(size) is int and size >= -1 for size in shape)
        expect(sizes, f"{name}: shape {shape!r} is no list of whole numbers from -1")


def read_metadata(session: Session) -> Mapping[str, Any]:
    """Ask for the model's metadata."""
    document = session.get_json(session.path)
    expect(isinstance(document, dict), f"{document!r}")
    return document  # type: ignore[no-any-return]


def make_batch(session: Session) -> tuple[Example, Example]:
    """Return the first row alone, and three times."""
    if not session.takes_batches():
        raise NotApplicableError("the metadata announce no variable first dimension")
    return session.example.take([0]), session.example.take([0, 0, 0])


def expect_rows(answer: answers.Answer, rows: int) -> None:
    """Expect outputs of so many rows."""
    for name, tensor in answer.items():
        expect(tensor.shape[:1] == (rows,), f"{name}: shape {list(tensor.shape)} for {rows} rows")
