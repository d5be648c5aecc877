"""Canonical JSON: one document has one sequence of bytes, so that it can be hashed and compared."""

from __future__ import annotations

import json
from typing import Any


def dump_canonical(document: Any) -> bytes:
    """Write a document of plain JSON values: sorted keys, no blanks, UTF-8, shortest exact floats.

    Raises:
        ValueError: The document holds NaN or an infinity.
        TypeError: The document holds something that is not JSON.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def load_canonical(data: bytes) -> Any:
    """Read a document that `dump_canonical` wrote, and refuse any other spelling of it.

    Raises:
        ValueError: The bytes are not UTF-8, not JSON, nested too deeply, or not exactly what `dump_canonical`
            writes.
    """
    try:
        document = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if dump_canonical(document) != data:
        raise ValueError("is JSON, but not in its canonical form")
    return document
