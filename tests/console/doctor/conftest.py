"""A healthy cluster, recorded from a real one, on which tests play failures."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from console.doctor.finding import Finding, Mark, examine
from console.doctor.observation import Answer, Cluster
from console.doctor.suite import BEFORE, CLUSTER
from console.doctor.workload import list_pods

RECORDED = Path(__file__).with_name("recorded") / "cluster.json"
PIPELINES = (
    "cache-deployer-deployment",
    "cache-server",
    "metadata-envoy-deployment",
    "metadata-grpc-deployment",
    "metadata-writer",
    "ml-pipeline",
    "ml-pipeline-persistenceagent",
    "ml-pipeline-scheduledworkflow",
    "ml-pipeline-ui",
    "mysql",
    "workflow-controller",
)
DIGEST = "5b41f8a2" * 8

Document = dict[str, Any]

# In this order: the others import the first, and there is no package to import it from.
for _name in ("failure", "webhooks", "workloads"):
    _spec = importlib.util.spec_from_file_location(f"doctor_{_name}", Path(__file__).with_name(f"{_name}.py"))
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_spec.name])


class Stage:
    """A cluster that a test changes, and what the doctor finds there."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def add(self, kind: str, document: Document) -> Document:
        """Put a document there."""
        self.cluster.documents.setdefault(kind, []).append(document)
        return document

    def find(self, kind: str, name: str) -> Document:
        """Return a document that is there."""
        found = self.cluster.find(kind, name)
        assert found is not None, f"{kind}/{name} is not on the stage"
        return found

    def remove(self, kind: str, name: str) -> None:
        """Take a document away."""
        self.cluster.documents[kind].remove(self.find(kind, name))

    def metadata(self, name: str, namespace: str, **more: Any) -> Document:
        """Return metadata of something an hour old."""
        created = (self.cluster.taken - timedelta(hours=1)).isoformat()
        return {"name": name, "namespace": namespace, "creationTimestamp": created, **more}

    def add_deployment(self, name: str, namespace: str, **labels: str) -> Document:
        """Add a Deployment with its pod; both run."""
        selector = {"app": name}
        self.add(
            "deployments",
            {
                "metadata": self.metadata(name, namespace, labels=labels),
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": selector},
                    "template": {"spec": {"containers": [{"name": name, "image": f"{name}:1"}]}},
                },
                "status": {
                    "readyReplicas": 1,
                    "conditions": [
                        {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}
                    ],
                },
            },
        )
        return self.add(
            "pods",
            {
                "metadata": self.metadata(f"{name}-5d8f-x2x9z", namespace, labels={**selector, **labels}),
                "spec": {"containers": [{"name": name, "image": f"{name}:1"}], "restartPolicy": "Always"},
                "status": {
                    "phase": "Running",
                    "conditions": [
                        {"type": "PodScheduled", "status": "True"},
                        {"type": "Ready", "status": "True"},
                    ],
                    "containerStatuses": [
                        {
                            "name": name,
                            "image": f"{name}:1",
                            "ready": True,
                            "restartCount": 0,
                            "state": {"running": {}},
                        }
                    ],
                },
            },
        )

    def add_claim(self, name: str, namespace: str, phase: str, storage_class: str | None) -> Document:
        """Add a volume claim."""
        spec = {"storageClassName": storage_class} if storage_class else {}
        return self.add(
            "persistentvolumeclaims",
            {"metadata": self.metadata(name, namespace), "spec": spec, "status": {"phase": phase}},
        )

    def add_service(self, name: str) -> Document:
        """Add an InferenceService of ours, with its pod, its Deployment and its route; all is well."""
        namespace, labels = self.cluster.layout.tenure, {"serving.kserve.io/inferenceservice": name}
        self.add_deployment(f"{name}-predictor", namespace, **labels)
        service = {
            "metadata": self.metadata(name, namespace, labels={"tenure.dev/project": name}),
            "spec": {
                "predictor": {
                    "model": {
                        "modelFormat": {"name": "tenure"},
                        "storageUri": f"s3://tenure/bundles/{DIGEST}",
                    }
                }
            },
            "status": {
                "conditions": [
                    {"type": kind, "status": "True"} for kind in ("IngressReady", "PredictorReady", "Ready")
                ],
                "modelStatus": {"transitionStatus": "UpToDate"},
            },
        }
        self.add("inferenceservices", service)
        true = [{"type": kind, "status": "True", "reason": kind} for kind in ("Accepted", "ResolvedRefs")]
        parent = {"parentRef": {"name": "kserve-ingress-gateway"}, "conditions": true}
        route = {
            "metadata": self.metadata(f"{name}-customers", namespace),
            "spec": {},
            "status": {"parents": [parent]},
        }
        self.add("httproutes", route)
        return service

    def find_pod(self, owner: str) -> Document:
        """Return a pod of a Deployment."""
        return list_pods(self.cluster, self.find("deployments", owner))[0]

    def break_pod(
        self, owner: str, *, waiting: Document | None = None, last: Document | None = None, **status: Any
    ) -> Document:
        """Make a workload's pod fail: its container waits for a reason, after an end before."""
        pod = self.find_pod(owner)
        states = pod["status"].get("containerStatuses") or [{}]
        states[0] |= {"ready": False, "state": {"waiting": waiting} if waiting else {}}
        if last:
            states[0] |= {"lastState": {"terminated": last}, "restartCount": 12}
        for condition in pod["status"]["conditions"]:
            if condition["type"] in ("Ready", "ContainersReady"):
                condition["status"] = "False"
        pod["status"] |= status
        self.stop(owner)
        return pod

    def stop(self, workload: str) -> Document:
        """Make a Deployment say that none of its pods is ready."""
        deployment = self.find("deployments", workload)
        deployment["status"] = {
            "conditions": [{"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable"}]
        }
        return deployment

    def unplace(self, owner: str, message: str) -> Document:
        """Make a workload's pod one that no node takes."""
        pod = self.break_pod(owner)
        pod["status"] = {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            ],
        }
        return pod

    def crash(self, owner: str, log: str, code: int = 1, reason: str = "Error") -> None:
        """Make a workload's container crash again and again, with these last lines in its log."""
        pod = self.break_pod(
            owner,
            waiting={"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"},
            last={"exitCode": code, "reason": reason},
        )
        container = pod["status"]["containerStatuses"][0]["name"]
        path = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}/{container}"
        self.cluster.logs[path] = log

    def tell(self, kind: str, name: str, namespace: str, reason: str, message: str) -> None:
        """Add a warning event."""
        self.add(
            "events",
            {
                "metadata": self.metadata(f"{name}.17", namespace),
                "involvedObject": {"kind": kind, "name": name, "namespace": namespace},
                "type": "Warning",
                "reason": reason,
                "message": message,
                "lastTimestamp": self.cluster.taken.isoformat(),
            },
        )

    def answer_trial(self, name: str, status: int, message: str) -> None:
        """Make a dry-run create end like this."""
        for trial in self.cluster.trials:
            if name in trial.name:
                trial.status, trial.message = status, message

    def examine(self, pre: bool = False) -> Sequence[Finding]:
        """Return all findings."""
        sections = examine(BEFORE if pre else CLUSTER, self.cluster)
        return [finding for section in sections for finding in section.findings]

    def list_bad(self, pre: bool = False) -> Sequence[Finding]:
        """Return what is wrong."""
        return [finding for finding in self.examine(pre) if finding.mark is Mark.BAD]


@pytest.fixture(scope="session")
def recording() -> Cluster:
    """A real cluster with KServe, Envoy Gateway and Tenure, recorded by `record.py`."""
    return Cluster.model_validate_json(RECORDED.read_bytes())


@pytest.fixture
def stage(recording: Cluster) -> Stage:
    """The recorded cluster, with Kubeflow Pipelines and a model added; all is well."""
    found = Stage(recording.model_copy(deep=True))
    cluster = found.cluster
    cluster.apis["argoproj.io/v1alpha1"] = ["workflows"]
    for name in PIPELINES:
        found.add_deployment(name, "kubeflow")
    found.add_claim("mysql-pv-claim", "kubeflow", "Bound", "standard")
    found.add_service("telco")
    cluster.answers = {
        name: Answer(good=True)
        for name in (
            "detector",
            "pilot",
            "console",
            "store",
            "tracking",
            "ledger",
            "events",
            "runs",
            "pipeline",
        )
    }
    cluster.answers["model telco"] = Answer(good=True, text="answers through the gateway")
    return found
