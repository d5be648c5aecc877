"""The manifests on a real cluster: what it admits, and what each account is refused."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBECTL = Path(sys.executable).with_name("kubectl")
SERVICES = "inferenceservices.serving.kserve.io"
ROUTES = "httproutes.gateway.networking.k8s.io"
OTHERS = (
    "secrets",
    "configmaps",
    "pods",
    "serviceaccounts",
    "deployments.apps",
    "roles.rbac.authorization.k8s.io",
)
RESOURCES = (SERVICES, ROUTES, "events", *OTHERS)
VERBS = ("get", "list", "watch", "create", "patch", "update", "delete")
READ = {"get", "list", "watch"}

ALLOWED: dict[str, dict[str, set[str]]] = {
    "tenure-pilot": {
        SERVICES: READ | {"patch", "update"},
        ROUTES: READ | {"create", "update", "delete"},
        "events": {"create"},
    },
    "tenure-detector": {SERVICES: READ},
    "tenure-console": {SERVICES: READ, ROUTES: {"get"}},
    "tenure-predictor": {},
    "tenure-mlflow": {},
    "tenure-ledger-db": {},
    "tenure-mlflow-db": {},
    "tenure-pipeline": {SERVICES: READ | {"create", "patch", "update"}},
}
"""What each account may do in our namespace; everything else is refused."""


@dataclass(frozen=True)
class Base:
    """The base, installed without its programs: accounts, roles, runtime, a ledger."""

    namespace: str
    directory: Path
    documents: list[dict[str, Any]]


@pytest.fixture(scope="module")
def base(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """Install what needs no image of ours in a namespace of its own."""
    name = f"test-{secrets.token_hex(4)}"
    directory = tmp_path_factory.mktemp("kustomize")
    shutil.copytree(ROOT / "manifests" / "base", directory / "base")
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": name,
        "resources": ["base"],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    documents = list(yaml.safe_load_all(cluster.run("kustomize", str(directory)).stdout))
    for one in documents:
        for subject in one.get("subjects", ()):
            subject["namespace"] = name  # runs live in our own namespace here
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "tenure-pipeline", "namespace": name},
    }
    passwords = {
        key: secrets.token_hex(16) for key in ("ledger-password", "ledger-reader-password", "mlflow-password")
    }
    wanted = [one for one in documents if one["kind"] != "Deployment"]
    try:
        apply(cluster, [one for one in wanted if one["kind"] == "Namespace"])
        apply(cluster, [make_secret("tenure-databases", name, passwords), account])
        apply(cluster, [one for one in wanted if one["kind"] != "ClusterStorageContainer"])
        apply(cluster, [make_service(name, "some", stopped=True)])
        yield Base(name, directory, documents)
    finally:
        cluster.run("delete", "namespace", name, "--wait=false")


def apply(cluster: Any, documents: list[dict[str, Any]]) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": documents}
    cluster.run("apply", "--server-side", "-f", "-", document=listed)


def make_secret(name: str, namespace: str, values: dict[str, str], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "stringData": values,
    }


def make_service(
    namespace: str, name: str, digest: str = "0" * 64, *, stopped: bool = False
) -> dict[str, Any]:
    """Return an InferenceService of a bundle that does not exist; a stopped one has no pod."""
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/stop": str(stopped).lower(),
            },
        },
        "spec": {
            "predictor": {
                "serviceAccountName": "tenure-predictor",
                "logger": {"mode": "all", "url": f"http://tenure-detector:8080/events/{name}/1"},
                "model": {
                    "modelFormat": {"name": "tenure"},
                    "protocolVersion": "v2",
                    "storageUri": f"s3://tenure/bundles/{digest}",
                },
            }
        },
    }


def test_server_takes_all_of_it(cluster: Any, base: Base) -> None:
    cluster.run("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-k", str(base.directory))


def test_server_takes_the_gateways_policies(cluster: Any) -> None:
    for file in ("policies.yaml", "services.yaml"):
        path = ROOT / "manifests" / "components" / "envoy-gateway" / file
        cluster.run("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", str(path))


def make_pod(namespace: str, **changes: Any) -> dict[str, Any]:
    """Return a pod that `restricted` admits, with its container's security context changed."""
    context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
        **changes,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "probe-", "namespace": namespace},
        "spec": {"containers": [{"name": "probe", "image": "postgres", "securityContext": context}]},
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"runAsNonRoot": False, "runAsUser": 0}, "runAsNonRoot != true"),
        ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation != false"),
        ({"capabilities": {}}, "unrestricted capabilities"),
        ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile"),
        ({"privileged": True, "allowPrivilegeEscalation": True}, "privileged"),
    ],
)
def test_pod_security_refuses(cluster: Any, base: Base, changes: dict[str, Any], reason: str) -> None:
    answer = cluster.run("create", "-f", "-", document=make_pod(base.namespace, **changes), check=False)
    assert answer.returncode != 0
    assert 'violates PodSecurity "restricted' in answer.stderr
    assert reason in answer.stderr


