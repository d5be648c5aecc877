"""The real services: their names and stages, the store's key and address, the tracking server's."""

import base64
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from embedded.certificates import Certificates, ensure_certificates
from embedded.home import Home
from embedded.ports import LOOPBACK
from embedded.probes import make_http_probe
from embedded.program import Program
from embedded.services import (
    CHECKOUT,
    DETECTOR_PYTHON,
    MODEL_STAGE,
    ensure_bucket,
    find_detector_python,
    make_services,
)
from embedded.storage import make_store, write_identities
from embedded.supervisor import Supervisor
from embedded.tracking import make_tracking

Wait = Callable[..., None]


def test_names_ports_and_stages_of_the_real_services(home: Home) -> None:
    services = make_services(home, Certificates(home.tls_dir / "ca.pem", home.tls_dir / "server.pem"))
    names = [service.name for service in services]
    assert sorted(names) == [
        "console",
        "detector",
        "gateway",
        "kubernetes",
        "pilot",
        "runs",
        "store",
        "tracking",
    ]
    by_name = {service.name: service for service in services}
    stages = [by_name[name].stage for name in ("pilot", "runs", "kubernetes", "gateway", "store")]
    assert stages == sorted(set(stages))
    # Predictors send the detector their last events when they end.
    assert by_name["detector"].stage > MODEL_STAGE
    assert not any("detector" in service.after for service in services)
    clear = [value.get_secret_value() for _, value in home.secrets]
    for service in services:
        assert not any(value in argument for value in clear for argument in service.program.command)
        assert service.after == () or set(service.after) < set(names)


def test_the_detector_runs_in_its_own_environment_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_detector_python({DETECTOR_PYTHON: "/elsewhere/python"}) == "/elsewhere/python"
    assert CHECKOUT.joinpath("serving", "detector").is_dir()
    monkeypatch.setattr("embedded.services.CHECKOUT", tmp_path)
    assert find_detector_python({}) == sys.executable
    own = tmp_path / ".venv-detector" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_detector_python({}) == str(own)


@pytest.fixture
def running(home: Home) -> Callable[[Program], None]:
    """Start a real service without waiting for others."""
    supervisor = Supervisor(home)
    supervisor.launch()
    return supervisor.start


def test_the_store_keeps_objects_over_a_kill_and_knows_only_its_key(
    home: Home, running: Callable[[Program], None], wait: Wait
) -> None:
    import io

    from minio import Minio
    from minio.error import S3Error

    ports = home.state.ports
    probe = make_http_probe(ports.s3, "/healthz")
    write_identities(home, "tenure")
    running(make_store(home, ensure_certificates(home)))
    wait(lambda: probe() is None, 60)
    ensure_bucket(home)
    ensure_bucket(home)
    keys = home.secrets.s3_access_key.get_secret_value(), home.secrets.s3_secret_key.get_secret_value()
    client = Minio(f"{LOOPBACK}:{ports.s3}", *keys, secure=False)
    client.put_object("tenure", "a/b", io.BytesIO(b"x" * 5_000_000), 5_000_000)
    for name, secret, bucket in [
        (keys[0], "wrong", "tenure"),
        ("nobody", keys[1], "tenure"),
        (*keys, "other"),
    ]:
        with pytest.raises(S3Error):
            Minio(f"{LOOPBACK}:{ports.s3}", name, secret, secure=False).make_bucket(bucket)
    # Beside S3 nobody comes in either.
    assert "401" in (make_http_probe(ports.s3_filer, "/buckets/tenure/a/b")() or "")
    assert "400" in (make_http_probe(ports.s3_master, "/col/delete?collection=tenure")() or "")
    authority = home.tls_dir / "ca.pem"
    assert "CERTIFICATE_REQUIRED" in (
        make_http_probe(ports.s3_master, "/col/delete?collection=tenure", authority=authority)() or ""
    )

    pid = Supervisor(home).list()["store"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait(lambda: Supervisor(home).list()["store"].pid not in {pid, None}, 60)
    wait(lambda: probe() is None, 60)
    response = client.get_object("tenure", "a/b")
    try:
        assert response.read() == b"x" * 5_000_000
    finally:
        response.close()
        response.release_conn()
    assert _listening_addresses(Supervisor(home).list()["store"].pid) == {LOOPBACK}


def test_tracking_answers_and_refuses_foreign_host_names(
    home: Home, running: Callable[[Program], None], wait: Wait
) -> None:
    import http.client

    port = home.state.ports.tracking
    probe = make_http_probe(port, "/health")
    running(make_tracking(home))
    wait(lambda: probe() is None, 120)

    def ask(
        host: str, password: str = home.secrets.tracking_password.get_secret_value()
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=20)
        try:
            path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
            login = base64.b64encode(f"tenure:{password}".encode()).decode()
            connection.request("GET", path, headers={"Host": host, "Authorization": f"Basic {login}"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    status, body = ask(f"{LOOPBACK}:{port}")
    assert status == 200
    assert json.loads(body)["experiment"]["artifact_location"] == "mlflow-artifacts:/0"
    assert ask("evil.example.com")[0] == 403
    assert ask(f"{LOOPBACK}:{port}", "wrong")[0] == 401
    pid = Supervisor(home).list()["tracking"].pid
    assert _listening_addresses(pid) == {LOOPBACK}
    assert psutil.Process(pid).children() == []
    with sqlite3.connect(home.tracking_dir / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def _listening_addresses(pid: int | None) -> set[str]:
    connections = psutil.Process(pid).connections("tcp")
    return {entry.laddr.ip for entry in connections if entry.status == psutil.CONN_LISTEN}
