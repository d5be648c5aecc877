"""Failures made on a real cluster: the doctor reads them from the API and names each cause."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from console.doctor import gathering
from console.doctor.api import Api
from console.doctor.finding import Finding, Mark, examine
from console.doctor.observation import Cluster as Observed
from console.doctor.observation import Layout
from console.doctor.suite import BEFORE, CLUSTER

IMAGE = "debian:bookworm-slim"
SMALL = {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "64Mi"}}
RESTRICTED = ("pod-security.kubernetes.io/enforce", "restricted")
SLEEP = "exec sleep 3600"

Document = dict[str, Any]
Look = Callable[[str], Observed]


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that the doctor takes for Tenure's, for all tests of this module."""
    cluster = request.getfixturevalue("cluster")
    name = f"test-doctor-{secrets.token_hex(3)}"
    cluster.run("create", "namespace", name)
    settings = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "tenure-settings"}, "data": {}}
    cluster.apply(settings, namespace=name)
    yield name
    cluster.run("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def look(request: pytest.FixtureRequest) -> Look:
    """Look at the cluster, with Tenure and the runs in this namespace."""
    file: Path = request.getfixturevalue("cluster").kubeconfig
    context = yaml.safe_load(file.read_text(encoding="utf-8"))["current-context"]

    def observe(namespace: str) -> Observed:
        layout = Layout(tenure=namespace, runs=namespace)
        return gathering.observe(Api.connect(file, context), context, layout, pre=True)

    return observe


def make_deployment(name: str, **changes: Any) -> Document:
    """Return a Deployment; `changes` go into its container, those below `pod` into its pod."""
    container = {"name": "main", "image": IMAGE, "command": ["sh", "-c", SLEEP], "resources": SMALL}
    pod = {"terminationGracePeriodSeconds": 0, **changes.pop("pod", {}), "containers": [container | changes]}
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def shell(script: str) -> Document:
    return {"command": ["sh", "-c", script]}


def volume(**source: Any) -> Document:
    return {
        "pod": {"volumes": [{"name": "data", **source}]},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "nowhere"},
    "spec": {
        "storageClassName": "no-such-class",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}},
    },
}

BROKEN: Sequence[tuple[Document, str]] = (
    (
        make_deployment("image", image="localhost:1/no-such-image:1"),
        "cannot be pulled.*cannot reach the registry",
    ),
    (make_deployment("name", image="No Image:1"), "this is no image name"),
    (
        make_deployment("secret", envFrom=[{"secretRef": {"name": "no-such-secret"}}]),
        "Secret no-such-secret is not in its namespace",
    ),
    (
        make_deployment("mount", **volume(configMap={"name": "no-such-map"})),
        "ConfigMap no-such-map is not in its namespace",
    ),
    (make_deployment("root", securityContext={"runAsNonRoot": True}), "its image would run as root"),
    (
        make_deployment("memory", **shell("exec tail /dev/zero"), resources={"limits": {"memory": "12Mi"}}),
        "needs more memory than its limit",
    ),
    (make_deployment("cpu", resources={"requests": {"cpu": "900"}}), "enough cpu left"),
    (
        make_deployment("claim", **volume(persistentVolumeClaim={"claimName": "nowhere"})),
        "not scheduled, its volume is missing",
    ),
    (
        make_deployment(
            "inotify", **shell("echo 'failed to create fsnotify watcher: too many open files'; exit 1")
        ),
        "inotify",
    ),
    (
        make_deployment(
            "database", **shell("echo 'dial tcp 10.0.0.1:3306: connect: connection refused'; exit 2")
        ),
        "cannot reach MySQL",
    ),
    (
        make_deployment("account", pod={"serviceAccountName": "nobody"}),
        "ServiceAccount nobody does not exist",
    ),
    (make_deployment("taint", pod={"nodeSelector": {"no": "such-node"}}), "not scheduled"),
)


def find(findings: Sequence[Finding], *words: str) -> Finding | None:
    """Return what is wrong with something, by words of the text."""
    return next(
        (
            one
            for one in findings
            if one.mark is Mark.BAD and all(re.search(word, one.text) for word in words)
        ),
        None,
    )


def diagnose(seen: Observed) -> list[Finding]:
    return [finding for section in examine(CLUSTER, seen) for finding in section.findings]


def wait_for(look: Look, namespace: str, *wanted: Sequence[str], seconds: float = 180) -> list[Finding]:
    """Look until all of that is found; fail with what was found instead."""
    deadline = time.monotonic() + seconds
    while True:
        findings = diagnose(look(namespace))
        missing = [words for words in wanted if find(findings, *words) is None]
        if not missing:
            return findings
        told = "\n".join(
            f"{one.mark} {one.check}: {one.text}" for one in findings if one.mark is not Mark.GOOD
        )
        assert time.monotonic() < deadline, f"not found: {missing}; found:\n{told}"
        time.sleep(1)


def test_nothing_is_wrong_with_the_ground(look: Look, place: str) -> None:
    """What the lab has is healthy: no check may blame it."""
    told = [one for one in diagnose(look(place)) if one.mark is Mark.BAD]
    ours = (
        "configuration",
        "runtime",
        "pipelines",
        "crds",
    )  # this namespace has no Tenure, the lab no Kubeflow
    assert [one for one in told if one.check not in ours] == []
    assert not [one for one in told if one.check == "crds" and "argoproj" not in one.text]


