"""Whether a service answers. A probe returns quickly, never raises, and says what is wrong."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable
from pathlib import Path

from embedded.ports import LOOPBACK

_TIMEOUT = 2.0

Probe = Callable[[], str | None]
"""Returns None when the service is ready, else what is wrong in a few words."""


def make_http_probe(port: int, path: str, token: str | None = None, authority: Path | None = None) -> Probe:
    """Return a probe that GETs `path` at loopback and wants status 200.

    Args:
        port: Where the service listens.
        path: What to ask for.
        token: Bearer token to send.
        authority: The certificate authority (PEM) to trust; with it the probe speaks TLS.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    def probe() -> str | None:
        if authority is None:
            connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT)
        else:
            context = ssl.create_default_context(cafile=str(authority))
            connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=_TIMEOUT, context=context)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read(300).decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer at port {port} ({error})"
        finally:
            connection.close()
        if response.status == 200:
            return None
        return f"port {port} answers {path} with {response.status} {body}".strip()

    return probe
