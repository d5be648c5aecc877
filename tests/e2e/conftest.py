"""One embedded platform for all end-to-end tests: real servers on free ports, state in a temporary folder.

The tests share it and run in file order on one worker (tests/conftest.py sees to it): the loop is one story.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clients.names import route_name, service_name
from clients.services import Services
from clients.settings import Settings
from clients.split import read_shares
from clients.store import Store
from clients.tracking import CHALLENGER, CHAMPION, Tracking
from tenure.bundle import Bundle
from tenure.project import Project, load_project

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
OLDER = 4200
"""Rows of the older snapshot; the newer one has all."""


def _load_helper(name: str, room: str = "e2e") -> Any:
    """Import a module of this folder or of another one beside it; there is no package to import it from."""
    file = Path(__file__).parents[1] / room / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{room}_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# In this order: each imports those before it by the names that this gives them.
_load_helper("generator")
_load_helper("load")
_load_helper("machine")
stages = _load_helper("stage")
for name in ("schedule", "witness", "books", "campaign"):
    _load_helper(name, "chaos")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(600))


def poll(condition: Callable[[], Any], seconds: float = 60, what: str = "the condition") -> Any:
    """Return the condition's first true value; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.1)


@dataclass
class Platform:
    """A running platform and the ordinary ways to it."""

    home: Path
    environment: dict[str, str]
    project_file: Path
    settings: Settings

    @property
    def project(self) -> Project:
        return load_project(self.project_file)

    @property
    def services(self) -> Services:
        return Services.connect(self.settings)

    @property
    def store(self) -> Store:
        return Store.connect(self.settings)

    @property
    def tracking(self) -> Tracking:
        return Tracking.connect(self.settings)

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout: float = 400,
        stdin: str | None = None,
        **changes: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the platform's environment; fails with its output."""
        answer = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **changes},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and answer.returncode:
            raise AssertionError(
                f"{shlex.join(command)}: {answer.returncode}\n{answer.stdout}\n{answer.stderr}"
            )
        return answer

    def tenure(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the `tenure` command on this platform's project."""
        return self.run(str(BIN / "tenure"), *arguments, check=check, TENURE_PROJECT=str(self.project_file))

    def train(self, rows: int | None = None, check: bool = True, **changes: Any) -> dict[str, Any]:
        """Run the pipeline on the first `rows` customers; returns the run as JSON.

        `changes` replace keys of the project's sections, as gate={"margin": 0.5}.
        """
        file = self.write_project(**changes) if changes else self.project_file
        source = self.write_source(rows)
        answer = self.run(
            str(BIN / "tenure"), "run", "--json", "-p", str(file), "--source", str(source), check=check
        )
        return dict(json.loads(answer.stdout))

    def write_source(self, rows: int | None) -> Path:
        lines = (ROOT / "data" / "telco.csv").read_bytes().splitlines(keepends=True)
        file = self.home.parent / f"telco-{rows or 'all'}.csv"
        file.write_bytes(b"".join(lines if rows is None else lines[: rows + 1]))
        return file

    def write_project(self, **changes: Any) -> Path:
        document = yaml.safe_load(self.project_file.read_text(encoding="utf-8"))
        for section, values in changes.items():
            document[section] = {**document.get(section, {}), **values}
        file = self.home.parent / f"project-{len(list(self.home.parent.glob('project-*.yaml')))}.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return file

    def read_service(self) -> dict[str, Any]:
        return self.services.inference.get(self.project.rollout.service)

    def ensure_stable(self) -> None:
        """Make sure that a model serves: the one of the older customers, when there was none."""
        if self.services.inference.find(self.project.rollout.service) is None:
            self.train(OLDER)

    def ensure_canary(self) -> str:
        """Make sure that there is a canary with its share in effect; returns its predictor's name."""
        self.ensure_stable()
        if not self.read_service()["spec"].get("canary"):
            self.train()
        if not self.read_service()["spec"].get("canary"):
            # The model of all customers is the stable one already: begin again.
            self.reset()
            self.train(OLDER)
            self.train()
        (canary,) = self.read_service()["spec"]["canary"]
        name, percent = canary["predictor"]["name"], canary["trafficPercent"]
        backend = service_name(self.project.rollout.service, name)
        poll(lambda: self.read_weights().get(backend) == percent, what=f"{percent} % for {name}")
        return str(name)

    def reset(self) -> None:
        """Take the InferenceService and the registry's aliases away: the next run's model is a first one."""
        service, services = self.project.rollout.service, self.services
        if services.inference.find(service) is not None:
            services.inference.delete(service)
        poll(lambda: services.inference.find(service) is None, what="the deletion")
        poll(lambda: services.routes.find(route_name(service)) is None, what="the route's deletion")
        for alias in (CHAMPION, CHALLENGER):
            if self.tracking.find_alias(self.project.name, alias) is not None:
                self.tracking.delete_alias(self.project.name, alias)

    def read_weights(self) -> dict[str, int]:
        """Return the route's weights by Service."""
        return read_shares(self.services.routes.get(route_name(self.project.rollout.service)))


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    return poll


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    if "PYTEST_XDIST_WORKER" in os.environ:
        # All workers' folders lie in one: the second platform of a run is a mistake of the distribution.
        (tmp_path_factory.getbasetemp().parent / "e2e-platform").touch(exist_ok=False)
    home = folder / "home"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TENURE_")}
    environment |= {"TENURE_HOME": str(home), "TENURE_ENV_FILE": str(home / "env")}
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    document = yaml.safe_load((ROOT / "projects" / "telco.yaml").read_text(encoding="utf-8"))
    document["source"]["uri"] = str(ROOT / "data" / "telco.csv")
    # Few trials: what is tested here is the loop, not the search.
    document["training"] |= {"trials": 2, "folds": 3}
    document["evaluation"] |= {"bootstrap": 200}
    project_file = folder / "telco.yaml"
    project_file.write_text(yaml.safe_dump(document), encoding="utf-8")
    up = [sys.executable, "-m", "embedded", "up"]
    down = [sys.executable, "-m", "embedded", "down"]
    try:
        started = subprocess.run(
            up, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=400
        )
        assert started.returncode == 0, started.stderr
        settings = Settings(_env_file=home / "env")
        exports = subprocess.run(
            [sys.executable, "-m", "embedded", "env"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for word in shlex.split(exports):
            key, separator, value = word.partition("=")
            if separator:
                environment[key] = value
        yield Platform(home, environment, project_file, settings)
    finally:
        subprocess.run(down, cwd=ROOT, env=environment, check=True, timeout=120)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """Two bundles, of the older customers and of all, for services that are made by hand."""
    folder = tmp_path_factory.mktemp("bundles")
    return stages.train_bundle(folder / "old", OLDER), stages.train_bundle(folder / "new", None)


@pytest.fixture(scope="session")
def stage_at(
    bundles: tuple[Bundle, Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path, dict[str, str]], Any]:
    """Return the stage of the platform at a home, for commands with an environment."""

    def stage_at(home: Path, environment: dict[str, str]) -> Any:
        settings = Settings(_env_file=home / "env")
        return stages.Stage(home, environment, settings, tmp_path_factory.mktemp("stage"), *bundles)

    return stage_at


@pytest.fixture(scope="module")
def stage(platform: Platform, stage_at: Callable[[Path, dict[str, str]], Any]) -> Iterator[Any]:
    """A service of its own beside the project's, to be broken; it is gone afterwards."""
    stage = stage_at(platform.home, platform.environment)
    stage.upload()
    try:
        yield stage
    finally:
        stage.remove()
