"""The API over HTTP: who may ask, conflicts, patches, watches."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from embedded.kubernetes.resources import INFERENCE_SERVICES

from .conftest import Api, make_canary, make_route, make_service

ISVCS = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
MERGE = {"content-type": "application/merge-patch+json"}


@pytest.fixture
def http(api: Api) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {api.token}"}
    with httpx.Client(
        base_url=api.url, headers=headers, verify=api.trust, trust_env=False, timeout=20
    ) as client:
        yield client


def check_status(response: httpx.Response, code: int, reason: str) -> dict[str, Any]:
    status: dict[str, Any] = response.json()
    assert response.status_code == code, status
    assert status["kind"] == "Status"
    assert status["status"] == "Failure"
    assert status["code"] == code
    assert status["reason"] == reason
    return status


def test_only_the_token_opens(api: Api, http: httpx.Client):
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": api.token}):
        answer = httpx.get(api.url + ISVCS, headers=headers, verify=api.trust, trust_env=False)
        check_status(answer, 401, "Unauthorized")
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert httpx.get(api.url + path, verify=api.trust, trust_env=False).status_code == 200
    assert http.get(ISVCS).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/apis/apps/v1",
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/x/scale",
        "/apis/serving.kserve.io/v1beta1/inferenceservices/x",
        "/api/v1/namespaces/default/pods",
        "/openapi/v2",
    ],
)
def test_unknown_paths_are_404_with_a_status(http: httpx.Client, path: str):
    check_status(http.get(path), 404, "NotFound")


def test_create_read_replace_delete(http: httpx.Client):
    created = http.post(ISVCS, json=make_service())
    assert created.status_code == 201
    metadata = created.json()["metadata"]
    assert metadata["generation"] == 1
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    check_status(http.post(ISVCS, json=make_service()), 409, "AlreadyExists")

    body = created.json()
    body["spec"]["predictor"]["minReplicas"] = 2
    replaced = http.put(f"{ISVCS}/telco", json=body)
    assert replaced.json()["metadata"]["generation"] == 2
    stale = check_status(
        http.put(f"{ISVCS}/telco", json=body | {"spec": make_service()["spec"]}), 409, "Conflict"
    )
    assert "modified" in stale["message"]
    del body["metadata"]["resourceVersion"]
    check_status(http.put(f"{ISVCS}/telco", json=body), 422, "Invalid")

    gone = http.request("DELETE", f"{ISVCS}/telco", json={"preconditions": {"uid": "another"}})
    check_status(gone, 409, "Conflict")
    assert http.delete(f"{ISVCS}/telco").json()["status"] == "Success"
    check_status(http.get(f"{ISVCS}/telco"), 404, "NotFound")
    check_status(http.delete(f"{ISVCS}/telco"), 404, "NotFound")


def test_patches(http: httpx.Client):
    version = http.post(ISVCS, json=make_service()).json()["metadata"]["resourceVersion"]
    patched = http.patch(
        f"{ISVCS}/telco", json={"metadata": {"annotations": {"tenure.dev/promote": "true"}}}, headers=MERGE
    ).json()
    assert patched["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert patched["metadata"]["generation"] == 1
    stale = {"metadata": {"resourceVersion": version}, "spec": {"predictor": {"minReplicas": 3}}}
    check_status(http.patch(f"{ISVCS}/telco", json=stale, headers=MERGE), 409, "Conflict")
    same = http.patch(
        f"{ISVCS}/telco", json={"spec": {"predictor": {"minReplicas": 1}}}, headers=MERGE
    ).json()
    assert same["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"], "nothing changed"
    operations = [{"op": "test", "path": "/spec/predictor/minReplicas", "value": 1}]
    operations += [{"op": "add", "path": "/spec/canary", "value": [make_canary(percent=5)]}]
    jsonpatch = {"content-type": "application/json-patch+json"}
    assert http.patch(f"{ISVCS}/telco", json=operations, headers=jsonpatch).json()["spec"]["canary"]
    operations[0]["value"] = 7
    check_status(http.patch(f"{ISVCS}/telco", json=operations, headers=jsonpatch), 400, "BadRequest")
    for kind in ("strategic-merge-patch+json", "apply-patch+yaml"):
        refused = http.patch(f"{ISVCS}/telco", content=b"{}", headers={"content-type": f"application/{kind}"})
        check_status(refused, 415, "UnsupportedMediaType")


def test_status_is_a_world_of_its_own(http: httpx.Client):
    body = make_service() | {"status": {"url": "http://mine"}}
    assert "status" not in http.post(ISVCS, json=body).json()
    patch = {"status": {"url": "http://theirs"}, "spec": {"predictor": {"minReplicas": 9}}}
    after = http.patch(f"{ISVCS}/telco/status", json=patch, headers=MERGE).json()
    assert after["status"] == {"url": "http://theirs"}
    assert after["spec"]["predictor"]["minReplicas"] == 1
    assert after["metadata"]["generation"] == 1
    after = http.patch(f"{ISVCS}/telco", json={"status": {"url": "http://mine"}}, headers=MERGE).json()
    assert after["status"] == {"url": "http://theirs"}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"a: [", "application/yaml"),
        (b"[" * 100_000, "application/json"),
        (b'{"kind": "Pod"}', "application/json"),
        (b'{"metadata": 3}', "application/json"),
        (b'{"metadata": {"namespace": "other"}}', "application/json"),
    ],
)
def test_nonsense_is_400(http: httpx.Client, content: bytes, kind: str):
    check_status(http.post(ISVCS, content=content, headers={"content-type": kind}), 400, "BadRequest")


def test_too_much_is_413_and_wrong_types_are_422(http: httpx.Client):
    answer = http.post(ISVCS, content=b" " * (4 << 20), headers={"content-type": "application/json"})
    check_status(answer, 413, "RequestEntityTooLarge")
    body = make_service()
    body["spec"]["predictor"]["minReplicas"] = "1"
    body["metadata"]["labels"] = {"a b": "c"}
    status = check_status(http.post(ISVCS, json=body), 422, "Invalid")
    fields = {cause["field"] for cause in status["details"]["causes"]}
    assert fields == {"spec.predictor.minReplicas", "metadata.labels"}


def test_runtimes_and_events_are_read_only(http: httpx.Client):
    runtimes = "/apis/serving.kserve.io/v1alpha1/namespaces/default/servingruntimes"
    assert http.get(f"{runtimes}/tenure").json()["spec"]["supportedModelFormats"][0]["name"] == "tenure"
    check_status(http.delete(f"{runtimes}/tenure"), 405, "MethodNotAllowed")
    check_status(http.post(runtimes, json={}), 405, "MethodNotAllowed")
    check_status(http.post("/apis", json={}), 405, "MethodNotAllowed")


def test_selectors(http: httpx.Client):
    for name, labels in {"a": {"tier": "gold"}, "b": {"tier": "silver", "x": "1"}, "c": {}}.items():
        body = make_service(name)
        body["metadata"]["labels"] = labels
        assert http.post(ISVCS, json=body).status_code == 201

    def find(**query: str) -> list[str]:
        return [item["metadata"]["name"] for item in http.get(ISVCS, params=query).json()["items"]]

    assert find(labelSelector="tier=gold") == ["a"]
    assert find(labelSelector="tier in (gold,silver),!x") == ["a"]
    assert find(labelSelector="tier!=gold") == ["b", "c"]
    assert find(labelSelector="tier notin (gold)") == ["b", "c"]
    assert find(labelSelector="x") == ["b"]
    assert find(fieldSelector="metadata.name=c") == ["c"]
    assert find(fieldSelector="metadata.name!=c,metadata.namespace=default") == ["a", "b"]
    check_status(http.get(ISVCS, params={"labelSelector": "=(("}), 400, "BadRequest")
    check_status(http.get(ISVCS, params={"fieldSelector": "spec.x=1"}), 400, "BadRequest")


@contextmanager
def watching(http: httpx.Client, path: str, **query: str) -> Iterator[Iterator[dict[str, Any]]]:
    with http.stream("GET", path, params={"watch": "true", "timeoutSeconds": "20", **query}) as response:
        assert response.status_code == 200, response.read()
        yield (json.loads(line) for line in response.iter_lines())


def test_watch_follows_from_a_version(api: Api, http: httpx.Client):
    start = http.get(ISVCS).json()["metadata"]["resourceVersion"]
    http.post(ISVCS, json=make_service())
    http.post(ROUTES, json=make_route())
    with watching(http, ISVCS, resourceVersion=start) as events:
        assert next(events)["type"] == "ADDED"
        api.registry.set_status(INFERENCE_SERVICES, "default", "telco", {"url": "http://here"})
        changed = next(events)
        assert changed["type"] == "MODIFIED"
        assert changed["object"]["status"] == {"url": "http://here"}
        api.registry.delete(INFERENCE_SERVICES, "default", "telco")
        assert next(events)["type"] == "DELETED"


def test_watch_begins_with_what_there_is_and_marks_its_end(http: httpx.Client):
    http.post(ISVCS, json=make_service())
    query = {
        "sendInitialEvents": "true",
        "allowWatchBookmarks": "true",
        "resourceVersionMatch": "NotOlderThan",
    }
    with watching(http, ISVCS, **query) as events:
        assert next(events)["type"] == "ADDED"
        mark = next(events)
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    with watching(http, ISVCS, timeoutSeconds="1") as events:
        assert [event["type"] for event in events] == ["ADDED"], "the stream ends by itself"


def test_watch_shows_what_enters_and_leaves_a_selection(http: httpx.Client):
    http.post(ISVCS, json=make_service())
    start = http.get(ISVCS).json()["metadata"]["resourceVersion"]
    with watching(http, ISVCS, resourceVersion=start, labelSelector="on=1") as events:
        for value in ("1", "2"):
            http.patch(f"{ISVCS}/telco", json={"metadata": {"labels": {"on": value}}}, headers=MERGE)
        assert [next(events)["type"], next(events)["type"]] == ["ADDED", "DELETED"]


def test_watch_from_a_forgotten_version_says_so(http: httpx.Client):
    with watching(http, ISVCS, resourceVersion="999999") as events:
        error = next(events)
        assert error["type"] == "ERROR"
        assert error["object"]["code"] == 410
        assert error["object"]["reason"] == "Expired"


def test_finalizers_and_owners(http: httpx.Client):
    body = make_service()
    body["metadata"]["finalizers"] = ["tenure.dev/hold"]
    owner = http.post(ISVCS, json=body).json()
    route = make_route()
    route["metadata"]["ownerReferences"] = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": "telco",
            "uid": owner["metadata"]["uid"],
        }
    ]
    http.post(ROUTES, json=route)
    assert http.delete(f"{ISVCS}/telco").json()["metadata"]["deletionTimestamp"]
    assert http.get(f"{ISVCS}/telco").status_code == 200
    http.patch(f"{ISVCS}/telco", json={"metadata": {"finalizers": None}}, headers=MERGE)
    check_status(http.get(f"{ISVCS}/telco"), 404, "NotFound")
    check_status(http.get(f"{ROUTES}/telco"), 404, "NotFound")


def test_many_writers_lose_nothing(api: Api, http: httpx.Client):
    http.post(ISVCS, json=make_service())
    headers = {"authorization": f"Bearer {api.token}"}

    def annotate(worker: int) -> None:
        with httpx.Client(base_url=api.url, headers=headers, verify=api.trust, trust_env=False) as client:
            for number in range(10):
                while True:
                    body = client.get(f"{ISVCS}/telco").json()
                    body["metadata"]["annotations"][f"test/{worker}-{number}"] = "1"
                    response = client.put(f"{ISVCS}/telco", json=body)
                    if response.status_code == 200:
                        break
                    assert response.status_code == 409

    threads = [threading.Thread(target=annotate, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(http.get(f"{ISVCS}/telco").json()["metadata"]["annotations"]) == 41
