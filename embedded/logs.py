"""Reading the services' logs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from embedded.errors import EmbeddedError
from embedded.home import Home

_BLOCK = 64 * 1024


def find_log(home: Home, name: str) -> Path:
    """Return the log of the service or model server `name`.

    Raises:
        EmbeddedError: There is none; the text lists those that there are.
    """
    known = sorted(file.stem for file in home.logs.glob("*.log"))
    if name not in known:
        listed = ", ".join(known) or "none yet: run `tenure up`"
        raise EmbeddedError(f"there is no log called {name!r} in {home.logs}; there are: {listed}")
    return home.log_file(name)


def read_tail(file: Path, lines: int) -> list[str]:
    """Return the last `lines` lines of `file` without their ends; none if it does not exist."""
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            text = b""
            # One line end more than asked for: the first line read may be cut.
            while size > 0 and text.count(b"\n") <= lines:
                size = max(0, size - _BLOCK)
                stream.seek(size)
                text = stream.read(_BLOCK + len(text))
    except FileNotFoundError:
        return []
    return text.decode("utf-8", "replace").splitlines()[-lines:] if lines > 0 else []


def follow(file: Path, poll_seconds: float = 0.2) -> Iterator[str]:
    """Yield the text that is appended to `file` from now on, over its rotation; ends only with the caller."""
    stream = file.open("rb")
    try:
        stream.seek(0, os.SEEK_END)
        while True:
            block = stream.read(_BLOCK)
            if block:
                yield block.decode("utf-8", "replace")
                continue
            try:
                status = file.stat()
            except FileNotFoundError:
                status = None  # between the two renames of a rotation
            if status is not None and (
                status.st_ino != os.fstat(stream.fileno()).st_ino or status.st_size < stream.tell()
            ):
                # What was added to the old file between the last look and its rotation.
                rest = stream.read()
                stream.close()
                stream = file.open("rb")
                if rest:
                    yield rest.decode("utf-8", "replace")
                continue
            time.sleep(poll_seconds)
    finally:
        stream.close()
