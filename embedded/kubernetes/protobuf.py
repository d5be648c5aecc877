"""Just enough of Kubernetes' protobuf to read the Namespace that `kubectl create namespace` sends.

kubectl sends built-in kinds in this encoding and has no switch for it. An envelope of `k8s`, NUL and a
`runtime.Unknown` holds the type and the object's bytes (k8s.io/apimachinery, generated.proto); of the object
only the name and the labels matter here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from embedded.kubernetes.errors import bad_request

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def decode_namespace(content: bytes) -> dict[str, Any]:
    """Return the Namespace in an envelope.

    Raises:
        ApiError: 400 for anything else.
    """
    if not content.startswith(_MAGIC):
        raise bad_request("the request's body is not Kubernetes protobuf")
    try:
        unknown = _collect(content[len(_MAGIC) :])
        kind = _collect(unknown[1][0])
        api_version, name = kind[1][0].decode(), kind[2][0].decode()
        if (api_version, name) != ("v1", "Namespace"):
            raise bad_request(f"{api_version} {name} is not read from protobuf: send it as application/json")
        metadata = _collect(_collect(unknown[2][0])[1][0])
        body: dict[str, Any] = {"name": metadata[1][0].decode()}
        labels = [_collect(entry) for entry in metadata.get(11, [])]
        if labels:
            body["labels"] = {entry[1][0].decode(): entry.get(2, [b""])[0].decode() for entry in labels}
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise bad_request("the request's body is not a whole protobuf Namespace") from error
    return {"apiVersion": api_version, "kind": name, "metadata": body}


def _collect(message: bytes) -> dict[int, list[bytes]]:
    """Return the length-delimited fields of a message by number."""
    fields: dict[int, list[bytes]] = {}
    for number, value in _read_fields(message):
        fields.setdefault(number, []).append(value)
    return fields


def _read_fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, position = _read_varint(message, position)
            continue
        if wire == _BYTES:
            length, position = _read_varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise IndexError(f"wire type {wire}")
        if position + length > len(message):
            raise IndexError("the message ends early")
        if wire == _BYTES:
            yield number, message[position : position + length]
        position += length


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError("the number is too long")
