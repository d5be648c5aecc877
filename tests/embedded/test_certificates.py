import shutil
import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from embedded import certificates
from embedded.certificates import ensure_certificates
from embedded.home import Home
from embedded.ports import LOOPBACK


def greet(server: Path, authority: Path, name: str) -> bytes:
    """Send one word from a TLS server to a client that trusts `authority` and expects `name`."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server)

        def serve() -> None:
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as stream:
                    stream.sendall(b"hello")
            except OSError:
                connection.close()  # the client refused

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            trusting = ssl.create_default_context(cafile=str(authority))
            with (
                socket.create_connection(listener.getsockname()) as connection,
                trusting.wrap_socket(connection, server_hostname=name) as stream,
            ):
                return stream.recv(5)
        finally:
            thread.join()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_client_that_trusts_the_authority_reaches_the_server(home: Home, name: str) -> None:
    made = ensure_certificates(home)
    assert greet(made.server, made.ca, name) == b"hello"


def test_the_authority_of_another_home_is_not_trusted(home: Home, tmp_path: Path) -> None:
    other = ensure_certificates(Home.open(tmp_path / "other", create=True))
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(ensure_certificates(home).server, other.ca, "127.0.0.1")


def test_files_are_the_owners_and_hold_no_authority_key(home: Home) -> None:
    made = ensure_certificates(home)
    assert {file.stat().st_mode & 0o777 for file in (made.ca, made.server)} == {0o600}
    assert "PRIVATE KEY" not in made.ca.read_text()


def test_certificates_are_kept(home: Home) -> None:
    before = [file.read_bytes() for file in (ensure_certificates(home).ca, ensure_certificates(home).server)]
    again = ensure_certificates(home)
    assert [again.ca.read_bytes(), again.server.read_bytes()] == before


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_unusable_certificates_are_made_anew(home: Home, tmp_path: Path, damage: str) -> None:
    made = ensure_certificates(home)
    if damage == "missing":
        made.ca.unlink()
    elif damage == "cut":
        made.server.write_text(made.server.read_text()[:500])
    else:
        shutil.copy(ensure_certificates(Home.open(tmp_path / "other", create=True)).ca, made.ca)
    again = ensure_certificates(home)
    assert greet(again.server, again.ca, "localhost") == b"hello"


def test_certificates_that_end_soon_are_renewed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ensure_certificates(home).ca.read_bytes()
    monkeypatch.setattr(certificates, "_RENEW_BEFORE", timedelta(days=365 * 2000))
    assert ensure_certificates(home).ca.read_bytes() != before
