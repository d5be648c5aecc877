"""Several workers on the same ports: processes that each load the model, kept by one that does nothing else.

The kernel spreads connections over them (SO_REUSEPORT). None listens before all are ready; one that dies is
replaced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from serving.predictor.counters import Counters
from serving.predictor.errors import StartError
from serving.predictor.settings import Settings

_PAUSE = 1.0  # seconds between two starts of the same worker

_log = logging.getLogger("serving.predictor")


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker has of the process that keeps it.

    Attributes:
        counters: What all count together.
        ready: Where to say that the model is loaded.
        go: What says when to listen; its end is the end of the keeping process.
    """

    counters: Counters
    ready: int
    go: int

    def wait(self) -> bool:
        """Say that the model is loaded and wait until all are; False if the keeping process has gone."""
        os.write(self.ready, b"r")
        return os.read(self.go, 1) != b""


Serve = Callable[[Settings, Worker], int]
"""Loads the model and serves until SIGTERM; returns the exit code."""


@dataclass(slots=True)
class _Child:
    """A running worker, as the keeping process sees it."""

    number: int
    pid: int
    ready: int
    go: int
    is_ready: bool = False


class Keeper:
    """Starts the workers, replaces those that die, and ends them all on SIGTERM or SIGINT.

    Args:
        settings: With the number of workers.
        serve: What each does.

    Raises:
        StartError: A port is taken, or an address is not one of this machine.
    """

    def __init__(self, settings: Settings, serve: Serve) -> None:
        self._settings = settings
        self._serve = serve
        self._sockets = [
            _reserve(settings.http_host, settings.http_port, "REST"),
            _reserve(settings.grpc_host, settings.grpc_port, "gRPC"),
        ]
        self._counters = Counters(settings.workers)
        self._children: dict[int, _Child] = {}
        self._due: dict[int, float] = {}  # worker -> when it is started again
        self._began: dict[int, float] = {}
        self._opened = self._stopping = False
        self._failed = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Keep the workers until a signal ends them; returns the exit code."""
        heard, told = socket.socketpair()
        told.setblocking(False)
        heard.setblocking(False)
        signal.set_wakeup_fd(told.fileno())
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(name, _ignore)
        self._selector.register(heard, selectors.EVENT_READ)
        for number in range(self._settings.workers):
            self._start(number)
        while self._children or (self._due and not self._stopping):
            pause = min(self._due.values(), default=None)
            timeout = None if pause is None or self._stopping else max(pause - time.monotonic(), 0)
            for key, _ in self._selector.select(timeout):
                if key.fileobj is heard:
                    self._handle(heard.recv(1024))
                else:
                    self._note_ready(key.data)
            for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
                if not self._stopping:
                    self._start(number)
        return 1 if self._failed else 0

    def _start(self, number: int) -> None:
        """Fork a worker. This process has one thread and has imported little, so that is safe and cheap."""
        self._due.pop(number, None)
        self._began[number] = time.monotonic()
        ready, tells_ready = os.pipe()
        waits, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = self._become(number, Worker(self._counters, tells_ready, waits), (ready, go))
            finally:
                os._exit(code)
        os.close(tells_ready)
        os.close(waits)
        child = _Child(number, pid, ready, go)
        self._children[pid] = child
        self._selector.register(ready, selectors.EVENT_READ, child)

    def _become(self, number: int, worker: Worker, others: tuple[int, int]) -> int:
        """Be the worker."""
        signal.set_wakeup_fd(-1)
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(name, signal.SIG_DFL)
        os.setpgid(0, 0)  # Ctrl-C is for the keeping process, which tells all
        self._selector.close()
        for end in others:
            os.close(end)
        for child in self._children.values():
            os.close(child.ready)
            os.close(child.go)
        for sock in self._sockets:
            sock.close()
        self._counters.take(number)
        return self._serve(self._settings, worker)

    def _handle(self, numbers: bytes) -> None:
        """Act on signals."""
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._bury(self._children.pop(pid), status)

    def _stop(self) -> None:
        self._stopping = True
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)

    def _bury(self, child: _Child, status: int) -> None:
        """Act on a worker's end."""
        if child.ready in self._selector.get_map():
            self._selector.unregister(child.ready)
        os.close(child.ready)
        os.close(child.go)
        code = os.waitstatus_to_exitcode(status)
        if self._stopping:
            self._failed = self._failed or code not in (0, -signal.SIGTERM)
            return
        if not self._opened:
            self._failed = True  # it has said why
            self._stop()
            return
        _log.warning("worker %d has ended (%d) and is started again", child.number, code)
        self._due[child.number] = max(time.monotonic(), self._began[child.number] + _PAUSE)

    def _note_ready(self, child: _Child) -> None:
        """Let a worker listen, the first ones all at once."""
        self._selector.unregister(child.ready)
        if os.read(child.ready, 1) != b"r":
            return  # it has ended
        child.is_ready = True
        if not self._opened and all(other.is_ready for other in self._children.values()):
            self._opened = True
            for other in self._children.values():
                os.write(other.go, b"g")
        elif self._opened:
            os.write(child.go, b"g")


def _ignore(number: int, frame: object) -> None:
    """Leave a signal to the wake-up socket."""


def _reserve(host: str, port: int, name: str) -> socket.socket:
    """Return a socket that keeps the port for the workers, and never listens.

    Raises:
        StartError: Somebody listens there already.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        with socket.socket(family) as probe:  # it does not share
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise StartError(f"{name} cannot listen on {host}:{port}: {error.strerror or error}") from error
    return sock
