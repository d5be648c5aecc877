"""Who may do what: exactly this."""

from __future__ import annotations

from typing import Any

READ = {"get", "list", "watch"}
SERVICES = "serving.kserve.io/inferenceservices"
ROUTES = "gateway.networking.k8s.io/httproutes"
EVENTS = "/events"
RUNS = "pipelines.kubeflow.org/"

DECIDED = {
    # (account's namespace, account, namespace of the rights): resource -> verbs
    ("tenure", "tenure-pilot", "tenure"): {
        SERVICES: READ | {"patch", "update"},
        ROUTES: READ | {"create", "update", "delete"},
        EVENTS: {"create"},
    },
    ("tenure", "tenure-detector", "tenure"): {SERVICES: READ},
    ("tenure", "tenure-detector", "kubeflow"): {
        f"{RUNS}runs": {"get", "list", "create"},
        f"{RUNS}experiments": {"get", "list", "create"},
        f"{RUNS}pipelines": {"get", "list"},
        f"{RUNS}pipelineversions": {"get", "list"},
    },
    ("tenure", "tenure-console", "tenure"): {SERVICES: READ, ROUTES: {"get"}},
    ("tenure", "tenure-console", "kubeflow"): {
        f"{RUNS}runs": {"get", "list"},
        f"{RUNS}experiments": {"get", "list"},
    },
    ("kubeflow", "tenure-pipeline", "tenure"): {SERVICES: READ | {"create", "patch", "update"}},
    # What Kubeflow Pipelines' driver and launcher and Argo's executor do as the account of a run.
    ("kubeflow", "tenure-pipeline", "kubeflow"): {
        "argoproj.io/workflowtaskresults": {"create", "patch"},
        "/pods": READ,
        "/configmaps kfp-launcher": {"get"},
        "/secrets mlpipeline-minio-artifact": {"get"},
    },
}


def test_roles(rendered: Any) -> None:
    roles = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["rules"] for one in rendered.list("Role")
    }
    found: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    for binding in rendered.list("RoleBinding"):
        namespace = binding["metadata"]["namespace"]
        assert binding["roleRef"]["kind"] == "Role"
        (subject,) = binding["subjects"]
        assert subject["kind"] == "ServiceAccount"
        rendered.get("ServiceAccount", subject["name"], subject["namespace"])
        key = (subject["namespace"], subject["name"], namespace)
        rules = roles.pop((namespace, binding["roleRef"]["name"]), None)
        assert rules is not None, f"{key}: not a role of ours, {binding['roleRef']['name']}"
        rights = found.setdefault(key, {})
        for rule in rules:
            assert rule.keys() <= {"apiGroups", "resources", "resourceNames", "verbs"}
            names = "".join(f" {name}" for name in rule.get("resourceNames", ()))
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    rights.setdefault(f"{group}/{resource}{names}", set()).update(rule["verbs"])
    assert not roles, "a role that nobody has"
    assert found == DECIDED


def test_steps_start_nothing(rendered: Any) -> None:
    """A step must not start runs or pods, nor read the Secrets of others: only the detector creates runs."""
    for role in rendered.list("Role", "kubeflow"):
        for rule in role["rules"]:
            if {"secrets", "configmaps"} & set(rule["resources"]):
                assert rule["resourceNames"], role["metadata"]["name"]
            if {"create", "update", "patch", "delete", "*"} & set(rule["verbs"]):
                assert set(rule["resources"]) <= {"workflowtaskresults", "runs", "experiments"}
    creators = {
        subject["name"]
        for binding in rendered.list("RoleBinding", "kubeflow")
        for rule in rendered.get("Role", binding["roleRef"]["name"], "kubeflow")["rules"]
        if "runs" in rule["resources"] and "create" in rule["verbs"]
        for subject in binding["subjects"]
    }
    assert creators == {"tenure-detector"}


def test_nothing_is_cluster_wide(rendered: Any) -> None:
    assert not rendered.list("ClusterRole")
    assert not rendered.list("ClusterRoleBinding")
