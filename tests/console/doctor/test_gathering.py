from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from console.doctor.api import Api
from console.doctor.gathering import ask_health, observe
from console.doctor.observation import Cluster, Layout

SECRET = "c2VjcmV0IHZhbHVl"  # what must not be kept


class Server:
    """An API server that answers from recorded documents, and notes what it was asked."""

    def __init__(self, seen: Cluster) -> None:
        self.seen = seen
        self.asked: list[tuple[str, str]] = []
        self.refused: set[str] = set()

    def answer(self, method: str, target: str) -> tuple[int, Any]:
        self.asked.append((method, target))
        address = urlsplit(target)
        parts = address.path.strip("/").split("/")
        if address.path == "/version":
            return 200, {"gitVersion": "v1.34.4"}
        if any(word in address.path for word in self.refused):
            return 403, {"kind": "Status", "message": f"{address.path} is forbidden"}
        if method == "POST":
            return 201, {"status": {"allowed": True}}
        if len(parts) == 3 and parts[0] == "apis":
            served = self.seen.apis.get("/".join(parts[1:]))
            return (200, {"resources": [{"name": one} for one in served]}) if served else (404, {})
        if parts[-1] == "log":
            return 200, "the last line"
        if "/proxy/" in address.path:
            return 503, {"kind": "Status", "message": "no endpoints available"}
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-1] else None
        if "secrets" in parts:
            return self._answer_secret(parts, namespace)
        items = list(self.seen.every(parts[-1], namespace))
        only = parse_qs(address.query).get("fieldSelector", [""])[0].removeprefix("metadata.name=")
        return 200, {"items": [one for one in items if only in ("", one["metadata"]["name"])]}

    def _answer_secret(self, parts: list[str], namespace: str | None) -> tuple[int, Any]:
        metadata = {"name": parts[-1], "namespace": namespace}
        if parts[-1] == "secrets":
            metadata["name"] = "kserve-webhook-server-cert"
            data = {"tls.crt": "cHVibGlj", "tls.key": SECRET}
            return 200, {"items": [{"metadata": metadata, "type": "kubernetes.io/tls", "data": data}]}
        if parts[-1] == "tenure-s3":
            return 200, {"metadata": metadata, "data": {"accesskey": SECRET, "secretkey": SECRET}}
        return 404, {}


@pytest.fixture
def server(stage: Any, tmp_path: Path) -> Iterator[tuple[Server, Api]]:
    """A server that knows the stage's documents, and the way to it."""
    found = Server(stage.cluster)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply("GET")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._reply("POST")

        def _reply(self, method: str) -> None:
            status, document = found.answer(method, self.path)
            body = (document if isinstance(document, str) else json.dumps(document)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{http.server_port}"
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": address}}],
                    "contexts": [{"name": "stage", "context": {"cluster": "c", "user": "u"}}],
                    "users": [{"name": "u", "user": {"token": "a-token"}}],
                }
            ),
            encoding="utf-8",
        )
        try:
            yield found, Api.connect(kubeconfig, "stage")
        finally:
            http.shutdown()
            thread.join()


def test_what_is_there_is_read_and_nothing_is_changed(server: tuple[Server, Api]) -> None:
    there, api = server
    seen = observe(api, "stage", Layout())
    assert seen.unread == {}
    for kind in ("nodes", "pods", "deployments", "gateways", "inferenceservices", "httproutes"):
        assert len(seen.every(kind)) == len(there.seen.every(kind)), kind
    changes = [target for method, target in there.asked if method != "GET"]
    assert changes
    assert all(target.endswith("?dryRun=All") for target in changes)


def test_no_secret_is_kept(server: tuple[Server, Api]) -> None:
    _, api = server
    seen = observe(api, "stage", Layout())
    keys = seen.find("secrets", "tenure-s3", "tenure")
    assert keys is not None
    assert keys["keys"] == ["accesskey", "secretkey"]
    assert SECRET not in seen.model_dump_json()


def test_only_our_config_maps_are_read(server: tuple[Server, Api]) -> None:
    there, api = server
    observe(api, "stage", Layout())
    asked = [target for _, target in there.asked if "/configmaps" in target]
    assert asked
    assert all("fieldSelector=metadata.name%3D" in target for target in asked)


def test_what_may_not_be_read_is_said(server: tuple[Server, Api], stage: Any) -> None:
    there, api = server
    there.refused = {"/nodes", "/secrets"}
    seen = observe(api, "stage", Layout())
    assert set(seen.unread) == {"nodes", "secrets"}
    stage.cluster = seen
    found = stage.examine()
    told = [one.text for one in found if one.check == "reading"]
    assert len(told) == 2
    assert "forbidden" in told[0]
    # Secrets that may not be read are not said to be missing.
    assert not [one for one in found if one.check == "configuration" and "Secret" in one.text]


def test_logs_of_what_fails_are_read(server: tuple[Server, Api], stage: Any) -> None:
    stage.crash("ml-pipeline", "")
    _, api = server
    seen = observe(api, "stage", Layout())
    assert list(seen.logs.values()) == ["the last line"]


def test_rights_are_asked_before_an_install_only(server: tuple[Server, Api]) -> None:
    _, api = server
    assert observe(api, "stage", Layout()).access == {}
    access = observe(api, "stage", Layout(), pre=True).access
    assert access["create customresourcedefinitions.apiextensions.k8s.io"] is True


def test_health_is_asked_through_the_api_server(server: tuple[Server, Api], stage: Any) -> None:
    stage.remove("services", "tenure-console")
    _, api = server
    answers = ask_health(api, stage.cluster)
    assert list(answers) == ["detector", "pilot"]
    assert not answers["pilot"].good
    assert "no endpoints" in answers["pilot"].text


def test_an_api_that_does_not_answer(tmp_path: Path, stage: Any) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], "
        "users: [], contexts: [{name: gone, context: {cluster: c}}]}",
        encoding="utf-8",
    )
    stage.cluster = observe(Api.connect(kubeconfig, "gone"), "gone", Layout())
    found = stage.examine()
    assert [one.check for one in found] == ["api"]
    assert "cannot be used" in found[0].text
