"""What another user of this machine, or a page in a browser on it, gets from each port of the platform.

Every port is in one of two tables: those that ask who is there, and those that are open to all. A port in
neither of them, because something new listens, fails.
"""

from __future__ import annotations

import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from embedded.home import Home, is_private
from embedded.leftovers import find_leftovers

HOST = "127.0.0.1"


def ask(port: int, method: str, path: str, scheme: str = "http", **options: Any) -> httpx.Response:
    """Ask without any credential; a certificate is taken as it comes."""
    with httpx.Client(trust_env=False, verify=False, timeout=10) as client:  # noqa: S501 - a stranger
        return client.request(method, f"{scheme}://{HOST}:{port}{path}", **options)


def expect(status: int, *requests: tuple[str, str], scheme: str = "http") -> Callable[[int], None]:
    """Return a check: all these requests are answered with this status."""

    def check(port: int) -> None:
        for method, path in requests:
            answer = ask(port, method, path, scheme)
            assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text[:200]}"

    return check


def wants_a_certificate(port: int) -> None:
    """Check that neither plain nor encrypted requests get an answer, by HTTP and by gRPC."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = b"GET /col/list HTTP/1.1\r\nhost: x\r\n\r\n"
    with socket.create_connection((HOST, port), timeout=10) as plain:
        plain.sendall(request)
        assert not plain.recv(100).startswith(b"HTTP/1.1 2")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((HOST, port), timeout=10) as stream,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        greet(context, stream, request)
    with grpc.insecure_channel(f"{HOST}:{port}") as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/filer_pb.SeaweedFiler/Ping")(b"", timeout=5)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE


def greet(context: ssl.SSLContext, stream: socket.socket, request: bytes) -> None:
    """Ask over TLS; raise as soon as the other side says no, which with TLS 1.3 is after the handshake."""
    with context.wrap_socket(stream) as secured:
        secured.sendall(request)
        if not secured.recv(100):
            raise ConnectionAbortedError("closed without an answer")


UNLOAD = "/v2/repository/models/any/unload"
RUNS = "/apis/v2beta1/runs"
KUBERNETES = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
MLFLOW = "/api/2.0/mlflow/experiments/get?experiment_id=0"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/x"

CLOSED: dict[str, Callable[[int], None]] = {
    "api": expect(401, ("GET", "/apis"), ("GET", KUBERNETES), ("POST", KUBERNETES), scheme="https"),
    "runs": expect(401, ("GET", RUNS), ("POST", RUNS), ("GET", "/apis/v2beta1/healthz")),
    "s3": expect(
        403, ("GET", "/"), ("GET", "/tenure?list-type=2"), ("PUT", "/tenure/x"), ("DELETE", "/tenure")
    ),
    "s3_volume": expect(
        401,
        ("GET", "/1,01a2b3c4d5"),
        ("DELETE", "/1,01a2b3c4d5"),
        ("POST", "/1,01a2b3c4d5"),
        ("GET", "/metrics"),
    ),
    "s3_filer": expect(401, ("GET", "/buckets/"), ("PUT", "/buckets/x"), ("DELETE", "/buckets/tenure")),
    "s3_master": wants_a_certificate,
    "s3_master_grpc": wants_a_certificate,
    "s3_volume_grpc": wants_a_certificate,
    "s3_filer_grpc": wants_a_certificate,
    "s3_grpc": wants_a_certificate,
    "detector": expect(
        401,
        *(("POST", path) for path in ("/events", "/events/x/1", "/labels", "/transitions", "/notifications")),
    ),
    "tracking": expect(401, ("GET", "/"), ("GET", MLFLOW), ("GET", ARTIFACTS), ("PUT", ARTIFACTS)),
}
"""Those that know their owner: by token, key, password or certificate."""


def check_model_server(port: int) -> None:
    """Check that it predicts, and that its model cannot be taken away; gRPC's port says the same."""
    (name,) = ask(port, "GET", "/v2/models").json()["models"]
    assert ask(port, "POST", f"/v2/repository/models/{name}/unload").status_code == 403
    assert ask(port, "GET", f"/v2/models/{name}/ready").status_code == 200


def check_console(port: int) -> None:
    """Check that it only reads, and only under its own names."""
    assert ask(port, "GET", "/").status_code == 200
    expect(405, ("POST", "/"), ("DELETE", "/"))(port)
    assert ask(port, "GET", "/", headers={"host": "example.com"}).status_code == 421


