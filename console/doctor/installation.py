"""Tenure's own part of a cluster: its namespace, its configuration, its services, its addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from console.doctor.document import labels_of
from console.doctor.finding import Finding, bad, good, unknown, warn
from console.doctor.observation import Answer, Cluster
from console.doctor.workload import check_workloads

_POLICY = "pod-security.kubernetes.io/enforce"
_ACCOUNTS = ("tenure-detector", "tenure-pilot", "tenure-predictor")
_KEYS = {
    "tenure-s3": ("accesskey", "secretkey", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "tenure-databases": ("ledger-url",),
    "tenure-tracking": ("username", "password"),
    "tenure-detector": ("token",),
}
_AGAIN = "`make up CLUSTER=existing` adds what is missing, and overwrites nothing"


def is_installed(cluster: Cluster) -> bool:
    """Say whether there is anything of Tenure."""
    return cluster.find("configmaps", "tenure-settings", cluster.layout.tenure) is not None


def check_namespace(cluster: Cluster) -> Iterator[Finding]:
    """The namespace is there, is not going away, and enforces Pod Security."""
    name = cluster.layout.tenure
    if not cluster.has_read("namespaces"):
        return
    going = [
        one
        for one in cluster.layout.every()
        if (document := cluster.find("namespaces", one)) is not None
        and document["metadata"].get("deletionTimestamp")
    ]
    for one in going:
        yield bad(
            "namespace",
            f"namespace {one} is being deleted",
            "wait until it is gone; what stays has a finalizer whose controller no longer runs",
        )
    found = cluster.find("namespaces", name)
    if found is None or not is_installed(cluster):
        if name not in going and (found is None or cluster.has_read("configmaps")):
            yield bad(
                "namespace",
                f"Tenure is not installed in namespace {name} (no ConfigMap tenure-settings)",
                "`make up` installs it; --namespace names another place",
            )
        return
    level = labels_of(found).get(_POLICY)
    if level == "restricted":
        yield good("namespace", f"namespace {name} enforces Pod Security {level}")
    else:
        yield warn(
            "namespace",
            f"namespace {name} enforces Pod Security {level or 'not at all'}",
            f"kubectl label namespace {name} {_POLICY}=restricted",
        )


def check_configuration(cluster: Cluster) -> Iterator[Finding]:
    """Settings, Secrets and accounts are there, and the runs have their copies."""
    if not is_installed(cluster):
        return
    problems = [*_check_secrets(cluster), *_check_accounts(cluster), *_check_copies(cluster)]
    yield from problems
    if not problems and "secrets" not in cluster.unread:
        yield good("configuration", "settings, Secrets and accounts are there")


def check_services(cluster: Cluster) -> Iterator[Finding]:
    """Detector, pilot, console, MLflow and the databases run."""
    if is_installed(cluster):
        yield from check_workloads(cluster, cluster.layout.tenure, "installation")


def check_answers(cluster: Cluster) -> Iterator[Finding]:
    """What the addresses say."""
    # What Kubernetes says of the pods comes first; this is what remains.
    yield from judge_answers(cluster.answers)


_TOLD: Mapping[str, tuple[str, str]] = {
    "detector": ("the detector", "see its log: `tenure logs detector`"),
    "pilot": ("the pilot", "see its log: `tenure logs pilot`"),
    "console": ("the web page", "see its log: `tenure logs console`"),
    "store": ("the object store", "compare the address and Secret tenure-s3 with the store"),
    "tracking": ("MLflow", "see its log, and Secret tenure-tracking for the login"),
    "ledger": ("the ledger", "the detector makes and migrates it: see `tenure logs detector`"),
    "events": ("events", "see `tenure logs detector`; dead letters carry their reason"),
    "pipeline": ("the training pipeline", "upload it: `make up`"),
}
_MODEL_FIX = "ask it by `tenure predict`; `tenure rollout status` says which version should answer"


def judge_answers(answers: Mapping[str, Answer], fixes: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Return findings of what addresses answered; those of models are named after them.

    Args:
        answers: By the address's name.
        fixes: What to do in place of a cluster's advice, by the same names.
    """
    for name, answer in answers.items():
        if name in _TOLD:
            check = name
            what, fix = _TOLD[name]
        elif name.startswith("model "):
            check, what, fix = "models", name, _MODEL_FIX
        else:
            continue
        fix = (fixes or {}).get(name, fix)
        if answer.good:
            yield good(check, f"{what}: {answer.text}" if answer.text else f"{what} answers")
        elif answer.text.startswith("?"):
            yield unknown(check, f"{what}: {answer.text.removeprefix('?').strip()}")
        elif name in ("events", "pipeline"):
            yield warn(check, f"{what}: {answer.text}", fix)
        else:
            yield bad(check, f"{what}: {answer.text or 'no answer'}", fix)


def _check_secrets(cluster: Cluster) -> Iterator[Finding]:
    if "secrets" in cluster.unread:
        return
    name = cluster.layout.tenure
    for secret, keys in _KEYS.items():
        found = cluster.find("secrets", secret, name)
        if found is None:
            yield bad("configuration", f"Secret {name}/{secret} does not exist", _AGAIN)
            continue
        missing = [key for key in keys if key not in found["keys"]]
        if missing:
            text = f"Secret {name}/{secret} has no {', '.join(missing)}"
            yield bad("configuration", text, _AGAIN)


def _check_accounts(cluster: Cluster) -> Iterator[Finding]:
    if not cluster.has_read("serviceaccounts"):
        return
    wanted = [(cluster.layout.tenure, account) for account in _ACCOUNTS]
    runs = cluster.settings.get("TENURE_RUNS_ACCOUNT")
    if runs:
        wanted.append((cluster.layout.runs, runs))
    for namespace, account in wanted:
        if cluster.find("serviceaccounts", account, namespace) is None:
            yield bad(
                "configuration", f"ServiceAccount {namespace}/{account} does not exist", "`make up` again"
            )
    reader = cluster.find("serviceaccounts", "tenure-predictor", cluster.layout.tenure)
    listed = [one.get("name") for one in (reader or {}).get("secrets") or ()]
    if reader is not None and "tenure-s3" not in listed:
        yield bad(
            "configuration",
            "ServiceAccount tenure-predictor does not list Secret tenure-s3: model servers get no S3 key",
            "add it to the account's `secrets`, as KServe's storage initializer wants it",
        )


def _check_copies(cluster: Cluster) -> Iterator[Finding]:
    runs = cluster.layout.runs
    if runs == cluster.layout.tenure or cluster.find("namespaces", runs) is None:
        return
    if cluster.has_read("configmaps") and cluster.find("configmaps", "tenure-settings", runs) is None:
        yield bad("configuration", f"the runs have no ConfigMap {runs}/tenure-settings", _AGAIN)
    if "secrets" not in cluster.unread and cluster.find("secrets", "tenure-s3", runs) is None:
        yield bad("configuration", f"the runs have no Secret {runs}/tenure-s3", _AGAIN)
