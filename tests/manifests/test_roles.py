"""Who may do what: exactly this."""

from __future__ import annotations

from typing import Any

READ = {"get", "list", "watch"}
WRITE = {"create", "patch", "update", "delete"}
SERVICES = "serving.kserve.io/inferenceservices"
ROUTES = "gateway.networking.k8s.io/httproutes"
EVENTS = "/events"
RUNS = "pipelines.kubeflow.org/"

DECIDED = {
    # (account's namespace, account, namespace of the rights): resource -> verbs
    ("tenure", "tenure-pilot", "tenure"): {
        SERVICES: READ | {"patch", "update"},
        ROUTES: READ | WRITE,
        EVENTS: {"create"},
    },
    ("tenure", "tenure-detector", "tenure"): {SERVICES: READ, EVENTS: {"create"}},
    ("tenure", "tenure-detector", "kubeflow"): {
        f"{RUNS}runs": {"get", "list", "create"},
        f"{RUNS}experiments": {"get", "list", "create"},
        f"{RUNS}pipelines": {"get", "list"},
        f"{RUNS}pipelineversions": {"get", "list"},
    },
    ("tenure", "tenure-console", "tenure"): {SERVICES: READ, ROUTES: READ, EVENTS: READ},
    ("tenure", "tenure-console", "kubeflow"): {
        f"{RUNS}runs": {"get", "list"},
        f"{RUNS}experiments": {"get", "list"},
    },
    ("kubeflow", "tenure-pipeline", "tenure"): {SERVICES: READ | {"create", "patch", "update"}},
}
BORROWED = {("kubeflow", "tenure-pipeline", "kubeflow"): "pipeline-runner"}
"""Roles that are not ours."""


def test_roles(rendered: Any) -> None:
    roles = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["rules"] for one in rendered.list("Role")
    }
    found: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    borrowed = {}
    for binding in rendered.list("RoleBinding"):
        namespace = binding["metadata"]["namespace"]
        assert binding["roleRef"]["kind"] == "Role"
        (subject,) = binding["subjects"]
        assert subject["kind"] == "ServiceAccount"
        rendered.get("ServiceAccount", subject["name"], subject["namespace"])
        key = (subject["namespace"], subject["name"], namespace)
        rules = roles.pop((namespace, binding["roleRef"]["name"]), None)
        if rules is None:
            borrowed[key] = binding["roleRef"]["name"]
            continue
        rights = found.setdefault(key, {})
        for rule in rules:
            assert rule.keys() == {"apiGroups", "resources", "verbs"}
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    rights.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    assert not roles, "a role that nobody has"
    assert found == DECIDED
    assert borrowed == BORROWED


def test_nothing_is_cluster_wide(rendered: Any) -> None:
    assert not rendered.list("ClusterRole")
    assert not rendered.list("ClusterRoleBinding")