OPEN: dict[str, Callable[[int], None]] = {
    "gateway": expect(403, ("POST", UNLOAD)),
    "envoy_admin": expect(
        403, ("POST", "/quitquitquit"), ("POST", "/reset_counters"), ("GET", "/config_dump")
    ),
    "pilot": expect(501, ("POST", "/"), ("PUT", "/healthz"), ("DELETE", "/metrics")),
    "console": check_console,
}
"""Those that have no login, and what they must not do for a stranger all the same (SECURITY.md)."""


@pytest.fixture
def listeners(stage: Any) -> dict[int, psutil.Process]:
    """Whose process listens, by port, while a stable model and a canary serve."""
    stage.set_up(percent=50)
    mine = {process.pid: process for process in find_leftovers(Home.open(stage.home).state.id)}
    return {
        connection.laddr.port: mine[connection.pid]
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid in mine
    }


def test_every_port_is_known_and_keeps_to_its_table(stage: Any, listeners: dict[int, psutil.Process]) -> None:
    assert not CLOSED.keys() & OPEN.keys()
    ports = Home.open(stage.home).state.ports.model_dump()
    assert CLOSED.keys() | OPEN.keys() == ports.keys()
    assert set(ports.values()) <= listeners.keys()
    for name, check in {**CLOSED, **OPEN}.items():
        try:
            check(ports[name])
        except AssertionError as error:
            raise AssertionError(f"the port {name}: {error}") from error

    rest = {port: process for port, process in listeners.items() if port not in ports.values()}
    servers = {stage.find_pid(), stage.find_pid(stage.canary)}
    assert {process.pid for process in rest.values()} == servers, "only model servers have ports besides"
    spoken = {port for port in rest if speaks_http(port)}
    assert (len(spoken), len(rest)) == (2, 4)
    for port in spoken:
        check_model_server(port)


def speaks_http(port: int) -> bool:
    try:
        return ask(port, "GET", "/v2/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_a_stranger_is_told_apart_from_the_owner(stage: Any, listeners: dict[int, psutil.Process]) -> None:
    """The same requests with what the owner has: the refusals are not those of a door that is bricked up."""
    home = Home.open(stage.home)
    ports, tls = home.state.ports, home.tls_dir
    assert stage.services.inference.find(stage.name) is not None
    assert stage.store.list(f"s3://{stage.settings.s3_bucket}/bundles/")
    login = ("tenure", home.secrets.tracking_password.get_secret_value())
    assert httpx.get(f"http://{HOST}:{ports.tracking}{MLFLOW}", auth=login, trust_env=False).is_success
    token = {"authorization": f"Bearer {home.secrets.runs_token.get_secret_value()}"}
    assert httpx.get(f"http://{HOST}:{ports.runs}{RUNS}", headers=token, trust_env=False).is_success
    token = {"authorization": f"Bearer {home.secrets.detector_token.get_secret_value()}"}
    url = f"http://{HOST}:{ports.detector}/labels"
    assert httpx.post(url, json=[], headers=token, trust_env=False).is_success
    token["origin"] = "https://example.com"
    assert httpx.post(url, json=[], headers=token, trust_env=False).status_code == 403
    context = ssl.create_default_context(cafile=str(tls / "ca.pem"))
    context.load_cert_chain(tls / "server.pem")
    with httpx.Client(verify=context, trust_env=False) as client:
        assert client.get(f"https://{HOST}:{ports.s3_master}/dir/status").is_success


def test_sockets_and_files_are_the_owners(stage: Any, listeners: dict[int, psutil.Process]) -> None:
    home = Home.open(stage.home)
    assert is_private(home.path)
    for name in ("secrets.json", "env", "kubeconfig", "tls/server.pem", "tls/ca.pem", "s3/identities.json"):
        mode = stat.S_IMODE((home.path / name).stat().st_mode)
        assert mode == 0o600, f"{name}: {mode:o}"
    mine = {process.pid for process in find_leftovers(home.state.id)}
    paths = {
        Path(connection.laddr)
        for connection in psutil.net_connections("unix")
        if connection.pid in mine and connection.laddr and not connection.laddr.startswith("@")
    }
    assert home.state.socket is not None
    # The supervisor binds its socket under another name, which the kernel goes on showing.
    sockets = {home.state.socket, *(path for path in paths if path.is_socket())}
    assert len(sockets) > 1
    for path in sockets:
        closed = is_private(path.parent) or not stat.S_IMODE(path.stat().st_mode) & 0o077
        assert closed, f"{path} may be used by others"
    udp = [connection.laddr for connection in psutil.net_connections("udp") if connection.pid in mine]
    assert udp == []
