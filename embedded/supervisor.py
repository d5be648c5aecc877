"""Processes kept alive by supervisord, spoken to over its unix socket.

Programs come and go while it runs: each is one file in `supervisor/programs.d` that names a specification
(command, environment, directory; mode 0600) for `embedded.launch`. So no value meets supervisord's syntax.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from embedded import launch
from embedded.errors import EmbeddedError, StartError
from embedded.home import PLATFORM_VARIABLE, Home, write_private
from embedded.leftovers import is_alive

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,118}[a-z0-9])?")
_START_SECONDS = 10  # a program that ends sooner counts as failing and is retried with back-off
_LOG_BYTES = "10MB"
_LOG_BACKUPS = 2
_RPC_TIMEOUT = 15.0
# Variables of the caller's shell that would point a service at another platform, or make it start slowly.
_FOREIGN = ("TENURE_", "MLFLOW_", "KFP_", "KF_PIPELINES_", "SUPERVISOR_")
_UNWANTED = ("KUBECONFIG", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME")
_KEPT = ("TENURE_CODE_VERSION",)


class SupervisorError(EmbeddedError):
    """Supervisord is not running, or refused what was asked."""


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
_ENDED = frozenset({State.STOPPED, State.EXITED, State.FATAL, State.UNKNOWN})
_NOT_RUNNING = 70  # supervisor.xmlrpc.Faults.NOT_RUNNING
# Supervisord sends SIGKILL after a program's own stop_seconds; longer than this only a stuck kernel can take.
_STUCK_SECONDS = 300


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


class Supervisor:
    """The supervisord of one home. Holds no connection: use it from any thread and process."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._directory = home.supervisor_dir
        self._programs = self._directory / "programs.d"
        self._config = self._directory / "supervisord.conf"
        self._pid_file = self._directory / "supervisord.pid"
        self.log_file = home.log_file("supervisord")

    def launch(self) -> bool:
        """Start supervisord, without any program, unless it runs; return whether it was started.

        Raises:
            StartError: It did not come up.
        """
        if self.is_running():
            return False
        self._programs.mkdir(mode=0o700, exist_ok=True)
        for file in self._programs.iterdir():
            file.unlink()
        self._pid_file.unlink(missing_ok=True)
        write_private(self._config, self._render_config(self._home.ensure_socket_path()))
        # It goes to the background itself, once its socket listens.
        outcome = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config)],
            cwd=self._directory,
            env=self._make_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        if outcome.returncode != 0:
            raise StartError(f"supervisord did not start: {outcome.stdout.strip()}; see {self.log_file}")
        deadline = time.monotonic() + 10
        while not self.is_running():
            if time.monotonic() > deadline:
                raise StartError(f"supervisord started but does not answer; see {self.log_file}")
            time.sleep(0.02)
        return True

    def is_running(self) -> bool:
        """Return whether supervisord answers."""
        try:
            with self._connect() as server:
                return bool(server.supervisor.getState()["statename"] == "RUNNING")
        except SupervisorError:
            return False

    @property
    def pid(self) -> int | None:
        """Supervisord's process, if it answers."""
        try:
            with self._connect() as server:
                return int(server.supervisor.getPID())
        except SupervisorError:
            return None

    def shut_down(self, timeout: float = 30.0) -> None:
        """Stop every program and supervisord itself; nothing happens if it is not running.

        Raises:
            SupervisorError: It has not ended after `timeout` seconds.
        """
        pid = self.pid
        if pid is None:
            return
        process = psutil.Process(pid)
        with self._connect() as server:
            server.supervisor.shutdown()
        deadline = time.monotonic() + timeout
        while is_alive(process):
            if time.monotonic() > deadline:
                raise SupervisorError(
                    f"supervisord (pid {pid}) has not ended after {timeout:.0f} s; see {self.log_file}"
                )
            time.sleep(0.02)

    def start(self, program: Program) -> None:
        """Make `program` run as described: start it, restart it if its description changed, else leave it.

        Raises:
            SupervisorError: Supervisord is not running or refused it.
            EmbeddedError: The name is not one.
        """
        _check_name(program.name)
        with self._connect() as server:
            with self._home.lock("supervisor"):
                specification = self._write_program(program)
                changed = server.supervisor.reloadConfig()[0][1]
            state = self._find(server, program.name)
            if state is not None and program.name in changed:
                self._end(server, program.name)
                server.supervisor.removeProcessGroup(program.name)
                state = None
            if state is None:
                _starts_file(self._programs, program.name).unlink(missing_ok=True)
                server.supervisor.addProcessGroup(program.name)
            elif state not in {*ALIVE, State.BACKOFF}:
                self._end(server, program.name)
                server.supervisor.startProcess(program.name, False)
        for file in self._programs.glob(f"{program.name}@*.json"):
            if file != specification:
                file.unlink(missing_ok=True)

    def stop(self, name: str) -> None:
        """Stop the program and forget it; nothing happens if there is none of that name.

        Raises:
            SupervisorError: Supervisord is not running, or the program does not end.
        """
        _check_name(name)
        with self._connect() as server:
            if self._find(server, name) is not None:
                self._end(server, name)
                server.supervisor.removeProcessGroup(name)
            with self._home.lock("supervisor"):
                _config_file(self._programs, name).unlink(missing_ok=True)
                _starts_file(self._programs, name).unlink(missing_ok=True)
                for file in self._programs.glob(f"{name}@*.json"):
                    file.unlink(missing_ok=True)
                server.supervisor.reloadConfig()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the program's process (not to its children).

        Raises:
            SupervisorError: It is not running.
        """
        with self._connect() as server:
            server.supervisor.signalProcess(name, str(int(number)))

    def list(self) -> dict[str, ProgramState]:
        """Return every program's state by name.

        Raises:
            SupervisorError: Supervisord is not running.
        """
        with self._connect() as server:
            return {info["group"]: self._describe(info) for info in server.supervisor.getAllProcessInfo()}

    def _describe(self, info: Mapping[str, Any]) -> ProgramState:
        state = State(info["statename"].lower())
        try:
            starts = _starts_file(self._programs, info["group"]).stat().st_size
        except FileNotFoundError:
            starts = 0
        return ProgramState(
            name=info["group"],
            state=state,
            pid=info["pid"] or None,
            started_at=datetime.fromtimestamp(info["start"], UTC) if info["start"] else None,
            exit_code=info["exitstatus"]
            if state in {State.EXITED, State.STOPPED} and info["start"]
            else None,
            error=info["spawnerr"] or None,
            restarts=max(0, starts - 1),
        )

    @staticmethod
    def _find(server: Any, name: str) -> State | None:
        for info in server.supervisor.getAllProcessInfo():
            if info["group"] == name:
                return State(info["statename"].lower())
        return None

    @staticmethod
    def _end(server: Any, name: str) -> None:
        """Stop the process if it runs and wait for its end."""
        try:
            server.supervisor.stopProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _NOT_RUNNING:
                raise
        deadline = time.monotonic() + _STUCK_SECONDS
        while True:
            info = server.supervisor.getProcessInfo(name)
            if State(info["statename"].lower()) in _ENDED:
                return
            if time.monotonic() > deadline:
                raise SupervisorError(f"{name} (pid {info['pid']}) does not end, not even by SIGKILL")
            time.sleep(0.02)

    def _write_program(self, program: Program) -> Path:
        """Write the program's specification and its section; return the specification's path."""
        document = json.dumps(
            {
                "command": list(program.command),
                "environment": {**program.environment, PLATFORM_VARIABLE: self._home.state.id},
                "directory": str(program.directory.absolute()),
                "starts": str(_starts_file(self._programs, program.name)),
                "parent": str(self._pid_file),
            },
            sort_keys=True,
            indent=1,
        )
        # The digest in the file's name is how supervisord sees that a program has changed.
        digest = hashlib.sha256(document.encode()).hexdigest()[:16]
        specification = self._programs / f"{program.name}@{digest}.json"
        write_private(specification, document)
        command = shlex.join([sys.executable, "-I", "-S", launch.__file__, str(specification)])
        lines = {
            "command": _escape(command),
            "autostart": "true",
            "autorestart": "true" if program.restart else "false",
            # Without restarts every end is a plain exit; with them an early one waits before the next try.
            "startsecs": str(_START_SECONDS if program.restart else 0),
            "startretries": str(10**9 if program.restart else 0),
            "stopwaitsecs": str(program.stop_seconds),
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            # This one value supervisord expands twice.
            "stdout_logfile": _escape(_escape(str(self._home.log_file(program.name)))),
            "stdout_logfile_maxbytes": _LOG_BYTES,
            "stdout_logfile_backups": str(_LOG_BACKUPS),
        }
        write_private(
            _config_file(self._programs, program.name), _render_section(f"program:{program.name}", lines)
        )
        return specification

    def _render_config(self, socket: Path) -> str:
        sections = {
            "unix_http_server": {"file": _escape(str(socket)), "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            "supervisord": {
                "logfile": _escape(str(self.log_file)),
                "logfile_maxbytes": "1MB",
                "logfile_backups": "1",
                "pidfile": _escape(str(self._pid_file)),
                "childlogdir": _escape(str(self._home.logs)),
                "identifier": f"tenure-{self._home.state.id}",
                "umask": "077",
                "nocleanup": "true",
                "strip_ansi": "true",
                **({"user": "root"} if os.geteuid() == 0 else {}),
            },
            "include": {"files": "programs.d/*.conf"},
        }
        return "\n".join(_render_section(name, lines) for name, lines in sections.items())

    def _make_environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT or not (name.startswith(_FOREIGN) or name in _UNWANTED)
        }
        # Nothing of ours may take the way through a proxy.
        local = ",".join(filter(None, [kept.get("NO_PROXY") or kept.get("no_proxy"), "127.0.0.1,localhost"]))
        return {
            **kept,
            "NO_PROXY": local,
            "no_proxy": local,
            PLATFORM_VARIABLE: self._home.state.id,
        }

    @contextmanager
    def _connect(self) -> Iterator[Any]:
        """Yield an XML-RPC proxy; its errors become SupervisorError."""
        socket = self._home.state.socket
        if socket is None:
            raise SupervisorError(f"the platform at {self._home.path} is not running; run `tenure up`")
        # Here, not at the top: the package costs 0.1 s, which only callers of a live supervisord should pay.
        from supervisor.xmlrpc import SupervisorTransport, UnixStreamHTTPConnection

        def dial() -> Any:
            connection = UnixStreamHTTPConnection("localhost")
            connection.socketfile = str(socket)
            try:
                connection.connect()
            except OSError:
                connection.close()
                raise
            connection.sock.settimeout(_RPC_TIMEOUT)
            return connection

        transport = SupervisorTransport(None, None, f"unix://{socket}")
        transport._get_connection = dial
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
                yield server
        except (ConnectionError, FileNotFoundError, TimeoutError, http.client.HTTPException) as error:
            raise SupervisorError(
                f"supervisord of {self._home.path} does not answer ({error}); run `tenure up`, "
                f"or `tenure down` first if that fails too"
            ) from error
        except xmlrpc.client.ProtocolError as error:
            raise SupervisorError(
                f"supervisord failed: {error.errcode} {error.errmsg}; see {self.log_file}"
            ) from error
        except xmlrpc.client.Fault as fault:
            raise SupervisorError(f"supervisord refused: {fault.faultString}; see {self.log_file}") from fault


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise EmbeddedError(
            f"{name!r} is no name for a program: up to 120 lower-case letters, digits, dots and dashes, "
            "beginning and ending with a letter or digit"
        )


def _config_file(directory: Path, name: str) -> Path:
    return directory / f"{name}.conf"


def _starts_file(directory: Path, name: str) -> Path:
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