def test_pod_security_admits_the_rest(cluster: Any, base: Base) -> None:
    cluster.run("create", "--dry-run=server", "-f", "-", document=make_pod(base.namespace))


def test_our_pods_are_admitted(cluster: Any, base: Base) -> None:
    for one in base.documents:
        if one["kind"] in ("Deployment", "StatefulSet"):
            template = one["spec"]["template"]
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**template["metadata"], "name": "probe", "namespace": base.namespace},
                "spec": template["spec"],
            }
            mounts = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())}
            pod["spec"]["volumes"] += [{"name": name, "emptyDir": {}} for name in mounts]
            answer = cluster.run("create", "--dry-run=server", "-f", "-", document=pod)
            assert "PodSecurity" not in answer.stderr


def find_rights(
    cluster: Any, namespace: str, user: str, resources: Sequence[str] = RESOURCES, name: str = ""
) -> dict[str, set[str]]:
    """Return what the API server's authorizers would let an account do in a namespace.

    `name` is the one object that is asked about; without it the question is about all of them.
    """
    asked = [(resource, verb) for resource in resources for verb in VERBS]
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": {
                    "namespace": namespace,
                    "resource": resource.partition(".")[0],
                    "group": resource.partition(".")[2],
                    "verb": verb,
                    "name": name,
                },
            },
        }
        for resource, verb in asked
    ]
    listed = {"apiVersion": "v1", "kind": "List", "items": reviews}
    answer = cluster.run("create", "-f", "-", "-o", 'jsonpath={.status.allowed}{"\\n"}', document=listed)
    found: dict[str, set[str]] = {}
    for (resource, verb), allowed in zip(asked, answer.stdout.split(), strict=True):
        if allowed == "true":
            found.setdefault(resource, set()).add(verb)
    return found


@pytest.mark.parametrize("account", ALLOWED)
def test_accounts_may_do_exactly_this(cluster: Any, base: Base, account: str) -> None:
    user = f"system:serviceaccount:{base.namespace}:{account}"
    assert find_rights(cluster, base.namespace, user) == ALLOWED[account]
    assert find_rights(cluster, "kube-system", user) == {}


def test_steps_may_do_no_more_where_they_run(cluster: Any) -> None:
    """The account of runs as `make up` has made it: no step starts a pod, a job, a workflow or a run."""
    user = "system:serviceaccount:kubeflow:tenure-pipeline"
    others = ("jobs.batch", "workflows.argoproj.io", "runs.pipelines.kubeflow.org")
    results = "workflowtaskresults.argoproj.io"
    asked = (*RESOURCES, *others, results)
    everything = {results: {"create", "patch"}, "pods": READ}
    assert find_rights(cluster, "kubeflow", user, asked) == everything
    named = (("configmaps", "kfp-launcher"), ("secrets", "mlpipeline-minio-artifact"))
    for resource, name in named:
        assert find_rights(cluster, "kubeflow", user, (resource,), name) == {resource: {"get"}}


ATTEMPTS = [
    ("tenure-detector", "patch", SERVICES),
    ("tenure-console", "patch", SERVICES),
    ("tenure-console", "delete", ROUTES),
    ("tenure-pilot", "delete", SERVICES),
    ("tenure-pilot", "get", "secrets"),
    ("tenure-predictor", "get", SERVICES),
    ("tenure-predictor", "get", "secrets"),
    ("tenure-mlflow", "get", "secrets"),
    ("tenure-pipeline", "delete", SERVICES),
    ("tenure-pipeline", "patch", ROUTES),
    ("tenure-pipeline", "get", "secrets"),
]


