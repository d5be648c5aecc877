"""A store that is slow, stalls or breaks off: a wait or an error that names it, and never half a model."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
from minio import Minio

from clients.errors import ClientError, UnreachableError
from clients.settings import Settings
from clients.store import Store
from embedded.reconciler.errors import ModelError
from embedded.reconciler.models import ModelCache

SIZE = 400_000
URI = "s3://tenure/slow/model"
CHUNK = 16_384


class Wire:
    """A way to a server that holds back what the server sends.

    Args:
        target: Host and port of the server.
        pause: Seconds before each chunk of 16 KiB.
        stall_after: So many bytes of a connection come through, then nothing more; None for all.
        cut: Close the connection then, instead of keeping it open in silence.
    """

    def __init__(
        self, target: tuple[str, int], pause: float = 0.0, stall_after: int | None = None, cut: bool = False
    ) -> None:
        self._target, self.pause, self.stall_after, self.cut = target, pause, stall_after, cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._listener.settimeout(0.1)
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            server = socket.create_connection(self._target)
            self._start(self._carry, client, server, False)
            self._start(self._carry, server, client, True)

    def _carry(self, source: socket.socket, sink: socket.socket, held_back: bool) -> None:
        passed = 0
        source.settimeout(0.1)
        with source:
            while not self._ended.is_set():
                try:
                    data = source.recv(CHUNK)
                except TimeoutError:
                    continue
                except OSError:
                    break
                if not data:
                    break
                if held_back:
                    self._ended.wait(self.pause)
                    if self.stall_after is not None and passed + len(data) > self.stall_after:
                        if self.cut:
                            break
                        self._ended.wait()
                try:
                    sink.sendall(data)
                except OSError:
                    break
                passed += len(data)
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()


@contextmanager
def open_wire(settings: Settings, **options: float | bool) -> Iterator[Wire]:
    host, _, port = settings.s3_url.removeprefix("http://").partition(":")
    wire = Wire((host, int(port)), **options)  # type: ignore[arg-type]
    try:
        yield wire
    finally:
        wire.close()


def make_client(settings: Settings, port: int, read_seconds: float) -> Minio:
    return Minio(
        f"127.0.0.1:{port}",
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=False,
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=2, read=read_seconds),
            retries=urllib3.Retry(1, backoff_factor=0.1),
        ),
    )


@pytest.fixture
def content(store: Store) -> bytes:
    data = bytes(range(256)) * (SIZE // 256)
    store.put_bytes(data, f"{URI}/model.bin")
    store.put_bytes(b"{}", f"{URI}/manifest.json")
    return data


def test_a_slow_store_is_waited_for(store_settings: Settings, content: bytes, tmp_path: Path) -> None:
    with open_wire(store_settings, pause=0.1) as wire:
        began = time.monotonic()
        cache = ModelCache(tmp_path, make_client(store_settings, wire.port, 10))
        folder = cache.fetch(URI)
        assert time.monotonic() - began > 0.1 * SIZE / CHUNK
        assert (folder / "model.bin").read_bytes() == content
        assert (folder / "manifest.json").read_bytes() == b"{}"


@pytest.mark.parametrize("cut", [False, True])
def test_a_store_that_breaks_off_leaves_no_half_model(
    store_settings: Settings, content: bytes, tmp_path: Path, cut: bool
) -> None:
    with open_wire(store_settings, stall_after=SIZE // 2, cut=cut) as wire:
        cache = ModelCache(tmp_path, make_client(store_settings, wire.port, 1))
        with pytest.raises(ModelError, match=f"{URI} cannot be fetched: the object store does not answer"):
            cache.fetch(URI)
        assert list(tmp_path.iterdir()) == []
        # The same once the store is itself again.
        wire.stall_after = None
        assert (cache.fetch(URI) / "model.bin").read_bytes() == content


@pytest.mark.parametrize("cut", [False, True])
def test_clients_of_a_store_that_breaks_off_keep_what_they_had(
    store_settings: Settings, content: bytes, tmp_path: Path, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = urllib3.Timeout
    monkeypatch.setattr(urllib3, "Timeout", lambda connect, read: real(connect=connect, read=1))
    file = tmp_path / "model.bin"
    file.write_bytes(b"what was there before")
    with open_wire(store_settings, stall_after=SIZE // 2, cut=cut) as wire:
        slow = store_settings.model_copy(update={"s3_url": f"http://127.0.0.1:{wire.port}"})
        with pytest.raises(ClientError) as error:
            Store.connect(slow).get_file(f"{URI}/model.bin", file)
        assert isinstance(error.value, UnreachableError)
        assert file.read_bytes() == b"what was there before"
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.bin"]
        wire.stall_after = None
        Store.connect(slow).get_file(f"{URI}/model.bin", file)
        assert file.read_bytes() == content
