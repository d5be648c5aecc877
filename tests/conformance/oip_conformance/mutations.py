"""Ways to change a request at random. A change need not spoil it: the reader finds out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from oip_conformance.datatypes import DATATYPES, Datatype
from oip_conformance.example import Example, Tensor

Spoiler = Callable[[random.Random, Any], None]

_NAMES = ["", "no-such-input", "\ud800", "a" * 5000, "\0", 7, None, True, [], {}]
_SIZES: list[Any] = [0, 1, 2, -1, 3, 2**31, 2**32, 2**62, 2**63, 2**64 - 1, 2**64, 2**64 + 1, 10**30]
_SIZES += [1.0, 1.5, "1", None, True, [1], {}]
_VALUES: list[Any] = [0, 1, -1, 2, 1.0, 0.5, 1e300, -1e300, 1e-320, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64]
_VALUES += [10**400, "", "1", "0.5", "abc", "NaN", "true", "a" * 3000, "Zürich", "\u2028", "\0", "\ud800"]
_VALUES += [None, True, False, [], [1], [[1]], {}, {"a": 1}, float("nan"), float("inf"), float("-inf")]
_THINGS: list[Any] = [None, True, 0, -1, 1.5, "", "a", [], [1], [[]], {}, {"a": 1}, [None]]


def mix_values(chance: random.Random, example: Example) -> Example:
    """Return rows with other values of the same datatypes, some at their ends."""
    return Example(tuple(_mix(chance, tensor) for tensor in example.inputs))


def _mix(chance: random.Random, tensor: Tensor) -> Tensor:
    data = [chance.choice(tensor.data) for _ in tensor.data]
    for at, value in enumerate(data):
        if chance.random() < 0.3:
            data[at] = _vary(chance, tensor.type, value)
    return Tensor(tensor.name, tensor.datatype, tensor.shape, tuple(data))


def _vary(chance: random.Random, datatype: Datatype, value: Any) -> Any:
    if datatype.kind == "bool":
        return chance.random() < 0.5
    if datatype.kind == "text":
        return chance.choice(["", "a", "Zürich", value + " ", value.upper(), "x" * 300, "\N{SNOWMAN}"])
    if datatype.kind == "int":
        near = [value + 1, value - 1, value * 2, 0, -1, datatype.low, int(datatype.high)]
        return min(max(chance.choice(near), datatype.low), int(datatype.high))
    near = [value * chance.uniform(0.5, 2), value + 1, -value, 0.0, -0.0, 1e30, datatype.high, -datatype.high]
    number = chance.choice(near)
    return number if abs(number) <= datatype.high else value


def change_bytes(chance: random.Random, text: bytes) -> tuple[bytes, str]:
    """Change some bytes; return them and what was done."""
    changed = bytearray(text)
    way = chance.choice(["flip", "drop", "insert", "truncate", "repeat", "swap"])
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(changed)) if changed else 0
        if not changed:
            break
        if way == "flip":
            changed[at] ^= 1 << chance.randrange(8)
        elif way == "drop":
            del changed[at : at + chance.randint(1, 8)]
        elif way == "insert":
            changed[at:at] = chance.choice(
                [b"\0", b"\xff", b'"', b"}", b"]", b",", b"[" * 5000, b"1" * 400, b"e9"]
            )
        elif way == "truncate":
            del changed[at:]
        elif way == "repeat":
            changed[at:at] = changed[at : at + chance.randint(1, 40)]
        else:
            other = chance.randrange(len(changed))
            changed[at], changed[other] = changed[other], changed[at]
    return bytes(changed), f"bytes: {way}"


def _pick(chance: random.Random, document: Any) -> Any:
    return chance.choice(document["inputs"])


def repeat_input(chance: random.Random, document: Any) -> None:
    document["inputs"].append(dict(_pick(chance, document)))


def drop_input(chance: random.Random, document: Any) -> None:
    document["inputs"].remove(_pick(chance, document))


def rename_input(chance: random.Random, document: Any) -> None:
    _pick(chance, document)["name"] = chance.choice(_NAMES)


def exchange_names(chance: random.Random, document: Any) -> None:
    one, other = chance.sample(document["inputs"], 2)
    one["name"], other["name"] = other["name"], one["name"]


def replace_datatype(chance: random.Random, document: Any) -> None:
    names: list[Any] = [*DATATYPES, "FLOAT", "fp64", "", None, 64, []]
    _pick(chance, document)["datatype"] = chance.choice(names)


def replace_dimension(chance: random.Random, document: Any) -> None:
    shape = _pick(chance, document)["shape"]
    shape[chance.randrange(len(shape))] = chance.choice(_SIZES)


def add_dimension(chance: random.Random, document: Any) -> None:
    shape = _pick(chance, document)["shape"]
    shape.insert(chance.randint(0, len(shape)), chance.choice([1, 1, 1, *_SIZES]))


def drop_dimension(chance: random.Random, document: Any) -> None:
    _pick(chance, document)["shape"].pop()


def replace_shape(chance: random.Random, document: Any) -> None:
    _pick(chance, document)["shape"] = chance.choice(_THINGS)


def replace_value(chance: random.Random, document: Any) -> None:
    data = _pick(chance, document)["data"]
    data[chance.randrange(len(data))] = chance.choice(_VALUES)


def add_value(chance: random.Random, document: Any) -> None:
    data = _pick(chance, document)["data"]
    data.append(data[0])


def drop_value(chance: random.Random, document: Any) -> None:
    _pick(chance, document)["data"].pop()


def nest_value(chance: random.Random, document: Any) -> None:
    data = _pick(chance, document)["data"]
    at = chance.randrange(len(data))
    data[at] = [data[at]]


def nest_all(chance: random.Random, document: Any) -> None:
    entry = _pick(chance, document)
    entry["data"] = [[value] for value in entry["data"]]


def replace_data(chance: random.Random, document: Any) -> None:
    _pick(chance, document)["data"] = chance.choice(_THINGS)


def drop_member(chance: random.Random, document: Any) -> None:
    entry = chance.choice([document, *document["inputs"]])
    del entry[chance.choice(list(entry))]


def replace_member(chance: random.Random, document: Any) -> None:
    entry = chance.choice([document, *document["inputs"]])
    entry[chance.choice([*entry, "parameters", "id", "outputs"])] = chance.choice(_THINGS)


def add_member(chance: random.Random, document: Any) -> None:
    entry = chance.choice([document, *document["inputs"]])
    entry[chance.choice(["comment", "a:b", "", "Name"])] = chance.choice([*_THINGS, "a: b", "Zürich: é"])


def add_outputs(chance: random.Random, document: Any) -> None:
    document["outputs"] = [{"name": chance.choice(_NAMES)}, *chance.sample(_THINGS, 2)]


def replace_size(chance: random.Random, document: Any) -> None:
    _pick(chance, document)["parameters"] = {"binary_data_size": chance.choice(_SIZES)}


DOCUMENT: list[Spoiler] = [
    repeat_input,
    drop_input,
    rename_input,
    exchange_names,
    replace_datatype,
    replace_dimension,
    add_dimension,
    drop_dimension,
    replace_shape,
    replace_value,
    replace_value,
    replace_value,
    add_value,
    drop_value,
    nest_value,
    nest_all,
    replace_data,
    drop_member,
    replace_member,
    add_member,
    add_member,
    add_outputs,
    replace_size,
]
"""Changes of a REST request's document."""


