"""The `rollout` step in its own image and account makes models and canaries, and the pilot proves them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from clients import names
from clients.errors import ClientError
from clients.inference import InferenceClient, build_request
from clients.ledger.reader import Ledger
from clients.services import Services, get_condition
from clients.store import Store
from clients.tracking import CHALLENGER, CHAMPION, Tracking
from pipelines.pod import CONFIGURATION, SECRETS, STORE, TRACKING, USER
from tenure.bundle import Bundle
from tenure.project import Project
from tenure.scorer import Scorer

NAMESPACE, RUNS_NAMESPACE = "tenure", "kubeflow"
RATE = 40
LABELS = {"pipelines.kubeflow.org/v2_component": "true"}
"""What Kubeflow Pipelines puts on the pods of steps, and the NetworkPolicies let in."""

FETCH = """
import sys
from pathlib import Path
from clients.settings import load_settings
from clients.store import Store
Store.connect(load_settings()).download_directory(sys.argv[1], Path("/scratch/bundle"))
"""
STEP = """
import sys
from components import rollout
rollout.run(sys.argv[1], "/scratch/bundle", sys.argv[2], "/scratch/report.md", "a test")
print(open("/scratch/report.md", encoding="utf-8").read())
"""


class Steps:
    """Runs the step as Jobs where runs have their pods, as the account that runs have."""

    def __init__(self, platform: Any, poll: Any) -> None:
        self._cluster = platform.cluster
        self._poll = poll
        self.store = Store.connect(platform.settings)
        self.tracking = Tracking.connect(platform.settings)
        settings = self._cluster.get("-n", RUNS_NAMESPACE, "configmap", CONFIGURATION)
        self._image = settings["data"]["TENURE_COMPONENTS_IMAGE"]

    def roll_out(self, project: Project, bundle: Bundle, succeeds: bool = True) -> str:
        """Roll a bundle out; returns the step's log, with its report or its error."""
        uri = f"s3://{self.store.bucket}/tests/{bundle.digest}"
        self.store.upload_directory(bundle.directory, uri)
        experiment = self.tracking.find_experiment(project.name)
        run_id = self.tracking.client.create_run(experiment, run_name="a test").info.run_id
        name = f"test-rollout-{secrets.token_hex(4)}"
        self._cluster.apply(self._build(name, project, uri, run_id), namespace=RUNS_NAMESPACE)
        try:
            self._poll(lambda: self._is_over(name), 300, f"the end of job {name}")
            log = str(self._cluster.logs(RUNS_NAMESPACE, f"job/{name}", "--all-containers"))
            status = self._cluster.get("-n", RUNS_NAMESPACE, "job", name)["status"]
            assert bool(status.get("succeeded")) == succeeds, log
        finally:
            self._cluster.run("-n", RUNS_NAMESPACE, "delete", "job", name, "--wait=false")
        return log

    def find_digest(self, model: str, alias: str) -> str | None:
        """Return which bundle an alias of the registry means."""
        version = self.tracking.find_alias(model, alias)
        return None if version is None else version.digest

    def _is_over(self, name: str) -> bool:
        status = self._cluster.get("-n", RUNS_NAMESPACE, "job", name)["status"]
        return bool(status.get("succeeded") or status.get("failed"))

    def _build(self, name: str, project: Project, uri: str, run_id: str) -> dict[str, Any]:
        environment = [
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
            for secret in (STORE, TRACKING)
            for key, variable in SECRETS[secret].items()
        ]
        common = {
            "image": self._image,
            "imagePullPolicy": "IfNotPresent",
            "envFrom": [{"configMapRef": {"name": CONFIGURATION}}],
            "env": environment,
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "scratch", "mountPath": "/scratch"},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            ],
        }
        text = project.model_dump_json()
        pod = {
            "serviceAccountName": "tenure-pipeline",
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
            "initContainers": [{**common, "name": "fetch", "command": ["python3", "-c", FETCH, uri]}],
            "containers": [{**common, "name": "rollout", "command": ["python3", "-c", STEP, text, run_id]}],
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": LABELS}, "spec": pod}},
        }


@pytest.fixture
def steps(platform: Any, poll: Any) -> Steps:
    return Steps(platform, poll)


@pytest.fixture
def project(platform: Any, make_project: Any, poll: Any) -> Iterator[Project]:
    """A project of its own, whose service is deleted afterwards."""
    name = f"loop-{secrets.token_hex(3)}"
    rollout = {
        "service": name,
        "min_requests": 150,
        "mirror_percent": 50,
        "mirror_requests": 100,
        "steps": [20, 50],
        "tolerance": {"errors": 0.05, "latency": 0.5},
    }
    found = make_project(rollout=rollout).model_copy(update={"name": name})
    services = Services.connect(platform.settings)
    yield found
    if services.inference.find(name) is not None:
        services.inference.delete(name)
    poll(lambda: services.routes.find(names.route_name(name)) is None, 120, "the route's end")


