"""A certificate authority of the platform's own, for TLS at loopback."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from embedded.home import Home, write_private

_RENEW_BEFORE = timedelta(days=30)
_NAMES = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Certificates:
    """Where the files are.

    Attributes:
        ca: The authority's certificate (PEM): what clients trust.
        server: The server's private key and certificate chain (PEM, one file, mode 0600).
    """

    ca: Path
    server: Path


def ensure_certificates(home: Home) -> Certificates:
    """Return the home's certificates; make new ones if there are none or they end within 30 days.

    The authority's own key is never written: nobody can sign another certificate with it.
    """
    certificates = Certificates(ca=home.tls_dir / "ca.pem", server=home.tls_dir / "server.pem")
    with home.lock("tls"):
        if not _are_usable(certificates):
            _issue(certificates)
    return certificates


def _are_usable(certificates: Certificates) -> bool:
    """Return whether the pair exists, belongs together and lasts for a while; by a handshake in memory."""
    try:
        client = ssl.create_default_context(cafile=str(certificates.ca))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificates.server)
        _shake_hands(client, server)
    except OSError:  # a missing file; ssl.SSLError is one too
        return False
    # Authority and server end on the same day, for they are made together.
    ends = [ssl.cert_time_to_seconds(str(entry["notAfter"])) for entry in client.get_ca_certs()]
    return min(ends) > (datetime.now(UTC) + _RENEW_BEFORE).timestamp()


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Run a TLS handshake between the two without a network.

    Raises:
        ssl.SSLError: The client does not trust the server.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=_NAMES[0]),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                continue


def _issue(certificates: Certificates) -> None:
    # Here, not at the top: certificates are in place most of the time, and cryptography is slow to import.
    import trustme

    authority = trustme.CA(organization_name="Tenure on this laptop")
    server = authority.issue_cert(*_NAMES)
    write_private(certificates.server, server.private_key_and_cert_chain_pem.bytes().decode("ascii"))
    write_private(certificates.ca, authority.cert_pem.bytes().decode("ascii"))
