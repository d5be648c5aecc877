"""What is tried as a dry run: one create for each webhook that a roll-out passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from clients.names import DEPLOYMENT_MODE, MODEL_FORMAT
from console.doctor.document import Document, name_of
from console.doctor.observation import Cluster

_NAME = "tenure-doctor"
_SERVING = "serving.kserve.io"


class Attempt(NamedTuple):
    """A document to create as a dry run, and where."""

    name: str
    path: str
    document: Document


def list_attempts(cluster: Cluster) -> Iterator[Attempt]:
    """Yield what to try; in the namespace `default` while there is none of ours."""
    known = {name_of(one) for one in cluster.every("namespaces")}
    namespace = cluster.layout.tenure if cluster.layout.tenure in known else "default"
    if cluster.serves(f"{_SERVING}/v1beta1", "inferenceservices"):
        yield Attempt(
            "an InferenceService",
            f"/apis/{_SERVING}/v1beta1/namespaces/{namespace}/inferenceservices",
            make_service(namespace),
        )
        yield Attempt("a model server's pod", f"/api/v1/namespaces/{namespace}/pods", make_pod(namespace))
    if cluster.serves(f"{_SERVING}/v1alpha1", "servingruntimes"):
        yield Attempt(
            "a ServingRuntime",
            f"/apis/{_SERVING}/v1alpha1/namespaces/{namespace}/servingruntimes",
            make_runtime(namespace),
        )
    if cluster.serves("cert-manager.io/v1", "certificates"):
        yield Attempt(
            "a Certificate",
            f"/apis/cert-manager.io/v1/namespaces/{namespace}/certificates",
            _make_certificate(namespace),
        )


def make_service(namespace: str) -> Document:
    """Return an InferenceService that needs nothing else to be there."""
    return {
        "apiVersion": f"{_SERVING}/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": _NAME,
            "namespace": namespace,
            "annotations": {DEPLOYMENT_MODE: "Standard"},
        },
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": MODEL_FORMAT},
                    "protocolVersion": "v2",
                    "storageUri": f"s3://tenure/bundles/{'0' * 64}",
                }
            }
        },
    }


def make_runtime(namespace: str) -> Document:
    """Return a ServingRuntime of a format that nobody has."""
    return {
        "apiVersion": f"{_SERVING}/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": _NAME, "namespace": namespace},
        "spec": {
            "supportedModelFormats": [{"name": _NAME, "version": "1"}],
            "containers": [{"name": "kserve-container", "image": "tenure-predictor"}],
        },
    }


def make_pod(namespace: str) -> Document:
    """Return a pod that Pod Security `restricted` lets pass, and that KServe's webhook is asked about."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": _NAME,
            "namespace": namespace,
            "labels": {f"{_SERVING}/inferenceservice": _NAME},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "kserve-container",
                    "image": "tenure-predictor",
                    "resources": {
                        "requests": {"cpu": "1m", "memory": "1Mi"},
                        "limits": {"cpu": "1m", "memory": "1Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def _make_certificate(namespace: str) -> Document:
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": _NAME, "namespace": namespace},
        "spec": {
            "secretName": _NAME,
            "dnsNames": [f"{_NAME}.{namespace}.svc"],
            "issuerRef": {"name": _NAME, "kind": "Issuer"},
        },
    }