def _tensor(chance: random.Random, message: Any) -> Any:
    return chance.choice(list(message.inputs))


def repeat_tensor(chance: random.Random, message: Any) -> None:
    message.inputs.add().CopyFrom(_tensor(chance, message))


def drop_tensor(chance: random.Random, message: Any) -> None:
    del message.inputs[chance.randrange(len(message.inputs))]


def rename_tensor(chance: random.Random, message: Any) -> None:
    _tensor(chance, message).name = chance.choice(["", "no-such-input", "a" * 5000, "\0"])


def retype_tensor(chance: random.Random, message: Any) -> None:
    _tensor(chance, message).datatype = chance.choice([*DATATYPES, "FLOAT", "fp64", ""])


def reshape_tensor(chance: random.Random, message: Any) -> None:
    shape = _tensor(chance, message).shape
    shape[chance.randrange(len(shape))] = chance.choice(
        [0, 1, 2, -1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]
    )


def extend_shape(chance: random.Random, message: Any) -> None:
    _tensor(chance, message).shape.append(chance.choice([1, 1, 0, -1, 2, 2**62]))


def clear_contents(chance: random.Random, message: Any) -> None:
    _tensor(chance, message).ClearField("contents")


def add_contents(chance: random.Random, message: Any) -> None:
    contents = _tensor(chance, message).contents
    chance.choice([contents.int64_contents, contents.fp64_contents, contents.uint_contents]).append(1)


def drop_raw(chance: random.Random, message: Any) -> None:
    del message.raw_input_contents[chance.randrange(len(message.raw_input_contents))]


def change_raw(chance: random.Random, message: Any) -> None:
    at = chance.randrange(len(message.raw_input_contents))
    message.raw_input_contents[at] = change_bytes(chance, message.raw_input_contents[at])[0]


def rename_model(chance: random.Random, message: Any) -> None:
    message.model_name = chance.choice(["", "no-such-model", message.model_name.upper()])


def ask_outputs(chance: random.Random, message: Any) -> None:
    message.outputs.add(name=chance.choice(["", "no-such-output"]))


MESSAGE: list[Spoiler] = [
    repeat_tensor,
    drop_tensor,
    rename_tensor,
    retype_tensor,
    reshape_tensor,
    extend_shape,
    clear_contents,
    add_contents,
    drop_raw,
    change_raw,
    change_raw,
    rename_model,
    ask_outputs,
]
"""Changes of a gRPC request's message."""
