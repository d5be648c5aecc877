"""Every pod keeps to Pod Security `restricted`, and to some more that we ask of ourselves."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"tenure-detector", "tenure-pilot", "tenure-console", "tenure-mlflow", "tenure-predictor"}
API_USERS = {"tenure-detector", "tenure-pilot", "tenure-console"}
VOLUMES = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}


def find_breaches(pod: dict[str, Any], container: dict[str, Any]) -> list[str]:
    """Return what a container does that `restricted` forbids."""
    whole, own = pod.get("securityContext", {}), container.get("securityContext", {})
    found = []
    if own.get("allowPrivilegeEscalation") is not False:
        found.append("allowPrivilegeEscalation")
    if "ALL" not in own.get("capabilities", {}).get("drop", ()) or own["capabilities"].get("add"):
        found.append("capabilities")
    if not own.get("runAsNonRoot", whole.get("runAsNonRoot")):
        found.append("runAsNonRoot")
    if not own.get("runAsUser", whole.get("runAsUser")):
        found.append("runAsUser")
    if own.get("seccompProfile", whole.get("seccompProfile", {})).get("type") != "RuntimeDefault":
        found.append("seccompProfile")
    if own.get("privileged") or any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("host")
    if any("hostPort" in port for port in container.get("ports", ())):
        found.append("hostPort")
    return found


def test_restricted(rendered: Any) -> None:
    for name, template in rendered.pods():
        pod = template["spec"]
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert not find_breaches(pod, container), f"{name}/{container['name']}"
        for volume in pod.get("volumes", ()):
            assert volume.keys() - {"name"} <= VOLUMES, f"{name}: {volume}"
    for runtime in rendered.list("ServingRuntime"):
        for container in runtime["spec"]["containers"]:  # a runtime has no security context of the whole pod
            assert not find_breaches({}, container)


@pytest.mark.parametrize(
    "change",
    [
        {"allowPrivilegeEscalation": True},
        {"capabilities": {"drop": ["NET_RAW"]}},
        {"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}},
        {"runAsUser": 0},
        {"runAsNonRoot": False},
        {"privileged": True},
        {"seccompProfile": {"type": "Unconfined"}},
    ],
)
def test_breaches_are_found(kind: Any, change: dict[str, Any]) -> None:
    pod = kind.get("Deployment", "tenure-detector")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert find_breaches(pod, {**container, "securityContext": {**container["securityContext"], **change}})


def test_namespace_enforces(rendered: Any) -> None:
    (namespace,) = rendered.list("Namespace")
    labels = namespace["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_containers_are_small_and_read_only(rendered: Any) -> None:
    for name, container in rendered.containers():
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        for part in ("requests", "limits"):
            assert container["resources"][part].keys() >= {"cpu", "memory"}, name
        assert container["imagePullPolicy"] == "IfNotPresent", name


def test_requests_fit_two_cores(kind: Any) -> None:
    total = 0.0
    for one in (*kind.list("Deployment"), *kind.list("StatefulSet")):
        for container in one["spec"]["template"]["spec"]["containers"]:
            total += one["spec"]["replicas"] * read_cpu(container["resources"]["requests"]["cpu"])
    assert total <= 0.5  # Kubeflow Pipelines, KServe, the gateway and a run's steps need theirs


def read_cpu(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def test_services_are_probed(rendered: Any) -> None:
    waiting = {
        f"{name}/{container['name']}"
        for name, template in rendered.pods()
        for container in template["spec"].get("initContainers", ())
    }
    probed = [(name, container) for name, container in rendered.containers() if name not in waiting]
    assert "servingruntime/kserve-container" in dict(probed)
    for name, container in probed:
        assert container.keys() >= {"startupProbe", "readinessProbe", "livenessProbe"}, name
        ports = {port[key] for port in container["ports"] for key in ("name", "containerPort")}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            http = container[kind].get("httpGet")
            assert http is None or http["port"] in ports
        # On a node with too little CPU a start takes minutes: restarting it then never ends.
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 120, name
        # What the one probe has waited for the others need not wait for again.
        assert not [kind for kind in container if "initialDelaySeconds" in str(container[kind])], name


def test_only_users_of_the_api_have_its_token(rendered: Any) -> None:
    for name, template in rendered.pods():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is (name in API_USERS), name
        assert pod["serviceAccountName"] == name
        rendered.get("ServiceAccount", name)
    for account in rendered.list("ServiceAccount", "tenure"):
        assert account["automountServiceAccountToken"] is False, account["metadata"]["name"]


def test_services_do_not_become_settings(rendered: Any) -> None:
    # The Service tenure-pilot would fill TENURE_PILOT_PORT with tcp://ADDRESS:8080.
    for name, template in rendered.pods():
        assert template["spec"]["enableServiceLinks"] is False, name


def test_selectors_find_their_pods(rendered: Any) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in rendered.pods()}
    selectors = [(one, one["spec"]["selector"]) for one in rendered.list("Service", "tenure")]
    selectors += [
        (one, one["spec"]["selector"]["matchLabels"])
        for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget")
        for one in rendered.list(kind, "tenure")
        if one["metadata"]["name"] != "tenure-predictor"
    ]
    for one, selector in selectors:
        found = [name for name, has in labels.items() if selector.items() <= has.items()]
        assert found == [one["metadata"]["name"]]


def test_ports_of_services_exist(rendered: Any) -> None:
    ports = {
        name: {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
        for name, template in rendered.pods()
    }
    for service in rendered.list("Service", "tenure"):
        for port in service["spec"]["ports"]:
            if "selector" in service["spec"]:
                assert port["targetPort"] in ports[service["metadata"]["name"]]


def test_images(rendered: Any) -> None:
    """Never `latest`, which is what no tag means: a site that forgets to choose gets this release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, container in rendered.containers():
        reference, _, digest = container["image"].rpartition("/")[2].partition("@")
        image, _, tag = reference.partition(":")
        if image in OURS and rendered.overlay == "kind":
            assert (tag, digest) == (project["version"], ""), name
        elif image in OURS:
            assert digest.startswith("sha256:"), f"{name}: an example shows a digest"
        else:
            assert reference == "postgres:17.6-bookworm", name


