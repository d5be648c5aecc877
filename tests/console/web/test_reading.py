"""The reader against a real API server, a real object store and a real ledger."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from clients.errors import ClientError, UnreachableError
from clients.ledger.engine import open_engine
from clients.ledger.instant import to_us
from clients.names import PROJECT_LABEL, PROJECT_URI, route_name
from clients.services import Services
from clients.settings import Settings
from clients.store import Store
from clients.tracking import Tracking
from console.web.reading import Reader
from serving.detector.migration import migrate
from serving.detector.records import DeadLetter, Label, Request, Response
from serving.detector.writer import Writer
from tenure.project import load_project

NAME = "page-churn"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(store_settings: Settings, kubeconfig: Path, tmp_path: Path) -> Settings:
    changes = {"kubeconfig": kubeconfig, "ledger_url": SecretStr(f"sqlite:///{tmp_path}/ledger.db")}
    return store_settings.model_copy(update=changes)


@pytest.fixture
def service(settings: Settings, store: Store) -> Iterator[Services]:
    """An InferenceService of ours, one of somebody else's, and the route before the first."""
    cluster = Services.connect(settings)
    project = load_project(ROOT / "projects" / "telco.yaml")
    uri = store.put_bytes(project.model_dump_json().encode(), "s3://tenure/projects/page.json")
    model = {"modelFormat": {"name": "tenure"}, "storageUri": f"s3://tenure/bundles/{'a' * 64}"}
    for name, labels in ((NAME, {PROJECT_LABEL: project.name}), (f"{NAME}-other", {})):
        annotations = {"serving.kserve.io/deploymentMode": "Standard", PROJECT_URI: uri}
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        cluster.inference.create({"metadata": metadata, "spec": {"predictor": {"model": model}}})
    backend = {"name": f"{NAME}-predictor", "port": 80, "weight": 100}
    gateway = {"name": "kserve-ingress-gateway", "namespace": "kserve"}
    spec = {
        "parentRefs": [gateway],
        "hostnames": [f"{NAME}-default.tenure.example.com"],
        "rules": [{"backendRefs": [backend]}],
    }
    cluster.routes.create({"metadata": {"name": route_name(NAME)}, "spec": spec})
    yield cluster
    cluster.routes.delete(route_name(NAME))
    for name in (NAME, f"{NAME}-other"):
        cluster.inference.delete(name)


def read_service(settings: Settings) -> Any:
    """Return what is read of our service; other tests may have theirs at the same API server."""
    found = {one.state.name: one for one in Reader(settings).read_services()}
    assert f"{NAME}-other" not in found
    return found[NAME]


def test_only_our_services_are_read_with_steps_and_shares(settings: Settings, service: Any) -> None:
    found = read_service(settings)
    assert (found.state.name, found.project) == (NAME, "telco-churn")
    assert found.host == f"{NAME}-default.tenure.example.com"
    assert found.steps == tuple(load_project(ROOT / "projects" / "telco.yaml").rollout.steps)
    assert [(one.version, one.weight) for one in found.state.variants] == [("a" * 12, 100)]
    assert found.trouble is not None


@contextmanager
def hang_up() -> Iterator[tuple[int, list[Any]]]:
    """A server that closes every connection; yields its port and who has come."""
    came: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:  # closed
                    return
                came.append(address)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_store_that_is_down_takes_only_the_steps_away(settings: Settings, service: Any) -> None:
    """The page waits for it once, however many services there are."""
    more = [f"{NAME}-{number}" for number in range(3)]
    for name in more:
        metadata = {
            "name": name,
            "labels": {PROJECT_LABEL: "p"},
            "annotations": {PROJECT_URI: f"s3://tenure/{name}.json"},
        }
        model = {"modelFormat": {"name": "tenure"}, "storageUri": f"s3://tenure/bundles/{'a' * 64}"}
        service.inference.create({"metadata": metadata, "spec": {"predictor": {"model": model}}})
    try:
        with hang_up() as (port, came):
            found = read_service(settings.model_copy(update={"s3_url": f"http://127.0.0.1:{port}"}))
    finally:
        for name in more:
            service.inference.delete(name)
    assert found.steps == ()
    assert found.state.variants[0].weight == 100
    assert 1 <= len(came) <= 5, "one request, and the client's own retries"


def test_the_ledger_is_read_for_each_service(settings: Settings, tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/ledger.db")
    migrate(engine)
    now = to_us(datetime.now(UTC))
    Writer(engine).write(
        [
            Request("e1", NAME, "v1", now, ["a", "b"], [{}, {}]),
            Response("e1", NAME, "v1", now + 5, [0.2, 0.8], [False, True]),
            Label(NAME, "a", "No", now, now),
            DeadLetter("/events", "no id", {}, b""),
        ]
    )
    engine.dispose()
    found = Reader(settings).read_ledger([NAME, "empty"])
    (share,) = found.services[NAME].tally.shares
    assert (share.predictions, share.flagged, found.services[NAME].tally.labels) == (2, 1, 1)
    assert found.services["empty"].tally.shares == ()
    assert found.dead_letters == 1


def test_whatever_is_down_is_an_error_that_the_page_can_tell(settings: Settings, tmp_path: Path) -> None:
    reader = Reader(settings.model_copy(update={"detector_url": "http://127.0.0.1:9"}))
    for read in (reader.read_detector, reader.read_runs, lambda: reader.read_ledger([NAME])):
        with pytest.raises(ClientError):
            read()
    with pytest.raises(UnreachableError, match="not known yet"):
        reader.read_ledger(None)


def test_a_report_comes_from_mlflow(tracking_settings: Settings) -> None:
    tracking = Tracking.connect(tracking_settings)
    run = tracking.client.create_run(tracking.find_experiment("page-drift")).info.run_id
    tracking.log_text(run, "<h1>Drift</h1>", "report.html")
    reader = Reader(tracking_settings)
    assert reader.read_report(run) == "<h1>Drift</h1>"
    with pytest.raises(ClientError):
        reader.read_report("0" * 32)
