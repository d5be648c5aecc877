"""InferenceServices and HTTPRoutes against the laptop platform's real API server."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from clients.errors import ConflictError, NotFoundError, RefusedError, SettingsError, UnreachableError
from clients.services import Collection, Document, Event, Services, get_condition
from clients.settings import Settings


@pytest.fixture(scope="module")
def settings(kubeconfig: Path) -> Settings:
    return Settings(
        _env_file=None,
        kubeconfig=kubeconfig,
        runs_url="http://127.0.0.1:9",
        s3_url="http://127.0.0.1:9",
        s3_access_key="a",
        s3_secret_key="b",
        tracking_url="http://127.0.0.1:9",
        gateway_url="http://127.0.0.1:9",
    )


@pytest.fixture(scope="module")
def services(settings: Settings) -> Collection:
    return Services.connect(settings).inference


@pytest.fixture
def name() -> str:
    return f"s{uuid4().hex[:8]}"


def make(name: str, **labels: str) -> Document:
    model = {"modelFormat": {"name": "tenure"}, "storageUri": f"s3://tenure/bundles/{'0' * 64}"}
    annotations = {"serving.kserve.io/deploymentMode": "Standard"}
    return {
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {"predictor": {"minReplicas": 1, "model": model}},
    }


def test_creates_reads_patches_deletes(services: Collection, name: str) -> None:
    created = services.create(make(name))
    assert created["kind"] == "InferenceService"
    assert created["metadata"]["uid"]
    assert services.get(name) == created
    patched = services.patch(name, {"spec": {"predictor": {"minReplicas": 2}}})
    assert patched["spec"]["predictor"]["minReplicas"] == 2
    assert patched["spec"]["predictor"]["model"] == created["spec"]["predictor"]["model"]
    services.delete(name)
    assert services.find(name) is None
    with pytest.raises(NotFoundError, match=name):
        services.get(name)
    with pytest.raises(NotFoundError):
        services.delete(name)


def test_lists_by_label(services: Collection, name: str) -> None:
    services.create(make(name, owner=name))
    services.create(make(f"{name}-two", owner="else"))
    assert [item["metadata"]["name"] for item in services.list({"owner": name})] == [name]
    assert {name, f"{name}-two"} <= {item["metadata"]["name"] for item in services.list()}


def test_old_version_conflicts(services: Collection, name: str) -> None:
    first = services.create(make(name))
    with pytest.raises(ConflictError):
        services.create(make(name))
    services.replace({**first, "metadata": {**first["metadata"], "labels": {"a": "b"}}})
    with pytest.raises(ConflictError):
        services.replace(first)
    stale = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"], "labels": {"c": "d"}}}
    with pytest.raises(ConflictError):
        services.patch(name, stale)


def test_update_tries_again_until_nobody_was_faster(services: Collection, name: str) -> None:
    services.create(make(name))
    seen: list[str | None] = []

    def change(document: Document) -> Document:
        count = document["metadata"].get("annotations", {}).get("count")
        seen.append(count)
        if len(seen) < 3:
            services.patch(name, {"metadata": {"annotations": {"count": str(len(seen))}}})
        return {"metadata": {"annotations": {"mine": "yes"}}}

    updated = services.update(name, change)
    assert seen == [None, "1", "2"]
    assert updated["metadata"]["annotations"]["count"] == "2"
    assert updated["metadata"]["annotations"]["mine"] == "yes"
    assert services.update(name, lambda document: None) == updated


def test_update_gives_up_after_the_attempts(services: Collection, name: str) -> None:
    services.create(make(name))
    seen: list[int] = []

    def change(document: Document) -> Document:
        seen.append(1)
        services.patch(name, {"metadata": {"annotations": {"count": str(len(seen))}}})
        return {"metadata": {"annotations": {"mine": "yes"}}}

    with pytest.raises(ConflictError):
        services.update(name, change, attempts=3)
    assert len(seen) == 3


def test_updates_of_many_threads_all_arrive(services: Collection, name: str) -> None:
    services.create(make(name))

    def change(number: int) -> None:
        services.update(name, lambda _: {"metadata": {"annotations": {f"n{number}": "x"}}}, attempts=100)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    annotations = services.get(name)["metadata"]["annotations"]
    assert {f"n{number}" for number in range(8)} <= set(annotations)


def test_watch_tells_changes(services: Collection, name: str) -> None:
    start = services.snapshot()["metadata"]["resourceVersion"]
    services.create(make(name))
    services.patch(name, {"metadata": {"labels": {"a": "b"}}})
    services.delete(name)
    events: list[Event] = []
    for event in services.watch(start, timeout_seconds=20):
        if event.object["metadata"].get("name") == name:
            events.append(event)
        if event.type == "DELETED" and events:
            break
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert events[1].object["metadata"]["labels"] == {"a": "b"}


def test_watch_ends_by_itself(services: Collection) -> None:
    version = services.snapshot()["metadata"]["resourceVersion"]
    assert list(services.watch(version, timeout_seconds=1)) == []


def test_refusal_names_the_field(services: Collection, name: str) -> None:
    document = make(name)
    document["spec"]["predictor"]["surprise"] = 1
    with pytest.raises(RefusedError, match="surprise"):
        services.create(document)


def test_routes_are_kept_too(settings: Settings, name: str) -> None:
    routes = Services.connect(settings).routes
    document = {
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": ["x.example.com"],
            "rules": [{"backendRefs": [{"name": f"{name}-predictor", "port": 80, "weight": 100}]}],
        },
    }
    assert routes.create(document)["kind"] == "HTTPRoute"
    assert routes.get(name)["spec"]["hostnames"] == ["x.example.com"]


def test_wrong_token_is_refused_and_not_told(settings: Settings, tmp_path: Path) -> None:
    assert settings.kubeconfig is not None
    config = json.loads(settings.kubeconfig.read_text())
    config["users"][0]["user"]["token"] = "wrong-token"
    (tmp_path / "config").write_text(json.dumps(config))
    wrong = settings.model_copy(update={"kubeconfig": tmp_path / "config"})
    with pytest.raises(RefusedError, match="Unauthorized") as caught:
        Services.connect(wrong).inference.list()
    assert "wrong-token" not in str(caught.value)


def test_silent_address_is_unreachable(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.kubeconfig is not None
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # must not be asked about loopback
    config = json.loads(settings.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    (tmp_path / "config").write_text(json.dumps(config))
    nowhere = settings.model_copy(update={"kubeconfig": tmp_path / "config"})
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        Services.connect(nowhere).inference.list()


@pytest.mark.parametrize("content", [None, "no: kubeconfig", ": :", "text", ""])
def test_broken_kubeconfig_is_told(settings: Settings, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match="TENURE_KUBECONFIG"):
        Services.connect(settings.model_copy(update={"kubeconfig": file}))


def test_outside_a_pod_the_kubeconfig_is_asked_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SettingsError, match="TENURE_KUBECONFIG"):
        Services.connect(settings.model_copy(update={"kubeconfig": None}))


def test_conditions_are_found_by_type() -> None:
    document = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert get_condition(document, "Ready") == {"type": "Ready", "status": "True"}
    assert get_condition(document, "Other") is None
    assert get_condition({}, "Ready") is None
