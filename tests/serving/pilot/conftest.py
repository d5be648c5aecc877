from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prometheus_client.registry import CollectorRegistry

from clients import names
from clients.errors import ConflictError, UnreachableError
from clients.split import read_shares
from clients.tracking import Version
from serving.pilot.evidence import Collector
from serving.pilot.metrics import Metrics
from serving.pilot.navigator import Navigator
from serving.pilot.page import Backend, Statistics
from serving.pilot.pilot import Pilot
from serving.pilot.registry import Recorder
from tenure.project import load_project

PROJECT_URI = "s3://tenure/projects/p.json"
STABLE, CANARY, NEWER = "a" * 64, "b" * 64, "c" * 64


def make_service(**changes: Any) -> dict[str, Any]:
    """An InferenceService whose stable bundle is STABLE."""
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "churn",
            "namespace": "default",
            "labels": {"tenure.dev/project": "telco"},
            "annotations": dict(changes.pop("annotations", {})),
        },
        "spec": {
            "predictor": {
                "minReplicas": 2,
                "model": {
                    "modelFormat": {"name": "tenure"},
                    "protocolVersion": "v2",
                    "storageUri": f"s3://tenure/bundles/{STABLE}",
                },
            },
            **changes,
        },
        "status": {"conditions": [{"type": "PredictorReady", "status": "True"}], "canaryStatuses": []},
    }


def add_canary(service: dict[str, Any], digest: str = CANARY, percent: int = 20, ready: bool = True) -> str:
    """Put a canary in front; returns its name."""
    name = f"b{digest[:10]}"
    entry = {
        "trafficPercent": percent,
        "predictor": {
            "name": name,
            "minReplicas": 1,
            "model": {
                "name": "kserve-container",
                "modelFormat": {"name": "tenure"},
                "protocolVersion": "v2",
                "storageUri": f"s3://tenure/bundles/{digest}",
            },
        },
    }
    service["spec"].setdefault("canary", []).append(entry)
    service["status"]["canaryStatuses"].append({"name": name, "ready": ready, "trafficPercent": percent})
    return name


class Shelf:
    """Resources of one kind in memory, with an API server's generations and conflicts.

    `gateway` is what answers for the gateway: it makes every written route accepted when true.
    `on_write` is called before each write and may raise, as a killed process would stop there.
    """

    def __init__(self, gateway: bool = False) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.gateway = gateway
        self.on_write: Callable[[], None] = lambda: None
        self._version = 0

    def list(self) -> list[dict[str, Any]]:
        return [copy.deepcopy(document) for document in self.documents.values()]

    def create(self, document: dict[str, Any]) -> dict[str, Any]:
        if document["metadata"]["name"] in self.documents:
            raise ConflictError("exists")
        return self._store(document, 1)

    def replace(self, document: dict[str, Any]) -> dict[str, Any]:
        current = self.documents[document["metadata"]["name"]]
        if document["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"]:
            raise ConflictError("stale")
        changed = document["spec"] != current["spec"]
        return self._store(document, current["metadata"]["generation"] + changed)

    def delete(self, name: str) -> None:
        self.on_write()
        del self.documents[name]

    def put(self, document: dict[str, Any]) -> None:
        """Write as somebody else would: no conflict, no hook."""
        hook, self.on_write = self.on_write, lambda: None
        current = self.documents.get(document["metadata"]["name"])
        self._store(document, current["metadata"]["generation"] + 1 if current else 1)
        self.on_write = hook

    def _store(self, document: dict[str, Any], generation: int) -> dict[str, Any]:
        self.on_write()
        stored = copy.deepcopy(document)
        self._version += 1
        stored["metadata"] |= {"resourceVersion": str(self._version), "generation": generation}
        if self.gateway:
            accepted = {"type": "Accepted", "status": "True", "observedGeneration": generation}
            stored["status"] = {"parents": [{"conditions": [accepted]}]}
        self.documents[stored["metadata"]["name"]] = stored
        return copy.deepcopy(stored)


