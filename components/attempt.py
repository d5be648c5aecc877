"""How a failed attempt at a step ends: whether another one may help."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from clients.errors import NotFoundError, RefusedError, SettingsError
from tenure.errors import TenureError

FINAL = 65
"""Exit code of a step that would fail in the same way again (EX_DATAERR of sysexits.h).

Every other failure, and a step that is killed, is worth another attempt: an address was silent, somebody else
was faster, the node went away. The laptop's runner gives up at this code; Kubeflow Pipelines has no way to
be told, and makes the attempts all the same."""


@contextmanager
def attempt() -> Iterator[None]:
    """Leave with the exit code `FINAL` after an error that would come again; others pass through."""
    try:
        yield
    except (TenureError, SettingsError, RefusedError, NotFoundError) as error:
        # As Python itself would end a program; who reads the log finds the same.
        sys.stdout.flush()
        traceback.print_exception(error)
        raise SystemExit(FINAL) from error
