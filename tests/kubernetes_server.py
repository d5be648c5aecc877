"""The laptop platform's API server without its controllers, as a process: `kubernetes_server.py HOME`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

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


def main(directory: Path) -> None:
    """Write `directory`/kubeconfig and serve until killed."""
    home = Home.open(directory, create=True)
    certificates = ensure_certificates(home)
    token = home.secrets.api_token.get_secret_value()
    port = home.state.ports.api
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(certificates.ca)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
    }
    (directory / "kubeconfig").write_text(json.dumps(document))
    registry = Registry(Storage(directory / "kubernetes.db"), [RUNTIME])
    Listener(make_app(registry, token), port, certificates.server).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