def test_the_step_makes_a_canary_and_the_pilot_promotes_it(
    platform: Any,
    ledger: Ledger,
    steps: Steps,
    project: Project,
    make_bundle: Any,
    poll: Any,
    start_load: Any,
    tmp_path: Path,
) -> None:
    """The whole way: job, canary, copies, evidence from gateway and ledger, steps, promotion, registry."""
    old, new = (make_bundle(tmp_path / name, rows, project) for name, rows in (("old", 4200), ("new", None)))
    name, services = project.name, Services.connect(platform.settings)
    assert "# Stable" in steps.roll_out(project, old)
    assert steps.find_digest(name, CHAMPION) == old.digest
    rows = old.probe()
    columns = {column.name: [row[column.name] for row in rows] for column in old.contract.features}
    address = urlsplit(platform.gateway_url)
    plan = {
        "host": address.hostname,
        "port": address.port,
        "name": names.hostname(name, NAMESPACE, platform.settings.ingress_domain),
        "path": f"/v2/models/{name}/infer",
        "bodies": [build_request([row], old.contract) for row in rows],
        "expected": {bundle.version: Scorer(bundle).score_columns(columns).tolist() for bundle in (old, new)},
        "connections": 4,
        "rate": RATE,
        "customers": 0,
        "mark": "",
    }
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan), encoding="utf-8")
    with start_load(file, RATE) as load:
        report = steps.roll_out(project, new)
        assert "0 % of the customers' requests" in report
        assert steps.find_digest(name, CHALLENGER) == new.digest

        def is_promoted() -> bool:
            spec = services.inference.get(name)["spec"]
            return "canary" not in spec and spec["predictor"].get("name") == names.canary_name(new.digest)

        poll(is_promoted, 420, "the pilot's promotion")
        poll(lambda: steps.find_digest(name, CHAMPION) == new.digest, 60, "the champion's alias")
        load.pass_by(RATE)
    found = load.stop()
    assert not found.failures, found.explain()
    moves = [(move.outcome, move.shares) for move in ledger.read_transitions(name)]
    shares = [found[new.version] for _, found in moves if new.version in found]
    assert list(dict.fromkeys(shares)) == [20, 50, 100], moves
    assert moves[-1][0] == "promoted"
    assert [outcome for outcome, _ in moves].count("promoted") == 1
    events = platform.cluster.get(
        "-n", NAMESPACE, "events", "--field-selector", f"involvedObject.name={name}"
    )["items"]
    assert any("romoted" in event["reason"] for event in events), [event["reason"] for event in events]
    wanted = found.count()

    def list_missing() -> dict[str, int]:
        """Return how many answers of each version have no row yet; the proofs' own rows come on top."""
        rows = {version: ledger.count_predictions(name, version) for version in wanted}
        return {version: count - rows[version] for version, count in wanted.items() if rows[version] < count}

    try:
        poll(lambda: not list_missing(), 60, "a row for each answer")
    except AssertionError:
        assert list_missing() == {}, wanted
        raise


def test_a_first_model_that_is_not_proven_meets_nobody_and_is_replaced(
    platform: Any, steps: Steps, project: Project, make_bundle: Any, poll: Any, tmp_path: Path
) -> None:
    old, new = (make_bundle(tmp_path / name, rows, project) for name, rows in (("old", 4200), ("new", None)))
    name, services = project.name, Services.connect(platform.settings)
    hasty = project.rollout.model_copy(update={"ready_timeout_seconds": 1})
    log = steps.roll_out(project.model_copy(update={"rollout": hasty}), old, succeeds=False)
    assert "has no customers" in log

    def is_ready() -> bool:
        condition = get_condition(services.inference.get(name), "PredictorReady") or {}
        return condition.get("status") == "True"

    poll(is_ready, 180, "the model server, although nobody waits for it any more")
    host = names.hostname(name, NAMESPACE, platform.settings.ingress_domain)
    with InferenceClient(platform.gateway_url, host) as client:

        def ask(variant: str | None = None) -> str:
            try:
                return client.predict(name, old.probe()[:2], old.contract, variant=variant).version
            except ClientError:
                return ""

        poll(lambda: ask(names.STABLE) == old.version, 60, "an answer to who asks for it by its header")
        assert ask() == ""
        assert steps.find_digest(name, CHAMPION) is None
        assert "# Stable" in steps.roll_out(project, new)
        poll(lambda: ask() == new.version, 60, "the answer to a customer")
    assert "canary" not in services.inference.get(name)["spec"]
    assert steps.find_digest(name, CHAMPION) == new.digest
