"""What supervisord reads: its own configuration, and for each program a section and a specification."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from embedded import launch
from embedded.errors import EmbeddedError
from embedded.home import PLATFORM_VARIABLE, Home, write_private
from embedded.program import Program

START_SECONDS = 10
"""A program that ends sooner counts as failing and is retried with back-off."""

_LOG_BYTES = "10MB"
_LOG_BACKUPS = 2


def programs_folder(home: Home) -> Path:
    """Return the folder of sections and specifications."""
    return home.supervisor_dir / "programs.d"


def pid_file(home: Home) -> Path:
    """Return the file that holds supervisord's pid."""
    return home.supervisor_dir / "supervisord.pid"


def write_program(home: Home, program: Program) -> Path:
    """Write a program's specification and its section; return the specification's path.

    Raises:
        EmbeddedError: A path cannot be written in supervisord's syntax.
    """
    programs = programs_folder(home)
    document = json.dumps(
        {
            "command": list(program.command),
            "environment": {**program.environment, PLATFORM_VARIABLE: home.state.id},
            "directory": str(program.directory.absolute()),
            "starts": str(starts_file(programs, program.name)),
            "parent": str(pid_file(home)),
        },
        sort_keys=True,
        indent=1,
    )
    # The digest in the file's name is how supervisord sees that a program has changed.
    digest = hashlib.sha256(document.encode()).hexdigest()[:16]
    specification = programs / f"{program.name}@{digest}.json"
    write_private(specification, document)
    command = shlex.join([sys.executable, "-I", "-S", launch.__file__, str(specification)])
    lines = {
        "command": _escape(command),
        "autostart": "true",
        "autorestart": "true" if program.restart else "false",
        # Without restarts every end is a plain exit; with them an early one waits before the next try.
        "startsecs": str(START_SECONDS if program.restart else 0),
        "startretries": str(10**9 if program.restart else 0),
        "stopwaitsecs": str(program.stop_seconds),
        "stopasgroup": "true",
        "killasgroup": "true",
        "redirect_stderr": "true",
        # This one value supervisord expands twice.
        "stdout_logfile": _escape(_escape(str(home.log_file(program.name)))),
        "stdout_logfile_maxbytes": _LOG_BYTES,
        "stdout_logfile_backups": str(_LOG_BACKUPS),
    }
    write_private(section_file(programs, program.name), _render_section(f"program:{program.name}", lines))
    return specification


def render_config(home: Home, socket: Path) -> str:
    """Return supervisord's own configuration: a private socket, one section file per program."""
    sections = {
        "unix_http_server": {"file": _escape(str(socket)), "chmod": "0700"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisord": {
            "logfile": _escape(str(home.log_file("supervisord"))),
            "logfile_maxbytes": "1MB",
            "logfile_backups": "1",
            "pidfile": _escape(str(pid_file(home))),
            "childlogdir": _escape(str(home.logs)),
            "identifier": f"tenure-{home.state.id}",
            "umask": "077",
            "nocleanup": "true",
            "strip_ansi": "true",
            **({"user": "root"} if os.geteuid() == 0 else {}),
        },
        "include": {"files": "programs.d/*.conf"},
    }
    return "\n".join(_render_section(name, lines) for name, lines in sections.items())


def section_file(directory: Path, name: str) -> Path:
    """Return the file that holds a program's section."""
    return directory / f"{name}.conf"


def starts_file(directory: Path, name: str) -> Path:
    """Return the file to which the launcher adds a byte at each start of a program."""
    return directory / f"{name}.starts"


def _render_section(name: str, lines: Mapping[str, str]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in lines.items()), ""])


def _escape(value: str) -> str:
    """Return `value` as supervisord's configuration wants it.

    Raises:
        EmbeddedError: It cannot be written there.
    """
    if re.search(r"\s[;#]|[\r\n]", value):
        raise EmbeddedError(
            f"the path {value!r} holds a line break, or a blank before ';' or '#', which supervisord reads "
            "as the start of a comment; move the checkout or set TENURE_HOME"
        )
    return value.replace("%", "%%")
