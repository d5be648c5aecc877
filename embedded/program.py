"""What a program is to supervisord, and what becomes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from embedded.errors import EmbeddedError

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,118}[a-z0-9])?")


class State(StrEnum):
    """State of a program."""

    STARTING = "starting"  # runs, for less than 10 s
    RUNNING = "running"
    BACKOFF = "backoff"  # ended too soon; is started again after a pause that grows by 1 s each time
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXITED = "exited"  # ended by itself and is not to be restarted
    FATAL = "fatal"  # could not be started and is not to be restarted
    UNKNOWN = "unknown"


ALIVE = frozenset({State.STARTING, State.RUNNING})


@dataclass(frozen=True)
class Program:
    """A process to keep alive.

    Attributes:
        name: Lower-case letters, digits, dots and dashes; also the log's name.
        command: The argument list. Put no secret into it: every user of the machine can read it.
        environment: Added to supervisord's own environment; the place for secrets.
        directory: Where it runs.
        restart: Start it again whenever it ends, with back-off when it ends within 10 s of its start.
        stop_seconds: From SIGTERM (to its process group) to SIGKILL.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    restart: bool = True
    stop_seconds: int = 10


@dataclass(frozen=True)
class ProgramState:
    """What supervisord knows of a program.

    Attributes:
        name: The program's name.
        state: Its state.
        pid: Its process, while there is one.
        started_at: Its last start (UTC).
        exit_code: Of the last end by itself, -1 for a signal; None if unknown or not ended.
        error: Why it could not be started or ended, if it did.
        restarts: Starts after the first one.
    """

    name: str
    state: State
    pid: int | None
    started_at: datetime | None
    exit_code: int | None
    error: str | None
    restarts: int


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a program and of its log.

    Raises:
        EmbeddedError: It is not one.
    """
    if not _NAME.fullmatch(name):
        raise EmbeddedError(
            f"{name!r} is no name for a program: up to 120 lower-case letters, digits, dots and dashes, "
            "beginning and ending with a letter or digit"
        )
