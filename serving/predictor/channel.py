"""One HTTP connection to the sink of events."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlsplit

from serving.predictor.errors import StartError

_TIMEOUT = 10.0


class Channel:
    """A connection that is opened when it is needed, and kept. Used by one thread.

    Args:
        url: Where batches are posted.
        token: What the sink asks for from those who post, if it does.

    Raises:
        StartError: The address is not one of HTTP.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise StartError(f"TENURE_LOGGER_URL is {url!r}, expected http://HOST:PORT/PATH")
        self.address = f"{parts.scheme}://{parts.hostname}:{port or ''}"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._headers = {"Content-Type": "application/cloudevents-batch+json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection = kind(parts.hostname, port, timeout=_TIMEOUT)

    def post(self, body: bytes, deadline: float) -> int:
        """Post a batch; returns the status, and raises OSError or HTTPException without one."""
        connection = self._connection
        connection.timeout = max(min(_TIMEOUT, deadline - time.monotonic()), 0.1)
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        try:
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        return response.status

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
