"""Health and metrics over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import REGISTRY, CollectorRegistry

ALIVE_SECONDS = 60.0
"""A loop that has not ended a pass for so long is stuck."""

READY_SECONDS = 15.0
"""The pilot works if a pass succeeded so recently."""


class Health:
    """When the loop last ended a pass, and when one last succeeded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended = clock()
        self._succeeded: float | None = None

    def note(self, succeeded: bool) -> None:
        """Note the end of a pass."""
        self._ended = self._clock()
        if succeeded:
            self._succeeded = self._ended

    @property
    def alive(self) -> bool:
        """Whether the loop goes round."""
        return self._clock() - self._ended < ALIVE_SECONDS

    @property
    def ready(self) -> bool:
        """Whether the pilot reaches the InferenceServices."""
        return self._succeeded is not None and self._clock() - self._succeeded < READY_SECONDS


@contextmanager
def serve(
    host: str, port: int, health: Health, registry: CollectorRegistry = REGISTRY
) -> Iterator[tuple[str, int]]:
    """Serve `/healthz`, `/readyz` and `/metrics` while the block runs; yields where.

    Raises:
        OSError: The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif path in ("/healthz", "/readyz"):
                good = health.alive if path == "/healthz" else health.ready
                body = json.dumps({"status": "ok" if good else "failing"}).encode()
                self._answer(200 if good else 503, body, "application/json")
            else:
                body = json.dumps({"error": "there are /healthz, /readyz and /metrics"}).encode()
                self._answer(404, body, "application/json")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing: probes come every second."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    try:
        yield (host, int(server.server_address[1]))
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
