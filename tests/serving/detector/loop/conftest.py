"""What the tests of watcher and trigger share: a small model, a real ledger, and a runs API in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from clients.ledger.engine import open_engine
from clients.ledger.instant import to_us
from clients.ledger.reader import Ledger
from clients.run import PipelineVersion, Run, Step
from serving.detector.champion import Champion
from serving.detector.metrics import Metrics
from serving.detector.migration import migrate
from serving.detector.records import Label, Request, Response
from serving.detector.trigger import Trigger
from serving.detector.writer import Writer
from tenure.bundle import Bundle, load_bundle, write_bundle
from tenure.project import Project
from tenure.scorer import Scorer
from tenure.training import train

IMAGE = "registry.example.com/tenure-components@sha256:0"
SERVICE = "churn"
START = datetime(2026, 3, 1, tzinfo=UTC)
PIPELINE = PipelineVersion("p1", "v1", "abc")


class Clock:
    """A clock that the tests move."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now

    def count_us(self) -> int:
        # Each look at the clock is later than the one before, as in life.
        self.now += timedelta(microseconds=1)
        return to_us(self.now)


class Notes:
    """A notifier that remembers."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []

    def notify(self, kind: str, title: str, body: str) -> bool:
        self.sent.append((kind, title, body))
        return True


class Tracker:
    """An MLflow in memory, as far as reports need it. `on_call` may raise before or after each call."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.on_call: Callable[[str, str], None] = lambda when, name: None
        self.client = self

    def find_experiment(self, name: str) -> str:
        return name

    def search(self, experiments: list[str], query: str, limit: int | None = None) -> Iterator[Any]:
        for run_id, run in self.runs.items():
            if query.endswith(f"'{run['tags']['tenure.verdict']}'"):
                yield SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    @contextmanager
    def translate(self, action: str) -> Iterator[None]:
        yield

    def create_run(self, experiment: str, start_time: int, tags: dict[str, str], run_name: str) -> Any:
        self.on_call("before", "create_run")
        run_id = f"r{len(self.runs)}"
        self.runs[run_id] = {"tags": tags, "name": run_name, "experiment": experiment, "ended": False}
        self.on_call("after", "create_run")
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def log_metrics(self, run_id: str, metrics: dict[str, float]) -> None:
        self.runs[run_id]["metrics"] = metrics

    def log_text(self, run_id: str, text: str, file: str) -> None:
        self.on_call("before", "log_text")
        self.runs[run_id][file] = text

    def set_terminated(self, run_id: str, end_time: int) -> None:
        self.runs[run_id]["ended"] = True


class Api:
    """A runs API in memory: it outlives those who call it. `on_call` may raise before or after each call."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.started: list[dict[str, Any]] = []
        self.version: PipelineVersion | None = PIPELINE
        self.on_call: Callable[[str, str], None] = lambda when, name: None

    def find_version(self, name: str = "tenure-training") -> PipelineVersion:
        from clients.errors import NotFoundError

        self.on_call("before", "find_version")
        if self.version is None:
            raise NotFoundError("no pipeline was uploaded")
        return self.version

    def start(
        self, pipeline: PipelineVersion, arguments: Mapping[str, Any], name: str, experiment: str
    ) -> str:
        self.on_call("before", "start")
        run = Run(id=f"run-{len(self.runs)}", name=name, state="RUNNING")
        self.runs.append(run)
        self.started.append({"pipeline": pipeline, "arguments": dict(arguments), "experiment": experiment})
        self.on_call("after", "start")
        return run.id

    def find(self, name: str, experiment: str | None = None) -> Run | None:
        self.on_call("before", "find")
        return next((run for run in reversed(self.runs) if run.name == name), None)

    def get(self, run_id: str) -> Run:
        from clients.errors import NotFoundError

        self.on_call("before", "get")
        for run in self.runs:
            if run.id == run_id:
                return run
        raise NotFoundError(f"run {run_id} is gone")

    def finish(self, state: str = "SUCCEEDED", *steps: Step, error: str | None = None) -> None:
        self.runs = [replace(run, state=state, steps=steps, error=error) for run in self.runs]


class Shelf:
    """A real writer whose every commit may be the last thing that happens."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.on_call: Callable[[str, str], None] = lambda when, name: None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._writer, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.on_call("before", name)
            result = method(*arguments, **named)
            self.on_call("after", name)
            return result

        return call


@dataclass
class World:
    """Everything outside of one process: it stays when the process ends."""

    path: Path
    writer: Writer
    shelf: Shelf
    ledger: Ledger
    clock: Clock
    api: Api
    notes: Notes
    champion: Champion

    def make_tracker(self) -> Tracker:
        """Return an empty MLflow."""
        return Tracker()

    def make_trigger(self) -> Trigger:
        """Start afresh, as a new process would."""
        metrics = Metrics(CollectorRegistry())
        shelf: Any = self.shelf
        api: Any = self.api
        notes: Any = self.notes
        return Trigger(self.ledger, shelf, metrics, lambda: api, notes, self.clock, IMAGE)

    def change(self, **retraining: Any) -> Champion:
        """Change the project's settings for retraining."""
        project = self.champion.project
        new = project.retraining.model_copy(update=retraining)
        self.champion = replace(
            self.champion, project=project.model_copy(update={"retraining": new}), _judges={}
        )
        return self.champion

    def read(self) -> list[dict[str, Any]]:
        return [row for row in self.ledger.read_causes(SERVICE) if row["kind"] != "watch"]


