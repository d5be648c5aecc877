"""`python -m serving.detector`: migrate the ledger, take in events, watch; drain on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn
import uvloop
from prometheus_client import disable_created_metrics
from sqlalchemy import false, update

from clients.errors import ClientError
from clients.ledger.engine import open_engine
from clients.ledger.schema import exports
from clients.settings import find_env_file
from clients.store import Store
from serving.detector.errors import DetectorError
from serving.detector.housekeeping import Housekeeper
from serving.detector.metrics import Metrics
from serving.detector.migration import migrate
from serving.detector.server import Application, Limits
from serving.detector.settings import Settings, read_settings
from serving.detector.sink import Sink
from serving.detector.watcher import Watcher
from serving.detector.writer import Writer

_STOP_SECONDS = 10

_log = logging.getLogger("serving.detector")


class _StartError(DetectorError):
    """The server cannot start."""


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers: the signals stop the threads too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Threads:
    """What runs beside the server until the end. If one fails, the process ends, to be started anew."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.failed = False

    def start(self, name: str, run: Callable[[threading.Event], object]) -> None:
        """Start one; `run` returns soon after the event is set."""
        thread = threading.Thread(target=self._guard, args=(run,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Tell all to stop, and wait a while: whatever they do may be cut off at any moment."""
        self._stop.set()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def fail(self) -> None:
        """Remember that one has failed, and end as if told to."""
        self.failed = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _guard(self, run: Callable[[threading.Event], object]) -> None:
        try:
            run(self._stop)
        except BaseException:
            self.fail()
            raise


async def _serve(application: Application, sock: socket.socket, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in flight."""
    server = _Uvicorn(
        uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            backlog=2048,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=settings.grace_seconds,
        )
    )
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[sock])


def _open_socket(settings: Settings) -> socket.socket:
    host, port = settings.detector_host, settings.detector_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise _StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def _run(settings: Settings) -> bool:
    """Run until the end; whether it was a good one."""
    engine = open_engine(settings.ledger_url.get_secret_value())
    migrate(engine)
    writer, metrics, threads = Writer(engine), Metrics(), _Threads()
    sink = Sink(writer, metrics, items=settings.queue_items, size=settings.queue_bytes, on_death=threads.fail)
    watcher = Watcher.connect(settings, engine, writer, metrics)
    housekeeper = Housekeeper(settings, engine, writer, Store.connect(settings), count_lost=metrics.lost.inc)

    def check() -> None:
        with writer.begin() as connection:
            connection.execute(update(exports).where(false()).values(rows=0))

    limits = Limits(settings.max_body_bytes, settings.id_tensor)
    application = Application(
        sink, metrics, watcher, check, limits, settings.detector_token, open_events=settings.open_events
    )
    sock = _open_socket(settings)
    sink.start()
    threads.start("watcher", watcher.run)
    threads.start("housekeeper", housekeeper.run)
    _log.info("the detector listens on %s:%d", settings.detector_host, settings.detector_port)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(application, sock, settings))
    finally:
        sink.close()
        threads.join()
        engine.dispose()
    return not threads.failed


def main() -> int:
    """Run until SIGTERM or SIGINT; 1 if it cannot start, or has failed."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("serving.detector").setLevel(logging.INFO)
    logging.getLogger("tenure.detector").setLevel(logging.INFO)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # time stamps that nobody reads
    try:
        ended_well = _run(read_settings(find_env_file()))
    except (ClientError, DetectorError) as error:
        print(f"detector: {error}", file=sys.stderr)  # noqa: T201 - one line for whoever started it
        return 1
    return 0 if ended_well else 1


if __name__ == "__main__":
    sys.exit(main())
