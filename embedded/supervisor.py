"""Processes kept alive by supervisord, spoken to over its unix socket.

Programs come and go while it runs: each is one file in `supervisor/programs.d` that names a specification
(command, environment, directory; mode 0600) for `embedded.launch`. So no value meets supervisord's syntax.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import xmlrpc.client  # it only ever hears our own supervisord # nosec B411
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psutil

from embedded.configuration import (
    pid_file,
    programs_folder,
    render_config,
    section_file,
    starts_file,
    write_program,
)
from embedded.errors import EmbeddedError, StartError
from embedded.home import PLATFORM_VARIABLE, Home, write_private
from embedded.leftovers import is_alive
from embedded.program import ALIVE, Program, ProgramState, State, check_name

_RPC_TIMEOUT = 15.0
# Variables of the caller's shell that would point a service at another platform, or make it start slowly.
_FOREIGN = ("TENURE_", "MLFLOW_", "KFP_", "KF_PIPELINES_", "SUPERVISOR_")
_UNWANTED = ("KUBECONFIG", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME")
_KEPT = ("TENURE_CODE_VERSION",)


_ENDED = frozenset({State.STOPPED, State.EXITED, State.FATAL, State.UNKNOWN})
_NOT_RUNNING = 70  # supervisor.xmlrpc.Faults.NOT_RUNNING
# Supervisord sends SIGKILL after a program's own stop_seconds; longer than this only a stuck kernel can take.
_STUCK_SECONDS = 300


class SupervisorError(EmbeddedError):
    """Supervisord is not running, or refused what was asked."""


class Supervisor:
    """The supervisord of one home. Holds no connection: use it from any thread and process."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._directory = home.supervisor_dir
        self._programs = programs_folder(home)
        self._config = self._directory / "supervisord.conf"
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
        pid_file(self._home).unlink(missing_ok=True)
        write_private(self._config, render_config(self._home, self._home.ensure_socket_path()))
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

    def shut_down(self, timeout: float = _STUCK_SECONDS) -> None:
        """Stop every program and supervisord itself; nothing happens if it is not running.

        It takes one program after the other, and gives each its own `stop_seconds`.

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
        check_name(program.name)
        with self._connect() as server:
            with self._home.lock("supervisor"):
                specification = write_program(self._home, program)
                changed = server.supervisor.reloadConfig()[0][1]
            state = self._find(server, program.name)
            if state is not None and program.name in changed:
                self._end(server, program.name)
                server.supervisor.removeProcessGroup(program.name)
                state = None
            if state is None:
                starts_file(self._programs, program.name).unlink(missing_ok=True)
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
        check_name(name)
        with self._connect() as server:
            if self._find(server, name) is not None:
                self._end(server, name)
                server.supervisor.removeProcessGroup(name)
            with self._home.lock("supervisor"):
                section_file(self._programs, name).unlink(missing_ok=True)
                starts_file(self._programs, name).unlink(missing_ok=True)
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
            starts = starts_file(self._programs, info["group"]).stat().st_size
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