@pytest.fixture(scope="session")
def project() -> Project:
    columns = [
        {"name": "client", "role": "id", "type": "string"},
        {"name": "left", "role": "label", "type": "string", "categories": ["Yes", "No"], "positive": "Yes"},
        {"name": "plan", "type": "string", "categories": ["silver", "gold"]},
        {"name": "months", "type": "integer", "minimum": 0, "maximum": 1000},
        {"name": "charge", "type": "float", "minimum": 0, "nullable": True},
    ]
    return Project.model_validate(
        {
            "name": "demo",
            "source": {"uri": "s3://b/none.csv"},
            "contract": {"columns": columns},
            "training": {"trials": 1, "folds": 2, "max_rounds": 20},
            "rollout": {"service": SERVICE, "namespace": "default"},
            "drift": {"backend": "scipy", "window": {"rows": 200}, "scales": [1, 4]},
            "retraining": {"min_rows": 300, "cooldown_minutes": 60},
        }
    )


def draw(rows: int, seed: int, dearer: float = 1.0) -> pd.DataFrame:
    """Draw customers; those who pay more leave more often."""
    chance = np.random.default_rng(seed)
    months = chance.integers(0, 72, rows)
    charge = (chance.uniform(20, 100, rows) * dearer).round(2)
    plan = chance.choice(["silver", "gold"], rows)
    leaning = 0.04 * (charge - 60) - 0.05 * (months - 36) + (plan == "silver")
    left = chance.random(rows) < 1 / (1 + np.exp(1.2 - leaning))
    return pd.DataFrame(
        {
            "client": [f"c{seed}-{number}" for number in range(rows)],
            "left": np.where(left, "Yes", "No"),
            "plan": plan,
            "months": pd.array(months, dtype="Int64"),
            "charge": charge,
        }
    )


@pytest.fixture(scope="session")
def bundle(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    directory = tmp_path_factory.mktemp("bundle") / "bundle"
    model = train(draw(1500, 1), project)
    write_bundle(directory, model, project=project, snapshot="0" * 64, code_version="test")
    return load_bundle(directory)


@pytest.fixture
def make_world(tmp_path: Path, project: Project, bundle: Bundle) -> Iterator[Callable[[World | None], World]]:
    """Return a function that makes a world with an empty ledger, or a copy of another one's."""
    engines: list[Engine] = []

    def make(other: World | None = None) -> World:
        path, clock = tmp_path / f"{uuid4().hex}.db", Clock()
        engine = open_engine(f"sqlite:///{path}")
        if other is None:
            migrate(engine)
        else:
            with closing(sqlite3.connect(other.path)) as source, closing(sqlite3.connect(path)) as target:
                source.backup(target)
            clock.now = other.clock.now
        engines.append(engine)
        writer = Writer(engine, clock.count_us)
        champion = Champion(SERVICE, bundle, project)
        ledger = Ledger(f"sqlite:///{path}")
        return World(path, writer, Shelf(writer), ledger, clock, Api(), Notes(), champion)

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def world(make_world: Callable[[World | None], World]) -> World:
    return make_world(None)


class Traffic:
    """Sends customers through the model and into the ledger."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._scorer = Scorer(world.champion.bundle)
        self._sent = 0

    def send(
        self,
        rows: int,
        seed: int,
        dearer: float = 1.0,
        outcomes: bool = True,
        only: str | None = None,
        flipped: bool = False,
    ) -> None:
        """Record predictions, a second apart in the clock, and what became of these customers."""
        frame = draw(rows, seed, dearer)
        features = frame[["plan", "months", "charge"]]
        scores = self._scorer.score_columns({name: features[name].tolist() for name in features})
        items: list[Any] = []
        bundle = self._world.champion.bundle
        for place, row in enumerate(frame.to_dict("records")):
            time = to_us(self._world.clock.move(seconds=1))
            name = f"e{seed}-{self._sent + place}"
            values = {key: row[key] for key in ("plan", "months", "charge")}
            customer = str(row["client"])
            score = float(scores[place])
            items.append(Request(name, SERVICE, bundle.version, time, [customer], [values]))
            items.append(
                Response(name, SERVICE, bundle.version, time + 1000, [score], [score >= bundle.threshold])
            )
            left = row["left"]
            if flipped:
                left = "No" if left == "Yes" else "Yes"
            if outcomes and only in (None, left):
                items.append(Label(SERVICE, customer, left, time + 500_000, time + 600_000))
        self._sent += rows
        self._world.writer.write(items)


@pytest.fixture
def make_traffic() -> Callable[[World], Traffic]:
    return Traffic


@pytest.fixture
def traffic(world: World) -> Traffic:
    return Traffic(world)
