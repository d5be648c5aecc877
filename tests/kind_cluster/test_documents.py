from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from installer import documents as change
from installer.credentials import read_secret
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
        "localModel": '{"defaultJobImage" : "kserve/storage-initializer:v1", "fsGroup": 1000}',
        "kernelcache": '{"mcvImage": "kserve/mcv:v1", "prefetchImage": "registry.access.redhat.com/u:1"}',
        "router": '{"image" : "kserve/router:v1", "imagePullPolicy": "IfNotPresent"}',
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
        {"kind": "DaemonSet", "metadata": {"name": "kserve-localmodelnode-agent"}},
        make_type("kernelcaches.serving.kserve.io"),
        {"kind": "DaemonSet", "metadata": {"name": "kserve-kernelcachenode-agent"}},
        {"kind": "ServiceAccount", "metadata": {"name": "kserve-kernelcachenode-agent"}},
        {"kind": "Certificate", "metadata": {"name": "llmisvc-serving-cert"}},
        {"kind": "Certificate", "metadata": {"name": "serving-cert"}},
    ]
    assert names(change.select_kserve(found)) == [
        "inferenceservices.serving.kserve.io",
        "kserve-controller-manager",
        "kernelcaches.serving.kserve.io",
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


DEFAULTS = """
# as Kubeflow Pipelines has them
metadata: {labels: {a: b}}
spec:
  ttlStrategy: {secondsAfterCompletion: 604800}
  podGC: {strategy: OnPodCompletion}
  securityContext: {runAsNonRoot: true}
  retryStrategy: {limit: 1}
  templateDefaults:
    activeDeadlineSeconds: 3600
    retryStrategy: {limit: 3, retryPolicy: OnError}
"""


def make_argo(text: str) -> dict[str, Any]:
    return {
        "kind": "ConfigMap",
        "metadata": {"name": "workflow-controller-configmap"},
        "data": {"workflowDefaults": text, "artifactRepository": "kept"},
    }


def test_argos_default_retries_are_taken_away_and_its_other_defaults_stay() -> None:
    argo = make_argo(DEFAULTS)
    [changed] = change.keep_retries([argo])
    assert changed["data"]["artifactRepository"] == "kept"
    assert yaml.safe_load(changed["data"]["workflowDefaults"]) == {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "ttlStrategy": {"secondsAfterCompletion": 604800},
            "podGC": {"strategy": "OnPodCompletion"},
            "securityContext": {"runAsNonRoot": True},
            "templateDefaults": {"activeDeadlineSeconds": 3600},
        },
    }
    assert argo["data"]["workflowDefaults"] == DEFAULTS


@pytest.mark.parametrize("text", ["", "spec:", "spec: {templateDefaults: }", "{}"])
def test_argo_without_default_retries_is_left_as_it_is(text: str) -> None:
    [changed] = change.keep_retries([make_argo(text)])
    assert yaml.safe_load(changed["data"]["workflowDefaults"]) == yaml.safe_load(text)


def test_argos_defaults_that_are_no_yaml_are_told() -> None:
    with pytest.raises(SourceError, match="workflowDefaults"):
        change.keep_retries([make_argo("spec: {")])


def test_missing_namespaces_are_known() -> None:
    service = {"kind": "Service", "metadata": {"name": "s", "namespace": "eg"}}
    own = {"kind": "Namespace", "metadata": {"name": "eg"}}
    role = {"kind": "ClusterRole", "metadata": {"name": "r"}}
    assert change.list_missing_namespaces([service, service, role]) == ["eg"]
    assert change.list_missing_namespaces([own, service]) == []


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
    assert (
        json.loads(second["data"]["localModel"])["defaultJobImage"]
        == "m/docker.io/kserve/storage-initializer:v1"
    )
    assert json.loads(second["data"]["kernelcache"]) == {
        "mcvImage": "m/docker.io/kserve/mcv:v1",
        "prefetchImage": "m/registry.access.redhat.com/u:1",
    }
    assert json.loads(second["data"]["router"])["imagePullPolicy"] == "IfNotPresent"
    assert third == described


def test_without_a_mirror_nothing_changes() -> None:
    assert change.mirror_images([CONFIG], "") == [CONFIG]


def test_every_pod_is_pulled_with_the_login() -> None:
    def make(kind: str, namespace: str, **pod: Any) -> dict[str, Any]:
        spec = {"template": {"spec": {"containers": [], **pod}}}
        return {"kind": kind, "metadata": {"name": "x", "namespace": namespace}, "spec": spec}

    account = {"kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "one"}}
    envoy = {
        "kind": "EnvoyProxy",
        "metadata": {"name": "e", "namespace": "three"},
        "spec": {"provider": {"kubernetes": {"envoyDeployment": {"container": {"image": "e:1"}}}}},
    }
    bare = make("Deployment", "two", imagePullSecrets=[{"name": "theirs"}])
    given = [account, make("Deployment", "one", serviceAccountName="a"), bare, envoy, make_type("a.b")]
    changed = change.add_pull_secret(given, '{"auths": {}}')
    secrets = [one for one in changed if one["kind"] == "Secret"]
    assert [one["metadata"]["namespace"] for one in secrets] == ["one", "two", "three"]
    assert {one["type"] for one in secrets} == {"kubernetes.io/dockerconfigjson"}
    assert read_secret(secrets[0]) == {".dockerconfigjson": '{"auths": {}}'}
    ours = [{"name": "tenure-pull"}]
    rest = changed[len(secrets) :]
    assert rest[0]["imagePullSecrets"] == ours
    assert "imagePullSecrets" not in rest[1]["spec"]["template"]["spec"]
    assert rest[2]["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "theirs"}, *ours]
    assert rest[3]["spec"]["provider"]["kubernetes"]["envoyDeployment"]["pod"]["imagePullSecrets"] == ours
    assert rest[4] == given[4]
    assert change.add_pull_secret(given, None) == given
