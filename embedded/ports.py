"""Free TCP ports on loopback."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from embedded.errors import EmbeddedError

LOOPBACK = "127.0.0.1"
_LOWEST = 20_000
_TRIES = 200
_handed_out: set[int] = set()


def is_port_free(port: int) -> bool:
    """Return whether a server could listen on `port` at loopback now.

    Remains of closed connections (TIME_WAIT) do not count, as servers bind with SO_REUSEADDR too.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def is_port_open(port: int, timeout: float = 0.5) -> bool:
    """Return whether something accepts connections on `port` at loopback within `timeout` seconds."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout):
            return True
    except OSError:
        return False


def find_free_port() -> int:
    """Return a TCP port that is free at loopback, each time another one.

    It lies below the kernel's ephemeral range where possible: no outgoing connection of anyone can take it
    between this call and the server's start.

    Raises:
        EmbeddedError: No free port was found.
    """
    highest = _read_ephemeral_start() - 1
    if highest - _LOWEST < 1000:
        return _ask_kernel()
    for _ in range(_TRIES):
        port = random.randint(_LOWEST, highest)  # noqa: S311 - spreads parallel callers, guards nothing # nosec B311
        if port not in _handed_out and is_port_free(port):
            _handed_out.add(port)
            return port
    raise EmbeddedError(
        f"no free TCP port found between {_LOWEST} and {highest} in {_TRIES} tries; "
        "end some of the servers on this machine"
    )


def _read_ephemeral_start() -> int:
    """Return the first port that the kernel gives to outgoing connections."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _ask_kernel() -> int:
    """Return a free port of the kernel's choice."""
    for _ in range(_TRIES):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in _handed_out:
            _handed_out.add(port)
            return port
    raise EmbeddedError("the kernel offers no free TCP port; end some of the servers on this machine")
