"""A real cluster, for tests of what no laptop shows: it is changed, so it is asked for by name.

`TENURE_TEST_KUBECONFIG` names the kubeconfig of a cluster with KServe and Envoy Gateway that nobody else
needs; `scripts/test-cluster` installs Tenure there first. Without it these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clients.ledger.reader import Ledger
from clients.settings import Settings
from console.context import Remote
from tenure.bundle import Bundle, load_bundle, write_bundle
from tenure.partition import Part, assign_parts
from tenure.project import Project
from tenure.snapshot import read_source, write_snapshot
from tenure.training import train
from tenure.validation import validate_frame

ROOT = Path(__file__).parents[2]
VARIABLE = "TENURE_TEST_KUBECONFIG"
WHY = f"needs a cluster that may be changed: {VARIABLE}=KUBECONFIG (docs/cluster.md)"
NAME = "cluster-churn"
QUICK = {"trials": 2, "folds": 3, "max_rounds": 60}
KUBECTL = Path(sys.executable).with_name("kubectl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(900))
            if not os.environ.get(VARIABLE):
                item.add_marker(pytest.mark.skip(reason=WHY))


def _load_helper(name: str) -> Any:
    """Import a module of tests/e2e by the name that the modules there know it by; there is no package."""
    file = ROOT / "tests" / "e2e" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"e2e_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def poll(condition: Callable[[], Any], seconds: float = 120, what: str = "the condition") -> Any:
    """Return the condition's first true value; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:g} s"
        time.sleep(0.2)


@dataclass(frozen=True)
class Cluster:
    """The cluster, through kubectl, as its administrator or as another account."""

    kubeconfig: Path

    def run(
        self, *arguments: str, document: object = None, check: bool = True, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; `document` is its standard input, as JSON."""
        answer = subprocess.run(
            [str(KUBECTL), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=None if document is None else json.dumps(document),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert answer.returncode == 0 or not check, f"kubectl {' '.join(arguments)}\n{answer.stderr}"
        return answer

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what `kubectl get ARGUMENTS` finds."""
        return dict(json.loads(self.run("get", *arguments, "-o", "json").stdout))

    def find(self, *arguments: str) -> dict[str, Any] | None:
        """Return what `kubectl get ARGUMENTS` finds, None for nothing."""
        text = self.run("get", *arguments, "-o", "json", "--ignore-not-found").stdout
        return json.loads(text) if text.strip() else None

    def apply(self, *documents: dict[str, Any], namespace: str) -> None:
        """Apply documents in a namespace."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.run("-n", namespace, "apply", "-f", "-", document=listed)

    def list_pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the pods that a selector finds and that are not going away."""
        items = self.get("-n", namespace, "pods", "-l", selector)["items"]
        return [pod for pod in items if not pod["metadata"].get("deletionTimestamp")]

    def logs(self, namespace: str, *what: str) -> str:
        """Return the log of a pod or a job."""
        return self.run("-n", namespace, "logs", *what, check=False).stdout


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster that the environment names."""
    file = Path(os.environ[VARIABLE])
    found = Cluster(file)
    found.run("version")
    return found


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """An empty namespace, deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.run("create", "namespace", name)
    yield name
    cluster.run("delete", "namespace", name, "--wait=false")


@dataclass(frozen=True)
class Platform:
    """Tenure on that cluster."""

    cluster: Cluster
    settings: Settings
    """With addresses that work from here."""
    inside: Settings
    """With the addresses that pods use."""
    gateway_url: str


@pytest.fixture(scope="session")
def platform(cluster: Cluster) -> Iterator[Platform]:
    """Tenure as `scripts/test-cluster` has installed it, by the ways that `tenure --context` takes."""
    context = cluster.run("config", "current-context").stdout.strip()
    remote = Remote(context, "tenure", cluster.kubeconfig)
    try:
        settings = remote.open(("store", "tracking", "ledger", "detector", "gateway"))
        gateway = os.environ.get("TENURE_TEST_GATEWAY_URL", settings.gateway_url)
        yield Platform(cluster, settings, remote.open(()), gateway.rstrip("/"))
    finally:
        remote.close()


@contextmanager
def start_load(plan: Path, rate: int) -> Iterator[Any]:
    """Run the load of a plan (tests/e2e/generator.py) while the block runs; begins when it is answered."""
    _load_helper("generator")  # first: the load imports it by the name that this gives it
    loads = _load_helper("load")
    generator = [sys.executable, str(ROOT / "tests" / "e2e" / "generator.py"), str(plan)]
    process = subprocess.Popen(generator, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            load = loads.Load(process)
            load.pass_by(rate // 10)
            yield load
            load.stop()
        except BaseException:
            process.kill()
            raise


@pytest.fixture(name="start_load", scope="session")
def _start_load() -> Callable[[Path, int], AbstractContextManager[Any]]:
    return start_load


@pytest.fixture(name="poll", scope="session")
def _poll() -> Callable[..., Any]:
    return poll


@pytest.fixture(name="make_bundle", scope="session")
def _make_bundle() -> Callable[[Path, int | None, Project], Bundle]:
    return train_bundle


@pytest.fixture(scope="session")
def ledger(platform: Platform) -> Iterator[Ledger]:
    """The ledger in the cluster's PostgreSQL, as its reader."""
    found = Ledger.connect(platform.settings)
    yield found
    found.close()


@pytest.fixture(name="make_project", scope="session")
def _make_project() -> Callable[..., Project]:
    return make_project


def make_project(**changes: Any) -> Project:
    """Return the telco project, quick to train, with a service of its own; `changes` go into its sections."""
    document = yaml.safe_load((ROOT / "projects" / "telco.yaml").read_text(encoding="utf-8"))
    document["name"] = document["rollout"]["service"] = NAME
    document["source"]["uri"] = str(ROOT / "data" / "telco.csv")
    document["training"] |= QUICK
    for section, values in changes.items():
        document[section] = {**document.get(section, {}), **values}
    return Project.model_validate(document)


def train_bundle(folder: Path, rows: int | None, project: Project) -> Bundle:
    """Train on the first customers and write the bundle."""
    frame = read_source(ROOT / "data" / "telco.csv", "csv", project.contract)
    good = validate_frame(frame.head(rows or len(frame)), project.contract).good
    parts = assign_parts(good, project.contract, project.split, project.name)
    model = train(good[parts == Part.TRAIN].reset_index(drop=True), project)
    folder.mkdir(parents=True)
    snapshot = write_snapshot(good, folder / "snapshot.parquet")
    digest = write_bundle(
        folder / "bundle", model, project=project, snapshot=snapshot, code_version="cluster"
    )
    return load_bundle(folder / "bundle", digest)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Bundle]:
    """Three good bundles of the project `make_project()`: the first, and two that follow."""
    folder = tmp_path_factory.mktemp("bundles")
    project = make_project()
    return [train_bundle(folder / str(rows), rows, project) for rows in (4200, None, 5600)]
