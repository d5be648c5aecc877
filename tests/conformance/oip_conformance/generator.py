"""Requests made at random from a good one: some good, most spoilt, each known by seed and number.

Every request is drawn from its own source, seeded with both, so that one is made again without the others.
"""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass
from typing import Any

from oip_conformance.binary_rules import make_parts
from oip_conformance.example import Example, Tensor, nest
from oip_conformance.messages import MESSAGES
from oip_conformance.mutations import DOCUMENT, MESSAGE, Spoiler, change_bytes, mix_values
from oip_conformance.rest import BINARY_TYPE, HEADER_LENGTH, RestRequest
from oip_conformance.rpc import RpcRequest
from oip_conformance.session import BINARY_EXTENSION, Session

_MOST_ROWS = 6


@dataclass(frozen=True, slots=True)
class Case:
    """One generated request.

    Attributes:
        good: It was made without spoiling anything, so that it has to be answered.
        note: What was done to it.
    """

    number: int
    transport: str
    request: RestRequest | RpcRequest
    good: bool
    note: str


class Generator:
    """Makes the requests of one seed."""

    def __init__(self, session: Session, seed: int) -> None:
        self._session = session
        self._seed = seed
        self._rows = [session.example.take([row]) for row in range(session.example.rows)]
        self._batches = session.takes_batches()
        self._transports = ["rest"] * 3
        if BINARY_EXTENSION in (session.server_metadata.get("extensions") or []):
            self._transports.append("binary")
        if session.rpc_baseline is not None:
            self._transports.append("grpc")

    def make(self, number: int) -> Case:
        """Make the request of that number."""
        chance = random.Random(f"{self._seed}/{number}")  # noqa: S311 - nothing secret
        transport = chance.choice(self._transports)
        example, mixed = self._draw(chance)
        plan = chance.choices(("good", "document", "bytes", "both"), (3, 5, 2, 1))[0]
        request: RestRequest | RpcRequest
        if transport == "grpc":
            request, notes = self._make_rpc(chance, example, plan)
        elif transport == "binary":
            request, notes = self._make_binary(chance, example, plan)
        else:
            request, notes = self._make_rest(chance, example, plan)
        if mixed:
            notes.insert(0, "other values")
        return Case(number, transport, request, plan == "good" and not mixed, ", ".join(notes) or "good")

    def _draw(self, chance: random.Random) -> tuple[Example, bool]:
        """Return some rows, and whether their values are others than the example's."""
        if not self._batches:
            return self._session.example, False
        rows = [chance.choice(self._rows) for _ in range(chance.randint(1, _MOST_ROWS))]
        joined = []
        for at, tensor in enumerate(rows[0].inputs):
            data = tuple(value for row in rows for value in row.inputs[at].data)
            joined.append(Tensor(tensor.name, tensor.datatype, (len(rows), *tensor.shape[1:]), data))
        example = Example(tuple(joined))
        return (mix_values(chance, example), True) if chance.random() < 0.3 else (example, False)

    def _make_rest(self, chance: random.Random, example: Example, plan: str) -> tuple[RestRequest, list[str]]:
        document, notes = self._dress(chance, example)
        if plan in ("document", "both"):
            notes += _spoil(chance, document, DOCUMENT)
        text = _write(chance, document)
        if plan in ("bytes", "both"):
            text, note = change_bytes(chance, text)
            notes.append(note)
        return RestRequest(text), notes

    def _dress(self, chance: random.Random, example: Example) -> tuple[dict[str, Any], list[str]]:
        """Return the document in one of the forms that all mean the same."""
        document, notes = example.to_json(), []
        if chance.random() < 0.3:
            chance.shuffle(document["inputs"])
            notes.append("other order")
        if chance.random() < 0.2:
            for entry, tensor in zip(example.to_json()["inputs"], example.inputs, strict=True):
                at = document["inputs"].index(entry)
                document["inputs"][at] = {**entry, "data": nest(tensor.data, tensor.shape)}
            notes.append("nested")
        if chance.random() < 0.3:
            document["id"] = chance.choice(["", "42", "Zürich", "a" * 200, "\u2028", '"\\'])
        if chance.random() < 0.2:
            document["parameters"] = {}
        if chance.random() < 0.3:
            names = list(self._session.baseline)
            document["outputs"] = [
                {"name": one} for one in chance.sample(names, chance.randint(1, len(names)))
            ]
        if chance.random() < 0.3:
            document = {key: document[key] for key in chance.sample(list(document), len(document))}
        return document, notes

    def _make_binary(
        self, chance: random.Random, example: Example, plan: str
    ) -> tuple[RestRequest, list[str]]:
        inputs = {at for at in range(len(example.inputs)) if chance.random() < 0.7}
        document, tail = make_parts(example, inputs)
        notes = _spoil(chance, document, DOCUMENT) if plan in ("document", "both") else []
        head = json.dumps(document).encode()
        length = str(len(head))
        body = head + b"".join(tail)
        if plan in ("bytes", "both"):
            if chance.random() < 0.5:
                length = chance.choice(["0", "-1", "", "x", str(len(head) + 1), str(len(body) + 1), "9" * 30])
                notes.append(f"header length {length!r}")
            else:
                changed, note = change_bytes(chance, body[len(head) :] or b"\0")
                body = head + changed
                notes.append(f"tail: {note}")
        headers = {"Content-Type": BINARY_TYPE, HEADER_LENGTH: length}
        return RestRequest(body, headers=headers), notes

    def _make_rpc(self, chance: random.Random, example: Example, plan: str) -> tuple[RpcRequest, list[str]]:
        raw = chance.random() < 0.5 or any(not tensor.type.field for tensor in example.inputs)
        message = self._session.make_message(example, raw)
        message.id = chance.choice(["", "42", "Zürich"])
        notes = _spoil(chance, message, MESSAGE) if plan in ("document", "both") else []
        if plan not in ("bytes", "both"):
            return RpcRequest(message), notes
        changed, note = change_bytes(chance, message.SerializeToString())
        return RpcRequest(changed), [*notes, note]


def _spoil(chance: random.Random, thing: Any, ways: list[Spoiler]) -> list[str]:
    """Change a request in one to three ways; a way that does not fit is passed over."""
    notes = []
    for way in chance.choices(ways, k=chance.choice((1, 1, 1, 2, 3))):
        before = copy.deepcopy(thing)
        try:
            way(chance, thing)
        except (LookupError, TypeError, ValueError, AttributeError):
            # An earlier change took away what this one changes.
            _restore(thing, before)
        else:
            notes.append(way.__name__.replace("_", " "))
    return notes


def _restore(thing: Any, before: Any) -> None:
    if isinstance(thing, MESSAGES["ModelInferRequest"]):
        thing.CopyFrom(before)
    else:
        thing.clear()
        thing.update(before)


def _write(chance: random.Random, document: Any) -> bytes:
    indent = chance.choice([None, None, None, 2])
    text = json.dumps(document, indent=indent, ensure_ascii=chance.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")
