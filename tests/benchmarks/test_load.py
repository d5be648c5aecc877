"""The load generator: it reads answers however they arrive, and takes no error for an answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n0\r\n\r\n01234\r\n0\r\n\r\n"
)

Drive = Callable[[list[bytes]], Any]


@contextlib.contextmanager
def answer(parts: list[bytes]) -> Iterator[int]:
    """Answer every request of one connection with these parts, each sent by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while connection.recv(len(REQUEST), socket.MSG_WAITALL):
                    for part in parts:
                        connection.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(10)


@pytest.fixture
def drive(load: ModuleType, tmp_path: Path) -> Drive:
    request = tmp_path / "request"
    request.write_bytes(REQUEST)

    def run(parts: list[bytes]) -> Any:
        with answer(parts) as port:
            return load.drive(load.Order("http", port, os.getpid(), str(request), 1, 0.05, 0.01))

    return run


@pytest.mark.parametrize("whole", [PLAIN, CHUNKED], ids=["plain", "chunked"])
@pytest.mark.parametrize("cut", [None, 9, 40, -3])
def test_answers_are_read_in_parts(drive: Drive, whole: bytes, cut: int | None) -> None:
    result = drive([whole[:cut], whole[cut:]] if cut else [whole])
    assert result.requests >= 1
    assert 0 < result.p50_ms <= result.p99_ms


def test_refusal_is_an_error(drive: Drive, load: ModuleType) -> None:
    with pytest.raises(load.LoadError, match="503 Busy"):
        drive([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"])


def test_closed_between_two_runs_is_an_error(load: ModuleType) -> None:
    """A server may close a connection on which nothing was sent for a while."""

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = await load.open_client("http", listener.getsockname()[1], REQUEST)
            connection, _ = listener.accept()
            connection.close()
            async with asyncio.timeout(10):
                while not client.closed:
                    await asyncio.sleep(0)
            await client.run(0, [])

    with pytest.raises(load.LoadError, match="closed"):
        asyncio.run(run())


def test_nobody_there_is_an_error(load: ModuleType, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(REQUEST)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(load.LoadError, match="no answer"):
        load.drive(load.Order("http", port, os.getpid(), str(request), 1, 0.05, 0.01))
