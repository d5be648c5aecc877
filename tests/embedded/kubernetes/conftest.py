"""A running API on TLS, without controllers."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded.certificates import ensure_certificates
from embedded.home import Home
from embedded.kubernetes.listener import Listener
from embedded.kubernetes.registry import Registry
from embedded.kubernetes.server import make_app
from embedded.kubernetes.storage import Storage

RUNTIME = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "tenure"},
    "spec": {
        "protocolVersions": ["v2", "grpc-v2", "v1"],
        "supportedModelFormats": [{"name": "tenure", "version": "1", "autoSelect": True}],
        "containers": [{"name": "kserve-container", "image": "tenure-predictor:0.1.0"}],
    },
}


def make_service(name: str = "telco", /, *canaries: dict[str, Any], **predictor: Any) -> dict[str, Any]:
    """Return an InferenceService whose stable model is v1."""
    spec: dict[str, Any] = {
        "predictor": {
            "minReplicas": 1,
            "model": {
                "modelFormat": {"name": "tenure"},
                "protocolVersion": "v2",
                "storageUri": "s3://tenure/bundles/v1",
            },
            **predictor,
        }
    }
    if canaries:
        spec["canary"] = list(canaries)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": spec,
    }


def make_canary(name: str = "green", percent: int = 20, **predictor: Any) -> dict[str, Any]:
    """Return an entry of spec.canary whose model is v2."""
    return {
        "predictor": {
            "name": name,
            "minReplicas": 1,
            "model": {
                "name": "kserve-container",
                "modelFormat": {"name": "tenure"},
                "storageUri": "s3://tenure/bundles/v2",
            },
            **predictor,
        },
        "trafficPercent": percent,
    }


def make_route(name: str = "telco", **weights: int) -> dict[str, Any]:
    """Return an HTTPRoute that shares its traffic between Services."""
    backends = [
        {"name": service.replace("_", "-"), "port": 80, "weight": weight}
        for service, weight in (weights or {"telco_predictor": 100}).items()
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": [f"{name}-default.tenure.example.com"],
            "rules": [{"backendRefs": backends}],
        },
    }


@dataclass(frozen=True)
class Api:
    """A running API.

    Attributes:
        url: Its address.
        token: Its bearer token.
        ca: The authority that signed its certificate.
        kubeconfig: For kubectl.
        registry: Its objects.
    """

    url: str
    token: str
    ca: Path
    kubeconfig: Path
    registry: Registry

    def kubectl(
        self,
        *arguments: str,
        stdin: Any = None,
        check: bool = True,
        binary: str | Path = Path(sys.executable).parent / "kubectl",
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl against this API; `stdin` is sent as JSON."""
        result = subprocess.run(
            [str(binary), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=None if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment,
        )
        if check:
            assert result.returncode == 0, result.stderr
        return result

    @property
    def trust(self) -> ssl.SSLContext:
        """What an HTTP client needs to trust this API."""
        return ssl.create_default_context(cafile=str(self.ca))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a client: discovery is cached beside the kubeconfig, not in the user's home."""
        kept = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        return kept | {"KUBECACHEDIR": str(self.kubeconfig.parent / "cache"), "NO_PROXY": "*"}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Return objects in a fresh file, with one ServingRuntime."""
    storage = Storage(tmp_path / "kubernetes.db")
    yield Registry(storage, [RUNTIME])
    storage.close()


@pytest.fixture
def api(tmp_path: Path, registry: Registry) -> Iterator[Api]:
    """Serve `registry` on a free port."""
    home = Home.open(tmp_path / "home", create=True)
    certificates = ensure_certificates(home)
    token = home.secrets.api_token.get_secret_value()
    port = home.state.ports.api
    listener = Listener(make_app(registry, token), port, certificates.server)
    thread = threading.Thread(target=listener.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not listener.started:
        assert thread.is_alive(), "the listener ended"
        assert time.monotonic() < deadline, "the listener did not start"
        thread.join(0.01)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "laptop",
                "contexts": [{"name": "laptop", "context": {"cluster": "laptop", "user": "laptop"}}],
                "clusters": [
                    {
                        "name": "laptop",
                        "cluster": {
                            "server": f"https://127.0.0.1:{port}",
                            "certificate-authority": str(certificates.ca),
                        },
                    }
                ],
                "users": [{"name": "laptop", "user": {"token": token}}],
            }
        )
    )
    kubeconfig.chmod(0o600)
    yield Api(f"https://127.0.0.1:{port}", token, certificates.ca, kubeconfig, registry)
    listener.end()
    thread.join(20)
    assert not thread.is_alive(), "the listener did not end"
