"""`make up` against a cluster that is played in memory, with manifests of its own."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from clients.settings import Settings
from installer import __main__ as main
from installer import delivery
from installer.options import read_versions
from installer.site import Site

MakeSite = Callable[..., Site]
Document = dict[str, Any]


def make_type(name: str) -> Document:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {"group": name.partition(".")[2]},
    }


def make_controller(name: str, namespace: str) -> Document:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "image": f"quay.io/x/{name}:1"}]}}},
    }


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The third parties' files, small."""
    directory = tmp_path / "manifests"
    directory.mkdir()
    versions = read_versions()
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "inferenceservice-config", "namespace": "kserve"},
        "data": {"deploy": "{}", "ingress": "{}"},
    }
    container = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {"name": "default"},
    }
    files = {
        f"gateway-api-{versions['GATEWAY_API_VERSION']}.yaml": [
            make_type("httproutes.gateway.networking.k8s.io"),
            make_type("gateways.gateway.networking.k8s.io"),
        ],
        f"envoy-gateway-{versions['ENVOY_GATEWAY_VERSION']}.yaml": [
            make_type("gateways.gateway.networking.k8s.io"),
            make_type("envoyproxies.gateway.envoyproxy.io"),
            make_controller("envoy-gateway", "envoy-gateway-system"),
        ],
        f"cert-manager-{versions['CERT_MANAGER_VERSION']}.yaml": [
            make_type("certificates.cert-manager.io"),
            make_controller("cert-manager-webhook", "cert-manager"),
        ],
        f"kserve-{versions['KSERVE_VERSION']}.yaml": [
            make_type("inferenceservices.serving.kserve.io"),
            make_type("servingruntimes.serving.kserve.io"),
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": "kserve", "labels": {"control-plane": "kserve-controller-manager"}},
            },
            config,
            container,
            make_controller("kserve-controller-manager", "kserve"),
            make_controller("llmisvc-controller-manager", "kserve"),
        ],
    }
    for name, documents in files.items():
        (directory / name).write_text(yaml.safe_dump_all(documents))
    make_pipelines(directory, versions)
    return directory


ARGO = "https://github.com/argoproj/argo-workflows/manifests"


def make_pipelines(directory: Path, versions: dict[str, str], ref: str | None = None) -> None:
    """Write the source archives of Kubeflow Pipelines, which asks for Argo at `ref`, and of Argo."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "ml-pipeline", "namespace": "kubeflow"},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mlpipeline-minio-artifact", "namespace": "kubeflow"},
        "stringData": {"accesskey": "minio", "secretkey": "minio123"},
    }
    ref = ref or versions["ARGO_VERSION"]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubeflow"}}
    controller = make_controller("workflow-controller", "kubeflow")
    role = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "argo", "namespace": "kubeflow"},
    }
    argo = "third-party/argo"
    write_archive(
        directory / f"pipelines-{versions['KFP_VERSION']}.tar.gz",
        "pipelines-x/manifests/kustomize",
        {
            "cluster-scoped-resources/kustomization.yaml": [
                {"resources": ["all.yaml", f"../{argo}/installs/namespace/cluster-scoped"]}
            ],
            "cluster-scoped-resources/all.yaml": [namespace],
            f"{argo}/installs/namespace/cluster-scoped/kustomization.yaml": [
                {"resources": [f"{ARGO}/base/crds/minimal?ref={ref}"]}
            ],
            "env/platform-agnostic/kustomization.yaml": [
                {"resources": ["all.yaml", f"../../{argo}/installs/namespace"]}
            ],
            "env/platform-agnostic/all.yaml": [
                service,
                {**service, "metadata": {"name": "ml-pipeline-ui", "namespace": "kubeflow"}},
                secret,
                make_controller("ml-pipeline", "kubeflow"),
            ],
            f"{argo}/installs/namespace/kustomization.yaml": [
                {
                    "namespace": "kubeflow",
                    "resources": [
                        "../../base",
                        f"{ARGO}/namespace-install/workflow-controller-rbac?ref={ref}",
                    ],
                }
            ],
            f"{argo}/base/kustomization.yaml": [
                {"resources": [f"{ARGO}/base/workflow-controller?ref={ref}&timeout=60s"]}
            ],
            "env/gcp/kustomization.yaml": [{"resources": ["https://github.com/somebody/else?ref=main"]}],
        },
    )
    listed: Document = {"resources": ["all.yaml"]}
    write_archive(
        directory / f"argo-workflows-{versions['ARGO_VERSION']}.tar.gz",
        "argo-workflows-x/manifests",
        {
            "base/crds/minimal/kustomization.yaml": [listed],
            "base/crds/minimal/all.yaml": [make_type("workflows.argoproj.io")],
            "base/workflow-controller/kustomization.yaml": [listed],
            "base/workflow-controller/all.yaml": [controller],
            "namespace-install/workflow-controller-rbac/kustomization.yaml": [listed],
            "namespace-install/workflow-controller-rbac/all.yaml": [role],
        },
    )


def write_archive(path: Path, top: str, files: dict[str, list[Document]]) -> None:
    """Write a source archive with files of YAML documents."""
    with tarfile.open(path, "w:gz") as archive:
        for name, documents in files.items():
            text = yaml.safe_dump_all(documents).encode()
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))


class Runs:
    """Plays the runs API."""

    started: list[str] = []  # noqa: RUF012

    def upload(self, _: Path) -> SimpleNamespace:
        return SimpleNamespace(name="abc", id="v1")

    def find(self, name: str, _: str) -> str | None:
        return name if name in self.started else None


@pytest.fixture(autouse=True)
def _delivery(monkeypatch: pytest.MonkeyPatch, store_settings: Settings) -> None:
    """Reach a real object store without a tunnel, and played runs."""

    @contextmanager
    def reach(*_: object) -> Iterator[Settings]:
        yield store_settings

    runs = Runs()
    runs.started = []

    def submit(_: Runs, __: object, *, source: str, name: str, reason: str) -> str:
        assert source == "s3://tenure/data/telco.csv"
        assert reason
        runs.started.append(name)
        return "run-1"

    monkeypatch.setattr(delivery, "reach", reach)
    monkeypatch.setattr(delivery.Runs, "connect", lambda _: runs)
    monkeypatch.setattr(delivery, "submit", submit)


@pytest.fixture
def install(make_site: MakeSite, manifests: Path) -> Callable[..., str]:
    """Return a function that runs `make up` and returns what it printed."""

    def run(**variables: str) -> str:
        site = make_site(MANIFESTS=str(manifests), **variables)
        out = io.StringIO()
        site.progress._out = out
        try:
            main.up(site)
        finally:
            run.printed = out.getvalue()  # type: ignore[attr-defined]
        return out.getvalue()

    return run


@pytest.fixture(name="make_pipelines")
def make_pipelines_fixture(manifests: Path) -> Callable[..., None]:
    """Return a function that writes Kubeflow's archives among the manifests."""
    return partial(make_pipelines, manifests)


@pytest.fixture(name="make_controller")
def make_controller_fixture() -> Callable[[str, str], Document]:
    """Return a function that makes a Deployment."""
    return make_controller