class Versions:
    """A model registry in memory: versions are bundles, by the first letter of their digest."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}
        self.tags: dict[str, dict[str, str]] = {}

    def find_version(self, model: str, digest: str) -> Version | None:
        assert model == "telco"
        number = {STABLE: "1", CANARY: "2", NEWER: "3"}.get(digest)
        return Version(model, number, digest, f"s3://tenure/bundles/{digest}") if number else None

    def find_alias(self, model: str, alias: str) -> Version | None:
        number = self.aliases.get(alias)
        return Version(model, number, "", "") if number else None

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self.aliases[alias] = version

    def delete_alias(self, model: str, alias: str) -> None:
        del self.aliases[alias]

    def tag_version(self, model: str, version: str, tags: dict[str, str]) -> None:
        self.tags.setdefault(version, {}).update(tags)


class Make:
    """What tests build from, as one fixture."""

    STABLE, CANARY, NEWER = STABLE, CANARY, NEWER
    service = staticmethod(make_service)
    canary = staticmethod(add_canary)
    project = load_project(Path(__file__).parents[3] / "projects" / "telco.yaml")
    registry = CollectorRegistry


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()


@pytest.fixture
def services() -> Shelf:
    return Shelf()


@pytest.fixture
def routes() -> Shelf:
    return Shelf(gateway=True)


@pytest.fixture
def versions() -> Versions:
    return Versions()


class World:
    """Customers, gateway, ledger and store, all in memory; time goes by the pass."""

    def __init__(self, make, services, routes, versions, **rollout):
        self.make, self.services, self.routes, self.versions = make, services, routes, versions
        self.rng = np.random.default_rng(5)
        self.rows = []
        self.counted = {}
        self.errors = {"canary": 0.0, "stable": 0.0}
        self.slow = {"canary": 0.1, "stable": 0.1}
        self.bias = 0.0
        self.shift = 0.0
        self.outage = None
        self.alarms = []
        self.posted = []
        self.events = []
        self.sink_down = False
        self.seconds = 0.0
        document = json.loads(make.project.model_dump_json())
        document["rollout"] |= {"steps": [20, 50], "min_requests": 200, **rollout}
        self.project = json.dumps(document).encode()
        service = make.service()
        self.name = make.canary(service, percent=0 if rollout.get("mirror_percent") else 20)
        logger = {"mode": "all", "url": "http://detector/events/churn/x"}
        service["spec"]["predictor"]["logger"] = logger
        service["spec"]["canary"][0]["predictor"]["logger"] = logger
        proven = json.dumps({"digest": make.CANARY, "difference": 0.0})
        service["metadata"]["annotations"] |= {names.PROVEN: proven, names.PROJECT_URI: PROJECT_URI}
        services.create(service)
        self.restart()

    # What the pilot talks to

    def read(self):
        if self.outage == "gateway":
            raise UnreachableError("the gateway does not answer")
        backends = {}
        for service, counts in self.counted.items():
            cluster = f"default/{service}/http"
            backend = Backend()
            backend.meant[cluster] = backend.tried[cluster] = counts["requests"]
            backend.failures[f"{cluster}@127.0.0.1:1"] = backend.server_errors[cluster] = counts["errors"]
            backend.answers[cluster] = counts["requests"] - counts["errors"]
            backend.times[cluster] = {
                1.0: counts["requests"] - counts["slow"],
                float("inf"): counts["requests"],
            }
            backends["default", service] = backend
        return Statistics(backends)

    def get_bytes(self, uri):
        assert uri == PROJECT_URI
        return self.project

    def read_predictions(self, service, version=None, *, after_seq=0, since=None, limit=None):
        if self.outage == "ledger":
            raise UnreachableError("the ledger does not answer")
        return pd.DataFrame(
            [row for row in self.rows if row["seq"] > after_seq][:limit],
            columns=["seq", "event_id", "row", "customer_id", "version", "score", "churn", "features"],
        )

    def read_outcomes(self, service, *, as_of, horizon, version=None, since=None):
        frame = self.read_predictions(service)
        frame = frame[frame["version"] == version].assign(outcome="No", matured_at=as_of)
        return frame.iloc[:0]

    def score(self, uri, rows):
        canary = uri.endswith(self.make.CANARY)
        return np.array([row["x"] + (self.shift if canary else 0.0) for row in rows])

    def notify(self, kind, title, body):
        self.alarms.append((kind, title, body))
        return True

    def post(self, identity, service, transition):
        if self.sink_down:
            raise UnreachableError("the detector does not answer")
        self.posted.append((identity, transition))

    def announce(self, about, identity, reason, message, at, kind="Normal"):
        self.events.append((identity, reason, kind))

    # What happens

    def restart(self):
        """Start the pilot as a new process would."""
        navigator = Navigator(
            Collector(lambda: self, self, clock=self.tell),
            self,
            self,
            Metrics(registry=self.make.registry()),
            self,
            clock=self.tell,
        )
        recorder = Recorder(self.versions, self, self, self, clock=self.tell)
        self.pilot = Pilot(
            self.services, self.routes, recorder, "example.com", 0.5, self.tell, navigator=navigator
        )

    def tell(self):
        return self.seconds

    def split(self):
        route = self.routes.documents.get("churn-customers")
        if route is None:
            return {}, 0
        rule = route["spec"]["rules"][0]
        mirror = sum(one["requestMirror"]["percent"] for one in rule["filters"] if "requestMirror" in one)
        return read_shares(route), mirror

    def ask(self, requests=200):
        """Customers ask; each answer is counted and logged."""
        weights, mirror = self.split()
        for service, weight in weights.items():
            canary = service == f"churn-{self.name}-predictor"
            number = requests * (weight or (mirror if canary else 0)) // 100
            arm = "canary" if canary else "stable"
            counts = self.counted.setdefault(service, {"requests": 0, "errors": 0, "slow": 0})
            errors = int(self.rng.binomial(number, self.errors[arm]))
            counts["requests"] += number
            counts["errors"] += errors
            counts["slow"] += int(self.rng.binomial(number, self.slow[arm]))
            version = (self.make.CANARY if canary else self.make.STABLE)[:12]
            for x in self.rng.uniform(0.2, 0.4, number - errors):
                seq = len(self.rows) + 1
                bias = self.bias + self.shift if canary else 0.0
                row = {"seq": seq, "event_id": f"e{seq}", "row": 0, "customer_id": f"c{seq}"}
                self.rows.append(
                    row | {"version": version, "score": x + bias, "churn": False, "features": {"x": x}}
                )

    def go(self, passes, requests=200, until=None):
        """Let time go by; returns whether `until` came true."""
        for _ in range(passes):
            self.seconds += 0.5
            self.pilot.reconcile()
            self.ask(requests)
            if until is not None and until():
                return True
        return until is None

    # What is seen

    @property
    def service(self):
        return self.services.documents["churn"]

    @property
    def marks(self):
        return self.service["metadata"]["annotations"]

    @property
    def flight(self):
        return json.loads(self.marks[names.ROLLOUT])

    @property
    def percent(self):
        canaries = self.service["spec"].get("canary")
        return canaries[0]["trafficPercent"] if canaries else None

    @property
    def outcomes(self):
        return [transition["outcome"] for _, transition in self.posted]

    def is_promoted(self):
        return self.service["spec"]["predictor"]["model"]["storageUri"].endswith(self.make.CANARY)

    def is_over(self):
        return self.percent is None


@pytest.fixture
def world(make, services, routes, versions):
    def build(**rollout):
        return World(make, services, routes, versions, **rollout)

    return build