def test_detectors_overlap(rendered: Any) -> None:
    spec = rendered.get("Deployment", "tenure-detector")["spec"]
    assert spec["replicas"] >= 2
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }


def test_drains_are_neither_held_up_nor_empty_a_service(rendered: Any) -> None:
    """Every Deployment has a budget; a pod that crashes must not keep a node from being drained."""
    budgets = {one["metadata"]["name"]: one["spec"] for one in rendered.list("PodDisruptionBudget", "tenure")}
    wanted = {"tenure-detector", "tenure-pilot", "tenure-console", "tenure-mlflow", "tenure-predictor"}
    assert budgets.keys() == wanted
    for name, budget in budgets.items():
        assert budget.keys() == {"maxUnavailable", "unhealthyPodEvictionPolicy", "selector"}, name
        assert budget["maxUnavailable"] == 1, name  # of one replica: a drain goes on, all the same
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow", name
    assert budgets["tenure-predictor"]["selector"] == {
        "matchExpressions": [{"key": "serving.kserve.io/inferenceservice", "operator": "Exists"}]
    }


def test_pilots_do_not(rendered: Any) -> None:
    spec = rendered.get("Deployment", "tenure-pilot")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("name", ["tenure-detector", "tenure-console"])
def test_token_for_pipelines(rendered: Any, name: str) -> None:
    pod = rendered.get("Deployment", name)["spec"]["template"]["spec"]
    (volume,) = (one for one in pod["volumes"] if "projected" in one)
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
    (container,) = pod["containers"]
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == volume["name"])
    environment = {one["name"]: one.get("value") for one in container["env"]}
    path = f"{mount['mountPath']}/{source['serviceAccountToken']['path']}"
    assert environment["TENURE_RUNS_TOKEN_FILE"] == path


def test_bundles_are_fetched_within_restricted(rendered: Any) -> None:
    (storage,) = rendered.list("ClusterStorageContainer")
    container = storage["spec"]["container"]
    assert not find_breaches({}, container)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "image" not in container  # KServe's own stays
    (runtime,) = rendered.list("ServingRuntime")
    chosen = runtime["spec"]["annotations"]["internal.serving.kserve.io/storage-container-name"]
    assert chosen == storage["metadata"]["name"]


@pytest.mark.parametrize(
    ("uri", "fits"),
    [
        (f"s3://tenure/bundles/{'0123456789abcdef' * 4}", True),
        ("s3://tenure/bundles/abc", False),
        (f"s3://tenure/else/bundles/{'0' * 64}", False),
        ("s3://somebody/models/iris", False),
    ],
)
def test_only_bundles_are(kind: Any, uri: str, fits: bool) -> None:
    (storage,) = kind.list("ClusterStorageContainer")
    (form,) = storage["spec"]["supportedUriFormats"]
    assert bool(re.search(form["regex"], uri)) is fits
