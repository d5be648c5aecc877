"""An InferenceService of its own on the shared platform, made by hand, for tests that break things."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import yaml
from e2e_load import Load, poll
from e2e_machine import is_loopback

from clients import names
from clients.inference import build_request
from clients.services import Services, get_condition
from clients.settings import Settings
from clients.split import read_shares
from clients.store import Store
from embedded.home import Home
from embedded.leftovers import find_leftovers
from embedded.program import ALIVE, ProgramState
from embedded.supervisor import Supervisor
from tenure.bundle import Bundle, load_bundle, write_bundle
from tenure.canonical import dump_canonical
from tenure.partition import Part, assign_parts
from tenure.project import Project, load_project
from tenure.scorer import Scorer
from tenure.snapshot import read_source, write_snapshot
from tenure.training import train
from tenure.validation import validate_frame

ROOT = Path(__file__).parents[2]
NAME = "proving"
QUICK = {"trials": 2, "folds": 3, "max_rounds": 60}


def train_bundle(folder: Path, rows: int | None) -> Bundle:
    """Train quickly on the first customers and write the bundle."""
    document = yaml.safe_load((ROOT / "projects" / "telco.yaml").read_text(encoding="utf-8"))
    document["name"] = document["rollout"]["service"] = NAME
    document["training"] |= QUICK
    project = Project.model_validate(document)
    frame = read_source(ROOT / "data" / "telco.csv", "csv", project.contract)
    good = validate_frame(frame.head(rows or len(frame)), project.contract).good
    parts = assign_parts(good, project.contract, project.split, project.name)
    model = train(good[parts == Part.TRAIN].reset_index(drop=True), project)
    folder.mkdir(parents=True)
    snapshot = write_snapshot(good, folder / "snapshot.parquet")
    digest = write_bundle(folder / "bundle", model, project=project, snapshot=snapshot, code_version="e2e")
    return load_bundle(folder / "bundle", digest)


@dataclass
class Stage:
    """The InferenceService `proving`: model `old`, and `new` for a canary."""

    home: Path
    environment: dict[str, str]
    settings: Settings
    folder: Path
    old: Bundle
    new: Bundle
    name: str = NAME
    logged: bool = False
    """Whether its model servers log to the detector; say so before the first `set_up`."""
    _plans: int = field(default=0, init=False)

    @cached_property
    def services(self) -> Services:
        return Services.connect(self.settings)

    @cached_property
    def store(self) -> Store:
        return Store.connect(self.settings)

    @cached_property
    def supervisor(self) -> Supervisor:
        return Supervisor(Home.open(self.home))

    @property
    def secrets(self) -> list[str]:
        """Every secret of the platform."""
        return [value.get_secret_value() for _, value in Home.open(self.home).secrets]

    @property
    def stable(self) -> str | None:
        """The stable predictor's name, once it has one."""
        name: str | None = self.read()["spec"]["predictor"].get("name")
        return name

    @property
    def canary(self) -> str:
        """The predictor name of `new` as a canary."""
        return names.canary_name(self.new.digest)

    @property
    def project_file(self) -> Path:
        """A project whose service this is."""
        return self.write_project()

    def write_project(self, **changes: Any) -> Path:
        """Write the project; `changes` replace keys of its sections."""
        document = yaml.safe_load((ROOT / "projects" / "telco.yaml").read_text(encoding="utf-8"))
        document["name"] = document["rollout"]["service"] = self.name
        document["source"]["uri"] = str(ROOT / "data" / "telco.csv")
        document["training"] |= QUICK
        document["evaluation"] |= {"bootstrap": 100}
        for section, values in changes.items():
            document[section] = {**document.get(section, {}), **values}
        self._plans += 1
        file = self.folder / f"project-{self._plans}.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        load_project(file)
        return file

    def tenure(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the `tenure` command on this service."""
        return self._run([str(Path(sys.executable).parent / "tenure"), *arguments], check)

    def embedded(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the platform's own command."""
        return self._run([sys.executable, "-m", "embedded", *arguments], check)

    def _run(self, command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, "TENURE_PROJECT": str(self.project_file)},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert answer.returncode == 0 or not check, f"{command}\n{answer.stdout}\n{answer.stderr}"
        return answer

    # What there is to be served

    def uri(self, digest: str) -> str:
        return names.bundle_uri(self.settings.s3_bucket, digest)

    def upload(self) -> None:
        """Put both bundles into the store."""
        for bundle in (self.old, self.new):
            self.store.upload_directory(bundle.directory, self.uri(bundle.digest))

    def build_entry(self, uri: str, percent: int) -> dict[str, Any]:
        """Return an entry of `spec.canary`."""
        name = names.canary_name(names.digest_of(uri))
        model = {"name": "kserve-container", **_build_model(uri)}
        predictor = {"name": name, "minReplicas": 1, "model": model, **self._build_logger(uri)}
        return {"predictor": predictor, "trafficPercent": percent}

    def set_up(self, percent: int | None = None) -> None:
        """Have `old` serve as the stable model, and `new` as a canary if `percent` says so; nothing else.

        Where `new` has become the stable one, the two exchange their names, for that costs no start. Returns
        once the weights are in effect.
        """
        found = self.services.inference.find(self.name)
        if found is None:
            self.services.inference.create(self._build_service())
        elif self._stable_uri(found) == self.uri(self.new.digest):
            self.old, self.new = self.new, self.old
        elif self._stable_uri(found) != self.uri(self.old.digest):
            self.remove()
            self.services.inference.create(self._build_service())
        canary = None if percent is None else [self.build_entry(self.uri(self.new.digest), percent)]
        found = self.read()
        marks = dict.fromkeys(found["metadata"]["annotations"])
        marks.pop(names.DEPLOYMENT_MODE)
        patch = {"metadata": {"annotations": marks}, "spec": {"canary": canary}}
        self.services.inference.patch(self.name, patch)
        self.wait_for_weights({} if percent is None else {self.canary: percent})

    def _build_logger(self, uri: str) -> dict[str, Any]:
        if not self.logged:
            return {}
        version = names.digest_of(uri)[:12]
        url = names.events_url(self.settings.detector_url or "", self.name, version)
        return {"logger": {"mode": "all", "url": url}}

    def _build_service(self) -> dict[str, Any]:
        uri = self.uri(self.old.digest)
        return {
            "metadata": {
                "name": self.name,
                "labels": {names.PROJECT_LABEL: self.name},
                "annotations": {names.DEPLOYMENT_MODE: "Standard"},
            },
            "spec": {"predictor": {"minReplicas": 1, "model": _build_model(uri), **self._build_logger(uri)}},
        }

    @staticmethod
    def _stable_uri(service: dict[str, Any]) -> str:
        return str(service["spec"]["predictor"]["model"]["storageUri"])

    def prove(self, difference: float | None = None, **rollout: Any) -> None:
        """Say what a roll-out says of its canary once it has proven it: from now on the pilot judges it.

        `rollout` replaces keys of that section of the project.
        """
        settings = {"steps": [20, 50], "min_requests": 300, "tolerance": {"errors": 0.05, "latency": 0.4}}
        project = load_project(self.write_project(rollout={**settings, **rollout}))
        data = dump_canonical(project.model_dump(mode="json"))
        uri = names.project_uri(self.settings.s3_bucket, hashlib.sha256(data).hexdigest())
        self.store.put_bytes(data, uri)
        proven = json.dumps({"digest": self.new.digest, "difference": difference})
        marks = {names.PROJECT_URI: uri, names.PROVEN: proven}
        self.services.inference.patch(self.name, {"metadata": {"annotations": marks}})

    def remove(self) -> None:
        """Take the service away, and wait until its processes are gone too."""
        if self.services.inference.find(self.name) is not None:
            self.services.inference.delete(self.name)
        poll(
            lambda: self.services.routes.find(names.route_name(self.name)) is None,
            what="the route's deletion",
        )
        poll(lambda: not self.list_programs(), what="the end of the model servers")

    def set_percent(self, percent: int) -> None:
        """Change the canary's share, as anybody may, and wait until it is in effect."""
        (entry,) = self.read()["spec"]["canary"]
        self.services.inference.patch(self.name, {"spec": {"canary": [{**entry, "trafficPercent": percent}]}})
        self.wait_for_weights({self.canary: percent})

    # What is seen of it

    def read(self) -> dict[str, Any]:
        return self.services.inference.get(self.name)

    def condition(self, kind: str) -> dict[str, Any]:
        return dict(get_condition(self.read(), kind) or {})

    def annotations(self) -> dict[str, str]:
        return dict(self.read()["metadata"].get("annotations") or {})

    def read_transition(self) -> dict[str, Any]:
        """Return the last transition, with its evidence; empty before the first."""
        return dict(json.loads(self.annotations().get(names.TRANSITION, "{}")))

    def read_weights(self) -> dict[str, int]:
        """Return the weights by Service that the gateway has accepted; empty until it has."""
        route = self.services.routes.find(names.route_name(self.name))
        if route is None:
            return {}
        accepted = [
            condition["status"] == "True"
            and condition["observedGeneration"] == route["metadata"]["generation"]
            for parent in route.get("status", {}).get("parents", ())
            for condition in parent["conditions"]
            if condition["type"] == "Accepted"
        ]
        if not accepted or not all(accepted):
            return {}
        return read_shares(route)

    def wait_for_weights(self, percents: dict[str, int], seconds: float = 60) -> None:
        """Wait until the canaries have these shares, the stable model the rest, and all are ready."""
        poll(lambda: self.has_weights(percents), seconds, f"the weights {percents}")

    def has_weights(self, percents: dict[str, int]) -> bool:
        """Say whether the canaries have these shares, the stable model the rest, and all are ready."""
        service = self.read()
        stable = names.service_name(self.name, service["spec"]["predictor"].get("name"))
        wanted = {names.service_name(self.name, name): share for name, share in percents.items()}
        wanted[stable] = 100 - sum(percents.values())
        kinds = ["Ready", "CanaryPredictorReady"] if percents else ["Ready"]
        ready = all((get_condition(service, kind) or {}).get("status") == "True" for kind in kinds)
        observed = service.get("status", {}).get("observedGeneration") == service["metadata"]["generation"]
        return ready and observed and self.read_weights() == wanted

    @staticmethod
    def wait_until(condition: Callable[[], Any], seconds: float = 60) -> Any:
        """Return the first true value of the condition."""
        return poll(condition, seconds)

    def list_programs(self) -> dict[str, ProgramState]:
        """Return the model servers of this service by name."""
        return {
            name: state for name, state in self.supervisor.list().items() if name.startswith(f"{self.name}-")
        }

    def find_program(self, predictor: str | None = None) -> ProgramState:
        """Return the one model server of a predictor; by default the stable one."""
        predictor = predictor or self.stable
        prefix = names.service_name(self.name, predictor) + "-"
        (state,) = [state for name, state in self.list_programs().items() if name.startswith(prefix)]
        return state

    def find_pid(self, predictor: str | None = None) -> int:
        """Return the process of a predictor."""
        state = self.find_program(predictor)
        assert state.state in ALIVE, state
        assert state.pid is not None, state
        return state.pid

    def list_listeners(self) -> list[tuple[str, int]]:
        """Return the address of every port on which a process of the platform listens."""
        mine = {process.pid for process in find_leftovers(Home.open(self.home).state.id)}
        return [
            (connection.laddr.ip, connection.laddr.port)
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.pid in mine
        ]

    def find_open_listeners(self) -> list[tuple[str, int]]:
        """Return those of them that others than this machine could reach."""
        return [address for address in self.list_listeners() if not is_loopback(address[0])]

    def kill_program(self, name: str) -> int:
        """Kill a program of the platform at once; returns the id that its process had."""
        state = self.supervisor.list()[name]
        assert state.pid is not None, state
        os.kill(state.pid, signal.SIGKILL)
        return state.pid

    def wait_for_restart(self, name: str, old: int, seconds: float = 30) -> int:
        """Wait until the program runs as another process; returns its id."""

        def look() -> int | None:
            state = self.supervisor.list().get(name)
            if state is None or state.state not in ALIVE or state.pid in (None, old):
                return None
            return state.pid

        return int(poll(look, seconds, f"the restart of {name}"))

    # Requests

    @contextmanager
    def load(
        self, rate: int = 300, connections: int = 8, customers: int = 0, mark: str = ""
    ) -> Iterator[Load]:
        """Ask the service steadily while the block runs; every answer is compared with the bundles' own.

        With a mark, request n is about the customer MARK-n, by whom the ledger knows it.
        """
        gateway = self.settings.gateway_url.rsplit(":", 1)
        rows = self.old.probe()
        columns = {column.name: [row[column.name] for row in rows] for column in self.old.contract.features}
        plan = {
            "host": gateway[0].removeprefix("http://"),
            "port": int(gateway[1].rstrip("/")),
            "name": names.hostname(self.name, "default", self.settings.ingress_domain),
            "path": f"/v2/models/{self.name}/infer",
            "bodies": [build_request([row], self.old.contract) for row in rows],
            "expected": {
                bundle.version: Scorer(bundle).score_columns(columns).tolist()
                for bundle in (self.old, self.new)
            },
            "connections": connections,
            "rate": rate,
            "customers": customers,
            "mark": mark,
        }
        self._plans += 1
        file = self.folder / f"load-{self._plans}.json"
        file.write_text(json.dumps(plan), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("generator.py")), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                load = Load(process)
                load.pass_by(rate // 10)
                yield load
                load.stop()
            except BaseException:
                process.kill()
                raise


def _build_model(uri: str) -> dict[str, Any]:
    return {"modelFormat": {"name": names.MODEL_FORMAT}, "protocolVersion": "v2", "storageUri": uri}
