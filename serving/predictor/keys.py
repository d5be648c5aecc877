"""What is wrong in JSON beyond its grammar: keys that are there twice, and numbers that are none.

msgspec keeps the last of two equal keys, as most parsers do; then a proxy, a log and the model may each read
something else in one request (RFC 8259, section 4).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from serving.predictor.conversion import shorten
from serving.predictor.errors import RequestError

_LONGEST_EXPLAINED = 1024 * 1024  # a longer body that is broken gets a shorter explanation


class NotNumber(str):
    """What stands in the place of a number and is none in JSON: NaN, Infinity, 1e999."""

    __slots__ = ()


class _DoubledKey(Exception):  # noqa: N818 - never leaves this module
    """A key that is there twice, and the name that its object gives itself."""

    def __init__(self, key: str, owner: object) -> None:
        super().__init__(key)
        self.key = key
        self.owner = owner


def check_keys(text: bytes, pairs: int) -> None:
    """Refuse JSON in which an object has a key twice, or in which what msgspec passed over is no JSON.

    Every key is followed by a colon. So if there are as many colons as the parsed document has keys, none was
    lost, and that is all that most requests cost. Colons in strings, keys that the protocol does not know and
    keys of null make more of them; only then the text is parsed again. msgspec looks into what it passes over
    without decoding its strings: bytes that are not UTF-8 are found here.

    Args:
        text: JSON that msgspec parsed without an error.
        pairs: How many keys the parsed document has, in all of its objects.

    Raises:
        RequestError: Names the key, and the tensor if it is one's; or says what is no JSON.
    """
    if text.count(b":") == pairs:
        return
    try:
        _checking.decode(text.decode())
    except _DoubledKey as doubled:
        key, owner = doubled.key, doubled.owner
        where = owner if isinstance(owner, str) and key != "name" else key
        raise RequestError(
            f"{shorten(where)}: the key {shorten(key)!r} is there twice in one object, expected once"
        ) from None
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    except RecursionError:
        raise RequestError("the body is nested too deeply, expected at most a few levels") from None


def parse_leniently(text: bytes) -> Any:
    """Parse JSON that another parser has refused, to say what is wrong with it; None if that fails, too.

    Numbers that are none become `NotNumber`. Whole numbers become 0: long ones would cost much.
    """
    if len(text) > _LONGEST_EXPLAINED:
        return None
    try:
        return _lenient.decode(text.decode())
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None


def find_not_number(values: object) -> tuple[int, NotNumber] | None:
    """Return the first row of a column, parsed leniently, that holds no number, and what it holds."""
    if isinstance(values, list):
        for row, value in enumerate(values):
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if isinstance(value, NotNumber):
                return row, value
    return None


def explain_not_number(name: str, row: int, value: NotNumber) -> RequestError:
    """Return the error that says so."""
    return RequestError(
        f"{shorten(name)}: row {row}: {shorten(value)} is not a number in JSON, expected a finite number "
        "(null if it is not known)"
    )


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs, none of which may be there twice."""
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DoubledKey(key, document.get("name"))
            seen.add(key)
    return document


def _read_constant(text: str) -> NotNumber:
    return NotNumber(text)


def _read_float(text: str) -> float | NotNumber:
    number = float(text)
    return number if math.isfinite(number) else NotNumber(text)


def _skip_number(text: str) -> int:
    return 0


_checking = json.JSONDecoder(object_pairs_hook=_read_object, parse_int=_skip_number, parse_float=_skip_number)
_lenient = json.JSONDecoder(parse_int=_skip_number, parse_float=_read_float, parse_constant=_read_constant)


def count_pairs(document: Mapping[str, Any]) -> int:
    """Return how many keys an object has, and those of the objects in it that a V1 request may have."""
    pairs = len(document)
    for value in document.values():
        if isinstance(value, dict):
            pairs += len(value)
        elif isinstance(value, list):
            pairs += sum([len(item) for item in value if isinstance(item, dict)])
    return pairs
