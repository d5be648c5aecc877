"""A reconciler with a real supervisord, a real Envoy and a real store; the model server is a tiny one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from minio import Minio

from clients.settings import Settings
from clients.store import Store
from embedded.gateway import Gateway
from embedded.home import Home
from embedded.kubernetes.registry import Registry
from embedded.kubernetes.resources import HTTP_ROUTES, INFERENCE_SERVICES
from embedded.kubernetes.storage import Storage
from embedded.reconciler import Reconciler
from embedded.reconciler.models import ModelCache
from embedded.reconciler.router import Router
from embedded.supervisor import Supervisor

# Says its model's content; a model that says "broken" makes it end, one that says "stuck" is never ready.
SERVER = """
import asyncio, os, pathlib, signal, sys

options = dict(part[2:].split("=", 1) for part in sys.argv[1:])
version = pathlib.Path(options["model_dir"], "model.txt").read_text().strip()
if version == "broken":
    sys.exit("BundleError: model.txt was altered")
logger = os.environ.get("TENURE_LOGGER_URL", "")

async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()
            for line in head.lower().splitlines():
                if line.startswith("content-length:"):
                    await reader.readexactly(int(line.split(":")[1]))
            ready = head.split()[1].endswith("/ready")
            status = "503 No" if ready and version == "stuck" else "200 OK"
            body = '{"model_name": "%s", "model_version": "%s", "pid": %d, "logger": "%s"}' % (
                options["model_name"], version, os.getpid(), logger)
            text = f"HTTP/1.1 {status}\\r\\ncontent-type: application/json\\r\\n"
            text += f"content-length: {len(body)}\\r\\n\\r\\n"
            writer.write((text + body).encode())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(options["http_port"]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
    await server.serve_forever()

try:
    asyncio.run(main())
except asyncio.CancelledError:
    pass
"""
HOST = "telco-default.tenure.example.com"


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Poll a condition and return what it gave; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not (outcome := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)
    return outcome


def make_model(version: str, **more: Any) -> dict[str, Any]:
    return {"modelFormat": {"name": "tenure"}, "storageUri": f"s3://tenure/tiny/{version}", **more}


def make_service(stable: str, canary: str | None = None, percent: int = 20, **more: Any) -> dict[str, Any]:
    """Return an InferenceService `telco`; with a canary `green` when there is one."""
    spec: dict[str, Any] = {"predictor": {"minReplicas": 1, "model": make_model(stable), **more}}
    if canary is not None:
        predictor = {"name": "green", "model": make_model(canary, name="kserve-container")}
        spec["canary"] = [{"predictor": predictor, "trafficPercent": percent}]
    return {
        "metadata": {"name": "telco", "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": spec,
    }


class Platform:
    """What the reconciler works with, and shorthands for tests."""

    def __init__(self, home: Home, cache: ModelCache, script: Path) -> None:
        self.home = home
        self.supervisor = Supervisor(home)
        self.gateway = Gateway.for_home(home)
        self._cache = cache
        runtime = {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ServingRuntime",
            "metadata": {"name": "tenure"},
            "spec": {
                "protocolVersions": ["v2"],
                "supportedModelFormats": [{"name": "tenure"}],
                "containers": [
                    {
                        "name": "kserve-container",
                        "command": ["python"],
                        "args": [
                            "-I",
                            str(script),
                            "--model_name={{.Name}}",
                            "--model_dir=/mnt/models",
                            "--http_port=8080",
                            "--grpc_port=8081",
                        ],
                    }
                ],
            },
        }
        self.storage = Storage(home.kubernetes_dir / "objects.db")
        self.registry = Registry(self.storage, [runtime])
        self.reconciler: Reconciler | None = None

    def start(self) -> None:
        router = Router(self.registry, self.gateway, "tenure.example.com")
        self.reconciler = Reconciler(
            self.home, self.registry, self.supervisor, self._cache, router, "tenure.example.com"
        )
        self.reconciler.start()

    def stop(self) -> None:
        if self.reconciler is not None:
            self.reconciler.end()
            self.reconciler = None

    def apply(self, body: dict[str, Any]) -> None:
        if self.storage.get(INFERENCE_SERVICES.key, "default", "telco") is None:
            self.registry.create(INFERENCE_SERVICES, "default", body)
        else:
            self.registry.change(
                INFERENCE_SERVICES, "default", "telco", lambda old: {**old, "spec": body["spec"]}
            )

    def route(self, **weights: int) -> None:
        """Share the traffic between variants: stable=80, green=20."""
        backends = [
            {
                "name": "telco-predictor" if name == "stable" else f"telco-{name}-predictor",
                "port": 80,
                "weight": weight,
            }
            for name, weight in weights.items()
        ]
        spec = {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": [HOST],
            "rules": [{"backendRefs": backends}],
        }
        body = {"metadata": {"name": "telco"}, "spec": spec}
        if self.storage.get(HTTP_ROUTES.key, "default", "telco") is None:
            self.registry.create(HTTP_ROUTES, "default", body)
        else:
            self.registry.change(HTTP_ROUTES, "default", "telco", lambda old: {**old, "spec": spec})

    def get_status(self) -> dict[str, Any]:
        body = self.storage.get(INFERENCE_SERVICES.key, "default", "telco") or {}
        status: dict[str, Any] = body.get("status") or {}
        return status

    def get_condition(self, kind: str) -> dict[str, Any]:
        for condition in self.get_status().get("conditions", []):
            if condition["type"] == kind:
                found: dict[str, Any] = condition
                return found
        return {}

    def is_true(self, kind: str) -> bool:
        """Return whether a condition is True for the object as it is now."""
        body = self.storage.get(INFERENCE_SERVICES.key, "default", "telco") or {}
        observed = self.get_status().get("observedGeneration")
        return self.get_condition(kind).get("status") == "True" and observed == body["metadata"]["generation"]

    def wait_true(self, kind: str) -> None:
        wait_until(lambda: self.is_true(kind), f"{kind}: {self.get_status()}")

    def ask(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.home.state.ports.gateway}/v2/models/telco/infer"
        response = httpx.post(url, json={}, headers={"host": HOST}, trust_env=False, timeout=10)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def ask_version(self) -> str | None:
        """Return the answering version, None for an error."""
        try:
            return str(self.ask()["model_version"])
        except httpx.HTTPError:
            return None

    def list_programs(self) -> list[str]:
        return sorted(name for name in self.supervisor.list() if "predictor" in name)


@pytest.fixture(scope="session")
def tiny_models(store: Store) -> Store:
    """Models in the store: tiny/v1, tiny/v2, one that is broken and one that is never ready."""
    for version in ("v1", "v2", "v3", "broken", "stuck"):
        store.put_bytes(version.encode(), f"s3://tenure/tiny/{version}/model.txt")
        store.put_bytes(json.dumps({"of": version}).encode(), f"s3://tenure/tiny/{version}/more/about.json")
    return store


@pytest.fixture
def client(store_settings: Settings) -> Minio:
    return Minio(
        store_settings.s3_url.removeprefix("http://"),
        access_key=store_settings.s3_access_key.get_secret_value(),
        secret_key=store_settings.s3_secret_key.get_secret_value(),
        secure=False,
    )


@pytest.fixture
def platform(tmp_path: Path, tiny_models: Store, client: Minio) -> Iterator[Platform]:
    home = Home.open(tmp_path / "home", create=True)
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    made = Platform(home, ModelCache(home.models_dir, client), script)
    made.supervisor.launch()
    made.gateway.prepare()
    log = home.log_file("envoy")
    with log.open("wb") as output:
        envoy = subprocess.Popen(made.gateway.command(), stdout=output, stderr=subprocess.STDOUT)
    with contextlib.ExitStack() as stack:
        stack.callback(made.storage.close)
        stack.callback(made.gateway.close)
        stack.callback(envoy.wait, 20)
        stack.callback(envoy.terminate)
        stack.callback(made.supervisor.shut_down)
        stack.callback(made.stop)
        wait_until(lambda: made.gateway.describe_problem() is None, f"Envoy: {log}")
        made.start()
        yield made
