"""Exceptions of the command line, and the exit code that each kind of problem has."""

from __future__ import annotations

from clients.errors import (
    ClientError,
    ConflictError,
    NotFoundError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from tenure.errors import TenureError

FAILED = 1
BAD_INPUT = 3
NOT_RUNNING = 4
REFUSED = 5


class ConsoleError(Exception):
    """A problem to be told in one or a few lines.

    Attributes:
        code: The process's exit code.
    """

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def find_exit_code(error: Exception) -> int:
    """Return the exit code of an error of any room."""
    if isinstance(error, ConsoleError):
        return error.code
    if isinstance(error, UnreachableError | SettingsError):
        return NOT_RUNNING
    if isinstance(error, RefusedError | ConflictError):
        return REFUSED
    if isinstance(error, TenureError | NotFoundError):
        return BAD_INPUT
    if isinstance(error, ClientError):
        return FAILED
    raise error
