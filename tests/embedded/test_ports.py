import socket

import pytest

from embedded import ports
from embedded.ports import LOOPBACK, find_free_port, is_port_free, is_port_open


def test_free_ports_differ_and_can_be_bound() -> None:
    found = [find_free_port() for _ in range(50)]
    assert len(set(found)) == 50
    assert all(is_port_free(port) for port in found)


@pytest.mark.parametrize("address", [LOOPBACK, "0.0.0.0"])  # noqa: S104 - the case under test
def test_a_listening_server_takes_its_port(address: str) -> None:
    port = find_free_port()
    assert not is_port_open(port)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        assert not is_port_free(port)
        assert is_port_open(port)
    assert is_port_free(port)


def test_a_connection_that_lingers_does_not_take_the_port() -> None:
    port = find_free_port()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOOPBACK, port))
        server.listen()
        with socket.create_connection((LOOPBACK, port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # the server ends first: TIME_WAIT stays on its side
            assert client.recv(1) == b""
    assert is_port_free(port)


def test_without_room_below_the_ephemeral_range_the_kernel_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_read_ephemeral_start", lambda: 1024)
    assert is_port_free(find_free_port())
