"""The API's socket: TLS on loopback, watches ended before the server is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from embedded.ports import LOOPBACK


class Listener(uvicorn.Server):
    """Serves an application made by `make_app`.

    Args:
        app: The application.
        port: On loopback.
        certificate: PEM file with the private key and the certificate chain.
        on_started: Called once it listens.
    """

    def __init__(
        self, app: Starlette, port: int, certificate: Path, on_started: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=LOOPBACK,
                port=port,
                ssl_certfile=certificate,
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )
        self._on_started = on_started
        self._stopping: asyncio.Event = app.state.stopping
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; remembers the loop, so that other threads may ask for the end."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End on SIGINT and SIGTERM; open watches end with their last event whole."""
        self.end()
        super().handle_exit(sig, frame)

    def end(self) -> None:
        """Ask the server to end, from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self.should_exit = True
