"""`tenure --context`: settings and secrets of a cluster, tunnels for what a command needs and no others."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from clients.errors import RefusedError, SettingsError, UnreachableError
from console import context, display, platform
from console.context import enter, get_remote, open_settings
from console.errors import NOT_RUNNING, REFUSED, ConsoleError
from console.main import app
from console.tunnel import Tunnel, find_kubectl

PASSWORD = "p@ss:word/1"
LEDGER = "postgresql+psycopg://reader:p%40ss%3Aword%2F1@tenure-ledger-db.tenure.svc:5432/ledger"
SETTINGS = {
    "TENURE_NAMESPACE": "tenure",
    "TENURE_RUNS_URL": "http://ml-pipeline.kubeflow:8888",
    "TENURE_RUNS_TOKEN_FILE": "/var/run/secrets/kubeflow/token",
    "TENURE_S3_URL": "http://seaweedfs.kubeflow.svc:9000",
    "TENURE_TRACKING_URL": "http://tenure-mlflow.tenure.svc.cluster.local:5000",
    "TENURE_DETECTOR_URL": "http://tenure-detector:8080",
    "TENURE_GATEWAY_URL": "https://churn.example.com",
    "TENURE_INGRESS_DOMAIN": "churn.example.com",
    "SOMETHING_ELSE": "1",
}
SECRETS = {
    "tenure-s3": {"accesskey": "key", "secretkey": "hidden"},
    "tenure-databases": {"ledger-reader-url": LEDGER, "ledger-url": "postgresql://owner@db/ledger"},
    "tenure-tracking": {"username": "tenure", "password": "hidden"},
    "tenure-detector": {"token": "hidden"},
}

# Answers as kubectl does, and writes down what it was asked for and that it was ended.
KUBECTL = """#!{python}
import os, signal, socket, sys, threading
words = sys.argv[1:]
log = open(os.environ["FAKE_LOG"], "a", buffering=1)
print(*words, file=log)
def leave(*_):
    print("ended", words[-2], file=log)
    os._exit(143)
signal.signal(signal.SIGTERM, leave)
if "gone" in words[-2] or os.environ.get("FAKE_REFUSES"):
    print('Error from server (Forbidden): pods is forbidden: no "portforward"', file=sys.stderr)
    sys.exit(1)
server = socket.create_server(("127.0.0.1", 0))
print(f"Forwarding from 127.0.0.1:{{server.getsockname()[1]}} -> 8080", flush=True)
while True:
    connection, _ = server.accept()
    connection.recv(65536)
    for _ in range(200):
        print("Handling connection for 8080" * 40, flush=True)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\nok")
    connection.close()
