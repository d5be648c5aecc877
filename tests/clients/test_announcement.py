from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from kubernetes.client import CoreV1Api

from clients import names
from clients.announcement import Announcer
from clients.services import Services
from clients.settings import Settings


def test_event_is_written_once_and_shown_with_its_resource(kubeconfig: Path) -> None:
    settings = Settings.model_construct(kubeconfig=kubeconfig, namespace="default")
    services = Services.connect(settings).inference
    model = {"modelFormat": {"name": "tenure"}, "storageUri": f"s3://tenure/bundles/{'a' * 64}"}
    name = "announced-" + "n" * 40
    service = services.create(
        {
            "metadata": {"name": name, "annotations": {names.DEPLOYMENT_MODE: "Standard"}},
            "spec": {"predictor": {"model": model}},
        }
    )
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for _ in range(2):
        Announcer(services).announce(service, "0" * 64, "RolledBack", "x" * 5000, at, "Warning")
    api = CoreV1Api(services._api.api_client)
    found = api.list_namespaced_event("default", field_selector=f"involvedObject.name={name}").items
    (event,) = [one for one in found if one.reason == "RolledBack"]
    assert (event.type, event.first_timestamp, event.source.component) == ("Warning", at, "tenure-pilot")
    assert len(event.message) == 1000
    assert event.involved_object.uid == service["metadata"]["uid"]
    services.delete(name)