@pytest.mark.parametrize(("account", "verb", "resource"), ATTEMPTS)
def test_attempts_are_refused(
    cluster: Any, base: Base, make_kubeconfig: Callable[[str], Path], account: str, verb: str, resource: str
) -> None:
    """With the account's own token, not by asking what would be."""
    arguments = {
        "get": ["get", resource, "some"],
        "delete": ["delete", resource, "some"],
        "patch": ["patch", resource, "some", "--type=merge", "--patch={}"],
    }[verb]
    answer = subprocess.run(
        [str(KUBECTL), "--kubeconfig", str(make_kubeconfig(account)), "-n", base.namespace, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode != 0
    assert "Forbidden" in answer.stderr
    assert f"system:serviceaccount:{base.namespace}:{account}" in answer.stderr


@pytest.fixture
def make_kubeconfig(cluster: Any, base: Base, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes an account's own kubeconfig, with a token and nothing else."""

    def make(account: str) -> Path:
        token = cluster.run("-n", base.namespace, "create", "token", account, "--duration=10m").stdout.strip()
        whole = json.loads(cluster.run("config", "view", "--raw", "--minify", "-o", "json").stdout)
        whole["users"] = [{"name": whole["users"][0]["name"], "user": {"token": token}}]
        path = tmp_path / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(whole), encoding="utf-8")
        return path

    return make


def test_reader_cannot_write_the_ledger(cluster: Any, base: Base) -> None:
    wait_for_ledger(cluster, base.namespace)

    def ask(user: str, statement: str) -> subprocess.CompletedProcess[str]:
        file = "reader-password" if user == "reader" else "password"
        return ask_ledger(cluster, base.namespace, user, file, statement)

    assert ask("ledger", "CREATE TABLE probe (id int)").returncode == 0
    assert ask("reader", "SELECT count(*) FROM probe").stdout == "0\n"
    refused = ask("reader", "INSERT INTO probe VALUES (1)")
    assert "read-only transaction" in refused.stderr
    for statement in ("INSERT INTO probe VALUES (1)", "CREATE TABLE another (id int)", "DROP TABLE probe"):
        answer = ask("reader", f"BEGIN READ WRITE; {statement}; COMMIT")
        assert answer.returncode != 0, statement
        assert "permission denied" in answer.stderr or "must be owner" in answer.stderr


def test_ledger_asks_for_passwords(cluster: Any, base: Base) -> None:
    wait_for_ledger(cluster, base.namespace)
    answer = ask_ledger(cluster, base.namespace, "ledger", "reader-password", "SELECT 1")
    assert "password authentication failed" in answer.stderr
    encoding = ask_ledger(cluster, base.namespace, "reader", "reader-password", "SHOW server_encoding")
    assert encoding.stdout == "UTF8\n"


def wait_for_ledger(cluster: Any, namespace: str) -> None:
    cluster.run(
        "-n", namespace, "rollout", "status", "statefulset/tenure-ledger-db", "--timeout=120s", seconds=150
    )


def ask_ledger(
    cluster: Any, namespace: str, user: str, file: str, statement: str
) -> subprocess.CompletedProcess[str]:
    """Run a statement as a client would, by TCP and with the password from the Secret's file."""
    script = (
        'PGPASSWORD=$(cat "/run/secrets/tenure/$1") PGUSER=$2 '
        'exec psql -qAt -v ON_ERROR_STOP=1 -h "$(hostname -i)" -d ledger -c "$3"'
    )
    answer: subprocess.CompletedProcess[str] = cluster.run(
        "-n", namespace, "exec", "tenure-ledger-db-0", "--",
        "sh", "-c", script, "psql", file, user, statement, check=False,
    )  # fmt: skip
    return answer


def test_model_servers_keep_to_restricted(cluster: Any, base: Base, poll: Any) -> None:
    """The pod that KServe makes of our runtime is admitted, and fetches the bundle with the readers' key."""
    digest = secrets.token_hex(32)
    apply(cluster, [one for one in base.documents if one["kind"] == "ClusterStorageContainer"])
    apply(
        cluster,
        [
            make_secret(
                "tenure-s3",
                base.namespace,
                {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "none", "accesskey": "other"},
                annotations={"serving.kserve.io/s3-endpoint": "seaweedfs.kubeflow.svc:9000"},
            ),
            make_service(base.namespace, "probe", digest),
        ],
    )
    selector = "serving.kserve.io/inferenceservice=probe"
    (pod,) = poll(lambda: cluster.list_pods(base.namespace, selector), 60, "a pod of the InferenceService")
    (fetching,) = pod["spec"]["initContainers"]
    assert fetching["args"][0] == f"s3://tenure/bundles/{digest}"
    assert fetching["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    references = {
        one["name"]: one["valueFrom"]["secretKeyRef"] for one in fetching["env"] if "valueFrom" in one
    }
    assert references == {
        name: {"name": "tenure-s3", "key": name} for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }
    names = {one["name"] for one in pod["spec"]["containers"]}
    assert names == {"kserve-container", "agent"}
    for container in (*pod["spec"]["containers"], fetching):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    cluster.run("-n", base.namespace, "delete", SERVICES, "probe")
