from __future__ import annotations

import json
from typing import Any

import pytest

from installer import documents as change
from installer.errors import SourceError

CONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "inferenceservice-config", "namespace": "kserve"},
    "data": {
        "deploy": '{"defaultDeploymentMode": "Serverless"}',
        "ingress": '{"enableGatewayApi": false, "ingressDomain": "example.com", "urlScheme": "http"}',
        "agent": '{"image" : "kserve/agent:v1", "cpuRequest": "100m"}',
        "logger": '{"image" : "kserve/agent:v1"}',
        "storageInitializer": '{"image" : "kserve/storage-initializer:v1"}',
    },
}


def make_type(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {"group": name.partition(".")[2]},
    }


def names(documents: list[dict[str, Any]]) -> list[str]:
    return [one["metadata"]["name"] for one in documents]


def test_envoy_gateway_comes_without_the_types_of_the_gateway_api_and_their_guard() -> None:
    found = [
        make_type("tcproutes.gateway.networking.k8s.io"),
        make_type("xmeshes.gateway.networking.x-k8s.io"),
        make_type("envoyproxies.gateway.envoyproxy.io"),
        {
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "safe-upgrades.gateway.networking.k8s.io"},
        },
        {
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "safe-upgrades.gateway.networking.k8s.io"},
        },
        {"kind": "ValidatingAdmissionPolicy", "metadata": {"name": "somebody-elses"}},
    ]
    assert names(change.drop_gateway_api(found)) == ["envoyproxies.gateway.envoyproxy.io", "somebody-elses"]


def test_kserve_comes_without_controllers_that_nobody_needs() -> None:
    found = [
        make_type("inferenceservices.serving.kserve.io"),
        make_type("llminferenceservices.serving.kserve.io"),
        make_type("inferencepools.inference.networking.k8s.io"),
        {"kind": "Deployment", "metadata": {"name": "kserve-controller-manager"}},
        {"kind": "Deployment", "metadata": {"name": "kserve-localmodel-controller-manager"}},
        {"kind": "Certificate", "metadata": {"name": "llmisvc-serving-cert"}},
        {"kind": "Certificate", "metadata": {"name": "serving-cert"}},
    ]
    assert names(change.select_kserve(found)) == [
        "inferenceservices.serving.kserve.io",
        "kserve-controller-manager",
        "serving-cert",
    ]


def test_kserve_is_set_to_standard_mode_and_keeps_what_else_it_has() -> None:
    [changed] = change.configure_kserve([CONFIG], gateway="kserve/gateway", domain="kserve.example.com")
    assert json.loads(changed["data"]["deploy"]) == {"defaultDeploymentMode": "Standard"}
    ingress = json.loads(changed["data"]["ingress"])
    assert ingress["enableGatewayApi"] is True
    assert ingress["ingressDomain"] == "kserve.example.com"
    assert ingress["urlScheme"] == "http"
    assert json.loads(changed["data"]["agent"])["image"] == "kserve/agent:v1"
    kept = json.loads(changed["data"]["inferenceService"])["serviceAnnotationDisallowedList"]
    assert {"tenure.dev/rollout", "tenure.dev/last-transition", "tenure.dev/promote"} <= set(kept)
    assert "Serverless" in str(CONFIG["data"]), "the original is left alone"


def test_another_file_in_kserves_place_is_told() -> None:
    with pytest.raises(SourceError, match="inferenceservice-config"):
        change.configure_kserve([make_type("a.b")], gateway="a/b", domain="c")


@pytest.mark.parametrize("text", ["{", "[]", "<html>"])
def test_a_configuration_that_is_no_json_is_told(text: str) -> None:
    broken = {**CONFIG, "data": {**CONFIG["data"], "ingress": text}}
    with pytest.raises(SourceError, match="`ingress` is no"):
        change.configure_kserve([broken], gateway="a/b", domain="c")


def test_argos_default_retries_are_taken_away() -> None:
    argo = {
        "kind": "ConfigMap",
        "metadata": {"name": "workflow-controller-configmap"},
        "data": {"workflowDefaults": "retryStrategy", "artifactRepository": "kept"},
    }
    [changed] = change.keep_retries([argo])
    assert changed["data"] == {"artifactRepository": "kept"}
    assert "workflowDefaults" in argo["data"]


def test_missing_namespaces_are_put_in_front() -> None:
    service = {"kind": "Service", "metadata": {"name": "s", "namespace": "eg"}}
    own = {"kind": "Namespace", "metadata": {"name": "eg"}}
    assert [one["kind"] for one in change.add_namespaces([service])] == ["Namespace", "Service"]
    assert change.add_namespaces([own, service]) == [own, service]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("postgres:17", "m.example.com/x/docker.io/library/postgres:17"),
        ("kserve/agent:v1", "m.example.com/x/docker.io/kserve/agent:v1"),
        ("quay.io/a/b:1", "m.example.com/x/quay.io/a/b:1"),
        ("localhost:5000/a:1", "m.example.com/x/localhost:5000/a:1"),
        ("m.example.com/x/quay.io/a/b:1", "m.example.com/x/quay.io/a/b:1"),
    ],
)
def test_an_image_is_found_at_the_mirror_by_its_full_name(image: str, expected: str) -> None:
    assert change.mirror_image(image, "m.example.com/x") == expected


def test_images_in_settings_variables_and_arguments_are_mirrored_too() -> None:
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "containers": [
                {
                    "image": "quay.io/a/b@sha256:" + "0" * 64,
                    "args": ["--executor-image", "quay.io/argoproj/argoexec:v4", "--not-an-image=quay"],
                    "env": [{"name": "V2_DRIVER_IMAGE", "value": "ghcr.io/kubeflow/kfp-driver:2.17.0"}],
                }
            ]
        },
    }
    described = {**make_type("a.b"), "description": "use docker.io/library/busybox:1"}
    first, second, third = change.mirror_images([deployment, CONFIG, described], "m")
    container = first["spec"]["containers"][0]
    assert container["image"].startswith("m/quay.io/a/b@sha256:")
    assert container["args"] == ["--executor-image", "m/quay.io/argoproj/argoexec:v4", "--not-an-image=quay"]
    assert container["env"][0]["value"] == "m/ghcr.io/kubeflow/kfp-driver:2.17.0"
    assert json.loads(second["data"]["agent"])["image"] == "m/docker.io/kserve/agent:v1"
    assert third == described


def test_without_a_mirror_nothing_changes() -> None:
    assert change.mirror_images([CONFIG], "") == [CONFIG]