def test_an_install_could_begin(look: Look, place: str) -> None:
    sections = examine(BEFORE, look(place))
    assert [one for section in sections for one in section.findings if one.mark is Mark.BAD] == []


def test_workloads_that_cannot_run(cluster: Any, look: Look, place: str) -> None:
    """All at once, as on a bad day; each is told apart."""
    cluster.apply(CLAIM, *(document for document, _ in BROKEN), namespace=place)
    wanted = [(f"deployment {document['metadata']['name']} ", cause) for document, cause in BROKEN]
    findings = wait_for(look, place, ("nowhere", "there is no StorageClass no-such-class"), *wanted)
    assert all(one.fix for one in findings if one.mark is Mark.BAD)
    cluster.run("-n", place, "delete", "deployments,pvc", "--all", "--wait=false")


def test_pods_that_are_refused(cluster: Any, look: Look, place: str) -> None:
    cluster.run("label", "namespace", place, f"{RESTRICTED[0]}={RESTRICTED[1]}", "--overwrite")
    cluster.apply(make_deployment("privileged"), namespace=place)
    wait_for(look, place, ("deployment privileged ", "Pod Security .restricted:latest. refuses its pods"))
    cluster.run("label", "namespace", place, f"{RESTRICTED[0]}-")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
    cluster.apply(quota | {"spec": {"hard": {"limits.cpu": "1", "pods": "1"}}}, namespace=place)
    stated = {"limits": {"cpu": "2", "memory": "8Mi"}}
    cluster.apply(make_deployment("unstated"), make_deployment("big", resources=stated), namespace=place)
    wait_for(
        look,
        place,
        ("deployment unstated ", "quota small wants requests and limits"),
        ("deployment big ", "quota small is used up"),
    )
    cluster.run("-n", place, "delete", "deployments,resourcequota", "--all", "--wait=false")


def test_a_webhook_without_a_server(cluster: Any, look: Look, place: str) -> None:
    """A webhook for this namespace alone, whose Service has no pod."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "absent"}}
    cluster.apply(
        service | {"spec": {"selector": {"app": "absent"}, "ports": [{"port": 443}]}}, namespace=place
    )
    hook = {
        "name": "absent.tenure.dev",
        "clientConfig": {"service": {"name": "absent", "namespace": place, "path": "/"}},
        "rules": [
            {
                "apiGroups": ["serving.kserve.io"],
                "apiVersions": ["v1beta1"],
                "operations": ["CREATE"],
                "resources": ["inferenceservices"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": place},
        "webhooks": [hook],
    }
    try:
        cluster.apply(configuration, namespace=place)
        wait_for(
            look,
            place,
            ("absent.tenure.dev has no endpoints", f"{place}/absent"),
            ("caBundle of the webhooks", "it is missing"),
            ("webhook absent.tenure.dev does not answer", "no pod behind it is ready"),
        )
        cluster.run("-n", place, "delete", "service", "absent")
        wait_for(
            look,
            place,
            (f"calls Service {place}/absent, which does not exist",),
            ("webhook absent.tenure.dev does not answer", "its Service does not exist"),
        )
    finally:
        cluster.run("delete", "validatingwebhookconfiguration", place, "--ignore-not-found")


def make_service(name: str, model_format: str, account: str | None = None) -> Document:
    predictor: Document = {
        "minReplicas": 1,
        "model": {
            "modelFormat": {"name": model_format},
            "protocolVersion": "v2",
            "storageUri": f"s3://tenure/bundles/{'0' * 64}",
        },
    }
    if account:
        predictor["serviceAccountName"] = account
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "labels": {"tenure.dev/project": name},
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {"predictor": predictor},
    }


def test_models_that_do_not_serve(cluster: Any, look: Look, place: str) -> None:
    runtime = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "tenure"},
        "spec": {
            "supportedModelFormats": [{"name": "tenure", "version": "1", "autoSelect": True}],
            "protocolVersions": ["v2"],
            "containers": [{"name": "kserve-container", "image": IMAGE, "resources": SMALL}],
        },
    }
    wrong = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
    key = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "tenure-s3",
            "annotations": {
                "serving.kserve.io/s3-endpoint": "seaweedfs.kubeflow:9000",
                "serving.kserve.io/s3-usehttps": "0",
                "serving.kserve.io/s3-region": "us-east-1",
            },
        },
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in wrong.items()},
    }
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "tenure-predictor"},
        "secrets": [{"name": "tenure-s3"}],
    }
    cluster.apply(
        runtime,
        key,
        account,
        make_service("strange", "no-such-format"),
        make_service("locked", "tenure", "tenure-predictor"),
        make_route("astray", place),
        namespace=place,
    )
    wait_for(
        look,
        place,
        ("InferenceService strange", "finds no runtime"),
        ("InferenceService locked", "refuses this S3 key"),
        ("HTTPRoute locked-customers is not resolved", "no-such-service"),
    )
    cluster.run("-n", place, "delete", "inferenceservices,httproutes", "--all", "--wait=false")


def make_route(hostname: str, namespace: str) -> Document:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "locked-customers"},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": [f"{hostname}-{namespace}.doctor.example.com"],
            "rules": [{"backendRefs": [{"name": "no-such-service", "port": 80}]}],
        },
    }