"""


class Handler(BaseHTTPRequestHandler):
    """A Kubernetes API of documents."""

    documents: dict[str, Any]
    asked: list[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        found = self.documents.get(path, (404, {"message": f"{path} not found"}))
        status, document = found if isinstance(found, tuple) else (200, found)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""


class Cluster:
    """The API, and what it and kubectl were asked for."""

    def __init__(self, url: str, documents: dict[str, Any], asked: list[str], log: Path) -> None:
        self.url = url
        self.documents = documents
        self.asked = asked
        self._log = log

    def put(self, kind: str, namespace: str, name: str, document: Any, group: str = "api/v1") -> None:
        """Let there be a document, or a (status, document) as an answer."""
        self.documents[f"/{group}/namespaces/{namespace}/{kind}{f'/{name}' if name else ''}"] = document

    @property
    def forwarded(self) -> list[str]:
        """The Services that kubectl was asked for."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return sorted(line.split()[-2] for line in lines if "port-forward" in line)

    @property
    def ended(self) -> list[str]:
        """Those whose tunnels were ended."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return sorted(line.split()[-1] for line in lines if line.startswith("ended"))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    documents: dict[str, Any] = {}
    asked: list[str] = []
    kind = type("Own", (Handler,), {"documents": documents, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(KUBECTL.format(python=sys.executable))
    kubectl.chmod(0o700)
    config = tmp_path / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "clusters": [{"name": "one", "cluster": {"server": url}}],
                "users": [{"name": "me", "user": {"token": "t"}}],
                "contexts": [
                    {"name": name, "context": {"cluster": "one", "user": "me"}} for name in ("one", "two")
                ],
                "current-context": "two",
            }
        )
    )
    for name in [name for name in os.environ if name.startswith("TENURE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "kubectl.log"))
    found = Cluster(url, documents, asked, tmp_path / "kubectl.log")
    found.put("configmaps", "tenure", "tenure-settings", {"data": SETTINGS})
    found.put("services", "kubeflow", "ml-pipeline", {})
    for secret, values in SECRETS.items():
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        found.put("secrets", "tenure", secret, {"data": data})
    yield found
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_the_kubernetes_api_needs_no_secret_and_no_tunnel(cluster: Cluster, tmp_path: Path) -> None:
    with enter("one"):
        settings = open_settings()
    assert settings.kubeconfig == tmp_path / "kubeconfig"
    assert settings.kube_context == "one"
    assert settings.namespace == "tenure"
    assert settings.ingress_domain == "churn.example.com"
    assert cluster.asked == ["/api/v1/namespaces/tenure/configmaps/tenure-settings"]
    assert cluster.forwarded == []


def test_only_what_is_needed_is_reached_and_only_its_secret_read(cluster: Cluster) -> None:
    with enter("one"):
        settings = open_settings("ledger", "detector")
        assert settings.ledger_url is not None
        url = settings.ledger_url.get_secret_value()
        assert url.startswith("postgresql+psycopg://reader:p%40ss%3Aword%2F1@127.0.0.1:")
        assert settings.s3_secret_key.get_secret_value() == ""
        assert settings.detector_token is not None
        assert httpx.get(str(settings.detector_url), trust_env=False).text == "ok"
        again = open_settings("detector")
        assert again.detector_url == settings.detector_url, "one tunnel for each Service"
    assert cluster.forwarded == ["service/tenure-detector", "service/tenure-ledger-db"]
    assert cluster.ended == cluster.forwarded
    assert {path for path in cluster.asked if "secrets" in path} == {
        "/api/v1/namespaces/tenure/secrets/tenure-databases",
        "/api/v1/namespaces/tenure/secrets/tenure-detector",
    }
    assert get_remote() is None


def test_all_forms_of_names_lead_to_their_service_and_others_stay(cluster: Cluster) -> None:
    with enter("one"):
        settings = open_settings("runs", "store", "tracking", "gateway")
        for url in (settings.runs_url, settings.s3_url, settings.tracking_url):
            assert url.startswith("http://127.0.0.1:")
        assert settings.gateway_url == "https://churn.example.com"
        assert settings.s3_access_key.get_secret_value() == "key"
        assert settings.tracking_username == "tenure"
        assert settings.runs_token_file is None, "a file of pods is none of ours"
    assert cluster.forwarded == ["service/ml-pipeline", "service/seaweedfs", "service/tenure-mlflow"]


def test_what_this_environment_says_of_another_platform_does_not_count(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENURE_NAMESPACE", "default")
    monkeypatch.setenv("TENURE_LEDGER_URL", "sqlite:////laptop.db")
    monkeypatch.setenv("TENURE_RUNS_ACCOUNT", "laptop")
    monkeypatch.setenv("TENURE_RUNS_TOKEN", "mine")
    with enter("one"):
        settings = open_settings()
    assert (settings.namespace, settings.ledger_url, settings.runs_account) == ("tenure", None, None)
    assert settings.runs_token is not None
    assert settings.runs_token.get_secret_value() == "mine"


def test_a_context_that_is_not_there_is_told_with_those_that_are(cluster: Cluster) -> None:
    with pytest.raises(SettingsError, match="no context 'three'; its contexts: one, two"), enter("three"):
        pass


def test_a_cluster_without_tenure_says_how_to_install_it(cluster: Cluster) -> None:
    with enter("one", "elsewhere"), pytest.raises(ConsoleError, match="make up CLUSTER=existing") as caught:
        open_settings()
    assert caught.value.code == NOT_RUNNING
    assert "--namespace" in str(caught.value)


def test_who_may_not_read_is_told_what_to_ask_for(cluster: Cluster) -> None:
    cluster.put("secrets", "tenure", "tenure-databases", (403, {"message": "secrets is forbidden"}))
    with enter("one"), pytest.raises(RefusedError) as caught:
        open_settings("ledger")
    for words in ("secrets is forbidden", "kubectl --context one auth can-i get secrets -n tenure"):
        assert words in str(caught.value)
    assert cluster.forwarded == []


def test_kubectls_own_refusal_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_REFUSES", "1")
    with (
        enter("one"),
        pytest.raises(ConsoleError, match=r"no way to service/tenure-detector.*Forbidden") as caught,
    ):
        open_settings("detector")
    assert caught.value.code == NOT_RUNNING


def test_a_cluster_that_does_not_answer_is_told(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (tmp_path / "kubeconfig").read_text().replace(cluster.url, "http://127.0.0.1:9")
    (tmp_path / "kubeconfig").write_text(text)
    with enter("one"), pytest.raises(UnreachableError, match="context one does not answer"):
        open_settings()


def test_a_service_that_is_missing_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    del cluster.documents["/api/v1/namespaces/kubeflow/services/ml-pipeline"]
    monkeypatch.setattr(context, "_is_known", lambda host: False)
    with enter("one"), pytest.raises(ConsoleError, match="no Service ml-pipeline in namespace kubeflow"):
        open_settings("runs")
    monkeypatch.setattr(context, "_is_known", lambda host: True)
    with enter("one"):
        assert open_settings("runs").runs_url == SETTINGS["TENURE_RUNS_URL"]


def test_no_message_has_a_secret(cluster: Cluster) -> None:
    for text in (f"postgresql://reader:{PASSWORD}@[", f"postgresql://reader:{PASSWORD}@db:port/x"):
        data = {"ledger-reader-url": base64.b64encode(text.encode()).decode()}
        cluster.put("secrets", "tenure", "tenure-databases", {"data": data})
        with enter("one"), pytest.raises(SettingsError, match="tenure-databases") as caught:
            open_settings("ledger")
        assert "word" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("command", [["up"], ["down"], ["env"], ["demo"], ["demo-rollback"]])
def test_what_is_about_this_machine_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr(platform, "call_platform", lambda *_, **__: pytest.fail("it was started"))
    answer = CliRunner().invoke(app, ["--context", "one", *command])
    assert isinstance(answer.exception, ConsoleError)
    assert answer.exception.code == REFUSED
    assert f"`tenure {command[0]}`" in str(answer.exception)


def make_workload(name: str, ready: int, model: bool = False) -> dict[str, Any]:
    labels = {"serving.kserve.io/inferenceservice": "telco"} if model else {}
    why = {"type": "Available", "status": "False", "message": "no minimum availability"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {},
            "serviceName": name,
        },
        "status": {"readyReplicas": ready, "replicas": 2, "conditions": [] if ready == 2 else [why]},
    }


@pytest.mark.parametrize(("ready", "code"), [(2, 0), (1, NOT_RUNNING)])
def test_status_shows_who_is_ready_instead_of_processes(cluster: Cluster, ready: int, code: int) -> None:
    workloads = [make_workload("churn-predictor", 0, True), make_workload("tenure-detector", ready)]
    cluster.put("deployments", "tenure", "", {"items": workloads}, "apis/apps/v1")
    cluster.put("statefulsets", "tenure", "", {"items": []}, "apis/apps/v1")
    kserve = "apis/serving.kserve.io/v1beta1"
    cluster.put("inferenceservices", "tenure", "", {"items": []}, kserve)
    answer = CliRunner().invoke(app, ["status", "--json"], env={"TENURE_CONTEXT": "one"})
    assert answer.exit_code == code, answer.output
    document = json.loads(answer.stdout)
    assert document["context"] == "one"
    assert [(one["name"], one["kind"], one["ready"]) for one in document["processes"]] == [
        ("tenure-detector", "service", ready == 2),
        ("churn-predictor", "model", False),
    ]
    assert document["problem"], "there are no pipelines here, and the rest is shown"


def test_a_tunnel_that_breaks_is_told_of(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(display, "err", Console(file=told, width=200))
    with enter("one") as remote:
        open_settings("detector")
        (tunnel,) = remote._tunnels.values()
        process = tunnel._process
        assert process is not None
        process.kill()
        process.wait(10)
        assert tunnel.find_problem() is not None
    assert "service/tenure-detector in namespace tenure broke" in told.getvalue()


def test_a_command_that_is_told_to_end_leaves_no_tunnel(cluster: Cluster, tmp_path: Path) -> None:
    program = (
        "import time; from console.context import enter, open_settings\n"
        "with enter('one'):\n    open_settings('detector'); print('open', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    with process.stdout as lines:
        assert lines.readline() == "open\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert cluster.ended == ["service/tenure-detector"]


def test_without_kubectl_it_is_told_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConsoleError, match="kubectl is not installed"):
        find_kubectl()


def test_a_kubectl_that_says_nothing_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.tunnel._OPEN_SECONDS", 0.2)
    began = time.monotonic()
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    with Tunnel(silent, "n", "s", 1) as tunnel, pytest.raises(ConsoleError, match="kubectl said nothing"):
        tunnel.wait()
    assert time.monotonic() - began < 10


def test_needs_that_nobody_knows_are_a_mistake() -> None:
    wrong: Callable[..., Any] = open_settings
    with pytest.raises(ValueError, match="cellar"):
        wrong("cellar")
