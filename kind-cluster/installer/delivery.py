"""What makes the platform useful: bucket, model servers' key, sample data, pipeline, a first run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from clients.cluster import find_kubeconfig
from clients.errors import ClientError, NotFoundError
from clients.runs import Runs
from clients.settings import Settings
from clients.store import Store
from console.context import Need, Remote
from console.errors import ConsoleError
from console.training import PIPELINE, submit
from installer import credentials
from installer.errors import InstallError
from installer.options import NAMESPACE, PIPELINES_NAMESPACE, ROOT
from installer.site import Site
from installer.state import fingerprint
from tenure.project import load_project

DATA = ROOT / "data" / "telco.csv"
PROJECT = ROOT / "projects" / "telco.yaml"
FIRST_RUN = "first run"

_SEAWEEDFS_HOSTS = ("seaweedfs", "minio-service")
_READER = "tenure-models"


@contextmanager
def reach(site: Site, *needs: Need) -> Iterator[Settings]:
    """Give settings whose addresses can be reached from here while the block runs.

    Raises:
        InstallError: There is no way to one of them.
    """
    context = site.options.kubectl_context or site.kubectl.need("config", "current-context").strip()
    try:
        with closing(Remote(context, NAMESPACE, find_kubeconfig())) as remote:
            yield remote.open(needs)
    except (ClientError, ConsoleError) as error:
        raise InstallError(str(error)) from error


def prepare_store(site: Site) -> str:
    """Make the bucket, and let the model servers' key read the bundles in it and nothing else."""
    options = site.options
    secret = credentials.read_secret(site.kubectl.get("secret", credentials.S3, NAMESPACE)) or {}
    own = is_own_seaweedfs(options.s3_url)
    grant = _make_grant_of(options.s3_bucket, secret) if own else ""
    mark = fingerprint(
        options.s3_url, options.s3_bucket, sorted(secret.items()), grant, site.state_of_store()
    )
    if site.state.matches("store", mark):
        return "unchanged"
    with reach(site, "store") as settings:
        Store.connect(settings).ensure_bucket()
    outcome = f"s3://{options.s3_bucket}"
    if own:
        _grant(site, grant)
        outcome += ", and the model servers' key may read bundles/"
    else:
        site.notes.append(
            f"{options.s3_url} is not from here: give the access key of Secret {NAMESPACE}/{credentials.S3} "
            f"(AWS_ACCESS_KEY_ID) leave to list and read s3://{options.s3_bucket}/bundles/*, and no more"
        )
    site.state.note("store", mark)
    return outcome


def put_data(site: Site) -> str:
    """Put the sample customers where the first run finds them."""
    uri = f"s3://{site.options.s3_bucket}/data/{DATA.name}"
    content = DATA.read_bytes()
    mark = fingerprint(uri, hashlib.sha256(content).hexdigest(), site.state_of_store())
    if site.state.matches("data", mark):
        return f"{uri}, unchanged"
    with reach(site, "store") as settings:
        store = Store.connect(settings)
        try:
            same = store.get_bytes(uri) == content
        except NotFoundError:
            same = False
        if not same:
            store.put_bytes(content, uri, "text/csv")
    site.state.note("data", mark)
    return f"{uri}, {'unchanged' if same else f'{len(content):,} bytes'}"


def start_pipeline(site: Site) -> str:
    """Upload the training pipeline as its newest version, and start the first run unless there was one."""
    url = urlsplit(site.options.runs_url)
    inside = (url.hostname or "").split(".")[1:2] == [PIPELINES_NAMESPACE]
    if inside and site.kubectl.get("service", "ml-pipeline", PIPELINES_NAMESPACE) is None:
        site.notes.append(
            "no Kubeflow Pipelines here, so nothing was uploaded and no run started; later: "
            "make up WITH_KFP=yes, or RUNS_URL=..."
        )
        return "no Kubeflow Pipelines in this cluster: left out"
    project = load_project(PROJECT)
    with reach(site, "runs") as settings:
        runs = Runs.connect(settings)
        version = runs.upload(PIPELINE)
        if not site.options.first_run or not site.options.data:
            return f"version {version.name} is the newest; no run asked for"
        if runs.find(FIRST_RUN, project.name) is not None:
            return f"version {version.name} is the newest; the first run was started before"
        run_id = submit(
            runs,
            project,
            source=f"s3://{site.options.s3_bucket}/data/{DATA.name}",
            name=FIRST_RUN,
            reason="the platform was installed",
        )
    return f"version {version.name} uploaded, run {run_id} started"


def is_own_seaweedfs(url: str) -> bool:
    """Say whether an address is the SeaweedFS that comes with Kubeflow Pipelines."""
    labels = (urlsplit(url).hostname or "").split(".")
    return labels[0] in _SEAWEEDFS_HOSTS and labels[1:2] == [PIPELINES_NAMESPACE]


def make_grant(bucket: str, access_key: str, secret_key: str) -> str:
    """Return the line for SeaweedFS' shell that lets a key list and read the bundles, and nothing else."""
    for value in (bucket, access_key, secret_key):
        if not value or any(sign.isspace() or not sign.isprintable() for sign in value):
            raise InstallError("a key of the object store has a blank or an unprintable sign in it")
    # KServe's storage initializer asks whether the bucket is there, which takes Read of the bucket itself. By
    # its name that would mean every object in it; as a pattern it is the bucket and nothing inside.
    actions = f"Read:{bucket}/bundles/*,List:{bucket}/bundles/*,Read:{bucket[:-1]}?"
    return (
        f"s3.configure -user {_READER} -access_key {access_key} -secret_key {secret_key} "
        f"-actions {actions} -apply\n"
    )


def _make_grant_of(bucket: str, secret: Mapping[str, str]) -> str:
    return make_grant(bucket, secret.get("AWS_ACCESS_KEY_ID", ""), secret.get("AWS_SECRET_ACCESS_KEY", ""))


def _grant(site: Site, line: str) -> None:
    # Its answer repeats the keys: it is neither shown nor kept.
    result = site.kubectl.run(
        "exec", "-i", "-n", PIPELINES_NAMESPACE, "deploy/seaweedfs", "--", "weed", "shell", stdin=line
    )
    if not result.ok or _READER not in result.out:
        reason = "no identity came about" if result.ok else result.err.strip().splitlines()[-1:]
        raise InstallError(
            f"SeaweedFS did not take the model servers' key: {reason}. Try again: make up; its log: "
            f"kubectl -n {PIPELINES_NAMESPACE} logs deploy/seaweedfs"
        )
