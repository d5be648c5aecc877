"""The five addresses for components: real SeaweedFS, MLflow and API server; a stand-in plays the rest.

The stand-in does in one thread what reconciler, pilot, gateway and predictor do: it sets the status of
InferenceServices, and answers V2 requests with the bundles that they name, fetched from the store.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kubernetes.client.exceptions import ApiException

from clients import names
from clients.services import Collection, Services
from clients.settings import Settings, load_settings
from clients.store import Store
from clients.tracking import CHALLENGER, CHAMPION, Tracking
from components import ingest, rollout, tune, validate
from tenure.bundle import Bundle, load_bundle
from tenure.project import Project, load_project
from tenure.scorer import Scorer

ROOT = Path(__file__).parents[2]


@dataclass
class StandIn:
    """Plays reconciler, pilot, gateway and predictor.

    Attributes:
        never_ready: Digests whose servers never become ready.
        wrong: Digests whose servers answer with other numbers.
        deaf: Digests that no request reaches: the route to them is missing.
    """

    services: Collection
    store: Store
    never_ready: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    asked: list[tuple[str | None, str]] = field(default_factory=list)
    _bundles: dict[str, Bundle] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _take_away(self, document: dict[str, Any]) -> None:
        """Do what the pilot does when a newer challenger asks for room."""
        name = document["metadata"].get("annotations", {}).get(names.SUPERSEDE)
        if name is None:
            return
        rest = [entry for entry in document["spec"].get("canary", ()) if entry["predictor"]["name"] != name]
        marks = {names.SUPERSEDE: None, names.PROVEN: None, names.ROLLOUT: None}
        patch = {"metadata": {"annotations": marks}, "spec": {"canary": rest or None}}
        self.services.patch(document["metadata"]["name"], patch)

    def reconcile(self) -> None:
        while not self._stop.wait(0.05):
            documents = self.services.list()
            for document in documents:
                status = self._judge(document)
                if status != document.get("status"):
                    self._write_status(document["metadata"]["name"], status)
                self._take_away(document)

    def _write_status(self, name: str, status: dict[str, Any]) -> None:
        write = self.services._api.patch_namespaced_custom_object_status
        with suppress(ApiException):  # deleted meanwhile
            write(**self.services._address, name=name, body={"status": status})

    def _judge(self, document: dict[str, Any]) -> dict[str, Any]:
        spec = document["spec"]
        stable = self._is_ready(spec["predictor"])
        status: dict[str, Any] = {"conditions": [_condition("PredictorReady", stable)]}
        if spec.get("canary"):
            ready = {
                entry["predictor"]["name"]: self._is_ready(entry["predictor"]) for entry in spec["canary"]
            }
            status["conditions"].append(_condition("CanaryPredictorReady", all(ready.values())))
            status["canaryStatuses"] = [{"name": name, "ready": value} for name, value in ready.items()]
        return status

    def _is_ready(self, predictor: dict[str, Any]) -> bool:
        return names.digest_of(predictor["model"]["storageUri"]) not in self.never_ready

    def find_bundle(self, host: str, variant: str | None) -> Bundle | None:
        """Return the bundle that a request is answered with, or None when there is no route."""
        documents = self.services.list()
        document = next(
            (item for item in documents if names.hostname(item, "default", "tenure.example.com") == host),
            None,
        )
        if document is None:
            return None
        variants = {names.stable_name(document): document["spec"]["predictor"]}
        for entry in document["spec"].get("canary") or ():
            variants[entry["predictor"]["name"]] = entry["predictor"]
        predictor = variants.get(variant or "")
        digest = names.digest_of((predictor or document["spec"]["predictor"])["model"]["storageUri"])
        if digest in self.deaf:
            digest = names.digest_of(document["spec"]["predictor"]["model"]["storageUri"])
        if digest not in self._bundles:
            with tempfile.TemporaryDirectory() as directory:
                uri = names.bundle_uri(self.store.bucket, digest)
                self.store.download_directory(uri, Path(directory))
                self._bundles[digest] = load_bundle(Path(directory), digest)
        self.asked.append((variant, digest))
        return self._bundles[digest]

    def answer(self, bundle: Bundle, request: dict[str, Any]) -> dict[str, Any]:
        columns = {tensor["name"]: tensor["data"] for tensor in request["inputs"]}
        scores = Scorer(bundle).score_columns(columns)
        if bundle.digest in self.wrong:
            scores = scores * 0.99
        return {
            "model_name": "telco",
            "model_version": bundle.version,
            "outputs": [
                {
                    "name": "churn_probability",
                    "shape": [len(scores)],
                    "datatype": "FP64",
                    "data": scores.tolist(),
                },
                {
                    "name": "churn",
                    "shape": [len(scores)],
                    "datatype": "BOOL",
                    "data": (scores >= bundle.threshold).tolist(),
                },
            ],
        }

    def stop(self) -> None:
        self._stop.set()


def _condition(kind: str, ready: bool) -> dict[str, str]:
    condition = {"type": kind, "status": "True" if ready else "False"}
    return (
        condition if ready else condition | {"reason": "Starting", "message": "the model server is starting"}
    )


@pytest.fixture(scope="session")
def stand_in(kubeconfig: Path, store_settings: Settings, store: Store) -> Iterator[tuple[StandIn, str]]:
    """Start the stand-in; returns it and its gateway's address."""
    services = Services.connect(store_settings.model_copy(update={"kubeconfig": kubeconfig})).inference
    player = StandIn(services, store)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bundle = player.find_bundle(self.headers["host"], self.headers.get(names.VARIANT_HEADER))
            document = {"error": "no route"} if bundle is None else player.answer(bundle, request)
            body = json.dumps(document).encode()
            self.send_response(404 if bundle is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threads = [threading.Thread(target=server.serve_forever), threading.Thread(target=player.reconcile)]
    for thread in threads:
        thread.start()
    yield player, f"http://127.0.0.1:{server.server_port}"
    player.stop()
    server.shutdown()
    server.server_close()
    for thread in threads:
        thread.join(10)


@pytest.fixture(scope="session")
def addresses(tracking_settings: Settings, kubeconfig: Path, stand_in: tuple[StandIn, str]) -> Settings:
    """All five addresses."""
    return tracking_settings.model_copy(update={"kubeconfig": kubeconfig, "gateway_url": stand_in[1]})


@contextmanager
def enter(settings: Settings) -> Iterator[None]:
    """Put the addresses into the environment, where a step finds them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TENURE_")]:
            patch.delenv(name)
        patch.setenv("TENURE_ENV_FILE", os.devnull)
        patch.setenv("TENURE_CODE_VERSION", "tests")  # an edit while tests run must not fail them
        for name, value in settings.model_dump(exclude_none=True).items():
            text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
            patch.setenv(f"TENURE_{name.upper()}", text)
        load_settings.cache_clear()
        yield
    load_settings.cache_clear()


@pytest.fixture
def settings(addresses: Settings) -> Iterator[Settings]:
    """Put the addresses into the environment for one test."""
    with enter(addresses):
        yield addresses


@pytest.fixture(scope="session")
def services(addresses: Settings) -> Collection:
    return Services.connect(addresses).inference


@pytest.fixture(scope="session")
def tracking(addresses: Settings) -> Tracking:
    return Tracking.connect(addresses)


def make_project(**changes: Any) -> Project:
    """Return the Telco project with a small search and a name of its own."""
    telco = load_project(ROOT / "projects" / "telco.yaml")
    document = telco.model_dump(mode="json")
    name = f"telco-{uuid4().hex[:8]}"
    document["name"] = name
    document["training"] |= {"trials": 3, "folds": 3, "max_rounds": 40, "early_stopping_rounds": 5}
    document["evaluation"] |= {"bootstrap": 100}
    document["rollout"] |= {"service": name, "ready_timeout_seconds": 20}
    for section, values in changes.items():
        document[section] |= values
    return Project.model_validate(document)


@dataclass(frozen=True)
class Trained:
    """What the first three steps left behind."""

    project: Project
    text: str
    digest: str
    code_version: str
    rows: Path
    bundle: Path
    bundle_digest: str
    run_id: str


def train(project: Project, directory: Path, source: str = "") -> Trained:
    """Run ingest, validate and tune."""
    directory.mkdir(parents=True)
    text = project.model_dump_json()
    found = ingest.run(text, source, str(directory / "snapshot"))
    rows = directory / "rows"
    paths = [str(directory / name) for name in ("rows", "bad", "profile.html", "counts.json")]
    validate.run(text, found.digest, found.code_version, *paths)
    bundle = directory / "bundle"
    digest, run_id = tune.run(text, str(rows), found.digest, found.code_version, str(bundle))
    return Trained(project, text, found.digest, found.code_version, rows, bundle, digest, run_id)


def write_part(path: Path, rows: int) -> str:
    """Write the first rows of the Telco customers as CSV."""
    lines = (ROOT / "data" / "telco.csv").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: rows + 1]))
    return str(path)


@pytest.fixture(scope="session")
def make() -> Any:
    return make_project


@pytest.fixture(scope="session")
def part() -> Any:
    return write_part


@pytest.fixture(scope="session")
def models(addresses: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Trained]:
    """Two models of one project: of fewer customers, and of all."""
    directory = tmp_path_factory.mktemp("trained")
    project = make_project()
    with enter(addresses):
        first = train(project, directory / "first", write_part(directory / "part.csv", 5000))
        return first, train(project, directory / "second")


@pytest.fixture
def trained(models: tuple[Trained, Trained], settings: Settings) -> tuple[Trained, Trained]:
    """The two models, with the addresses in the environment."""
    return models


@dataclass
class Stage:
    """One project whose two models can be rolled out."""

    first: Any
    second: Any
    service: str
    text: str
    services: Collection
    tracking: Tracking
    directory: Path
    name: str

    def roll_out(self, model: Any, seconds: int = 20, **changes: Any) -> str:
        project = model.project
        settings = project.rollout.model_copy(
            update={"service": self.service, "ready_timeout_seconds": seconds, **changes}
        )
        text = project.model_copy(update={"rollout": settings}).model_dump_json()
        path = self.directory / f"{uuid4().hex}.md"
        rollout.run(text, str(model.bundle), model.run_id, str(path), "test")
        return path.read_text()

    def get(self) -> dict[str, Any]:
        return self.services.get(self.service)

    def alias(self, alias: str) -> str | None:
        found = self.tracking.find_alias(self.name, alias)
        return None if found is None else found.digest

    def tags(self, model: Any) -> dict[str, str]:
        version = self.tracking.find_version(self.name, model.bundle_digest)
        assert version is not None
        return version.tags


@pytest.fixture
def stage(
    trained: tuple[Any, Any],
    settings: Settings,
    services: Collection,
    tracking: Tracking,
    stand_in: tuple[Any, str],
    store: Store,
    tmp_path: Path,
) -> Iterator[Stage]:
    first, second = trained
    player, _ = stand_in
    service = f"t{uuid4().hex[:8]}"
    name = first.project.name
    yield Stage(first, second, service, first.text, services, tracking, tmp_path, name)
    for faults in (player.never_ready, player.wrong, player.deaf):
        faults.clear()
    for alias in (CHAMPION, CHALLENGER):
        if tracking.find_alias(name, alias) is not None:
            tracking.delete_alias(name, alias)
