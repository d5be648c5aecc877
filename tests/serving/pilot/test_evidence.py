"""Evidence from a real ledger and real bundles."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clients import names
from clients.errors import NotFoundError
from clients.ledger.engine import open_engine
from clients.ledger.reader import Ledger
from serving.detector.migration import migrate
from serving.detector.records import Label, Request, Response
from serving.detector.writer import Writer
from serving.pilot.comparison import Match
from serving.pilot.evidence import Collector
from serving.pilot.scoring import Rescorer
from tenure.bundle import Bundle, load_bundle, write_bundle
from tenure.judgement import Progress
from tenure.monitoring import Value
from tenure.project import Project
from tenure.snapshot import read_source, write_snapshot
from tenure.training import train
from tenure.validation import validate_frame

ROOT = Path(__file__).parents[3]
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = BEGAN + timedelta(days=20)


class Folder:
    """A store whose bundles lie in a folder, by digest."""

    def __init__(self, bundles: tuple[Bundle, Bundle]) -> None:
        self.directories = {bundle.digest: bundle.directory for bundle in bundles}
        self.fetched: list[str] = []

    def download_directory(self, uri: str, directory: Path) -> Path:
        digest = names.digest_of(uri)
        self.fetched.append(digest)
        if digest not in self.directories:
            raise NotFoundError(f"{uri} holds nothing")
        return Path(shutil.copytree(self.directories[digest], directory, dirs_exist_ok=True))


@pytest.fixture(scope="module")
def project(make: Any) -> Project:
    document = make.project.model_dump(mode="json")
    document["training"] |= {"trials": 1, "folds": 2, "max_rounds": 20}
    return Project.model_validate(document)


@pytest.fixture(scope="module")
def frame(project: Project) -> pd.DataFrame:
    frame = read_source(ROOT / "data" / "telco.csv", "csv", project.contract)
    return validate_frame(frame.head(1500), project.contract).good


@pytest.fixture(scope="module")
def bundles(
    project: Project, frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Bundle]:
    """Canary and champion."""
    made = []
    for rows in (1500, 900):
        folder = tmp_path_factory.mktemp("bundle")
        part = frame.head(rows).reset_index(drop=True)
        snapshot = write_snapshot(part, folder / "snapshot.parquet")
        digest = write_bundle(
            folder / "bundle", train(part, project), project=project, snapshot=snapshot, code_version="t"
        )
        made.append(load_bundle(folder / "bundle", digest))
    return made[0], made[1]


@pytest.fixture
def match(bundles: tuple[Bundle, Bundle]) -> Match:
    canary, stable = (f"s3://tenure/bundles/{bundle.digest}" for bundle in bundles)
    return Match("churn", bundles[0].version, canary, bundles[1].version, stable, 0.0, True)


@pytest.fixture
def progress(bundles: tuple[Bundle, Bundle]) -> Progress:
    return Progress(canary=bundles[0].version, digest=bundles[0].digest, step=0, began=BEGAN, since=BEGAN)


class World:
    """A ledger with what both versions answered; `features` are the customers'."""

    def __init__(self, path: Path, rows: list[dict[str, Any]], bundles: tuple[Bundle, Bundle]) -> None:
        self.url = f"sqlite:///{path}"
        engine = open_engine(self.url)
        migrate(engine)
        self.writer = Writer(engine)
        self.rows = rows
        store = Folder(bundles)
        self.store = store
        self.rescorer = Rescorer(store)  # type: ignore[arg-type]
        self.versions = [bundle.version for bundle in bundles]
        self.scores = [
            self.rescorer.score(f"s3://tenure/bundles/{bundle.digest}", rows) for bundle in bundles
        ]
        self.asked = 0

    def ask(self, rows: range, bias: float = 0.0) -> None:
        """Let both answer, one after the other, half of these rows each; `bias` alters the canary's."""
        items: list[Any] = []
        for row in rows:
            self.asked += 1
            arm = row % 2
            time = int((BEGAN + timedelta(minutes=self.asked)).timestamp() * 1e6)
            score = float(self.scores[arm][row]) + (bias if arm == 0 else 0.0)
            event = f"e{self.asked}"
            request = Request(event, "churn", self.versions[arm], time, [f"c{row}"], [self.rows[row]])
            items += [
                request,
                Response(event, "churn", self.versions[arm], time, [score], [score >= 0.5]),
            ]
        self.writer.write(items)

    def label(self, rows: range, outcome: str) -> None:
        time = int((BEGAN + timedelta(days=10)).timestamp() * 1e6)
        self.writer.write([Label("churn", f"c{row}", outcome, time, time) for row in rows])

    def collect(self, clock: Any = lambda: 0.0) -> Collector:
        return Collector(lambda: Ledger(self.url), self.rescorer, clock)


@pytest.fixture
def world(tmp_path: Path, frame: pd.DataFrame, project: Project, bundles: tuple[Bundle, Bundle]) -> World:
    columns = [column.name for column in project.contract.features]
    rows = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in frame[columns].head(200).astype(object).to_dict("records")
    ]
    return World(tmp_path / "ledger.db", rows, bundles)


def test_both_bundles_score_every_logged_row(
    world: World, match: Match, project: Project, progress: Progress
) -> None:
    collector = world.collect()
    world.ask(range(120))
    _, evidence, problem = collector.gather(match, project, progress, None, NOW)
    assert problem is None
    assert evidence.mismatches == 0
    expected = (world.scores[0] - world.scores[1])[:120]
    np.testing.assert_allclose(evidence.differences, expected, atol=1e-12)
    assert evidence.value == project.value

    world.ask(range(120, 200))
    _, evidence, _ = collector.gather(match, project, progress, None, NOW)
    _, again, _ = world.collect().gather(match, project, progress, None, NOW)  # as after a restart
    assert evidence.differences is not None
    np.testing.assert_array_equal(evidence.differences, again.differences)
    assert len(evidence.differences) == 200
    assert len(world.store.fetched) == 2


def test_answers_that_the_bundle_does_not_give_are_counted(
    world: World, match: Match, project: Project, progress: Progress
) -> None:
    world.ask(range(100), bias=1e-5)
    _, evidence, _ = world.collect().gather(match, project, progress, None, NOW)
    assert evidence.mismatches == 50  # the canary's half
    assert evidence.logged == 50


def test_rows_that_cannot_be_scored_again_are_counted_and_no_harm(
    world: World, match: Match, project: Project, progress: Progress
) -> None:
    collector = world.collect()
    assert collector.count_unscored(match, progress) is None
    for row in (2, 3, 4):  # 2 and 4 are the canary's
        world.rows[row] = {**world.rows[row], "monthly_charges": -5.0}
    world.ask(range(100))
    _, evidence, problem = collector.gather(match, project, progress, None, NOW)
    assert (problem, evidence.mismatches) == (None, 0)
    assert collector.count_unscored(match, progress) == 2
    assert evidence.differences is not None
    assert len(evidence.differences) == 97


def test_what_came_before_the_canary_or_from_others_is_left_out(
    world: World, match: Match, project: Project, progress: Progress
) -> None:
    world.ask(range(100))
    later = progress.model_copy(update={"began": BEGAN + timedelta(minutes=61)})
    _, evidence, _ = world.collect().gather(match, project, later, None, NOW)
    assert evidence.differences is not None
    assert len(evidence.differences) == 40
    other = Match("churn", "f" * 12, match.canary_uri, match.stable, match.stable_uri, 0.0, True)
    _, evidence, _ = world.collect().gather(other, project, progress, None, NOW)
    assert evidence.differences is not None
    assert len(evidence.differences) == 50
    assert evidence.logged == 0  # a canary that nothing is known of


def test_outcomes_become_residuals_and_profits_once_for_each_customer(
    world: World, match: Match, project: Project, progress: Progress
) -> None:
    seconds = [0.0]
    collector = world.collect(lambda: seconds[0])
    project = project.model_copy(update={"value": Value(contact=10, saved=200, success=0.3)})
    world.ask(range(100))
    world.ask(range(100))  # the same customers once more
    _, evidence, _ = collector.gather(match, project, progress, None, NOW)
    assert [len(one) for one in evidence.residuals] == [0, 0]
    world.label(range(40), "Yes")
    seconds[0] += 60
    _, evidence, _ = collector.gather(match, project, progress, None, NOW)
    for arm in (0, 1):
        scores = world.scores[arm][arm:40:2]
        np.testing.assert_allclose(np.sort(evidence.residuals[arm]), np.sort(1 - scores), atol=1e-12)
        wanted = np.where(scores >= 0.5, 50.0, 0.0)
        np.testing.assert_allclose(np.sort(evidence.profits[arm]), np.sort(wanted))


def test_without_a_ledger_the_rest_is_still_evidence(
    tmp_path: Path, world: World, match: Match, project: Project, progress: Progress
) -> None:
    missing = Collector(lambda: Ledger(f"sqlite:///{tmp_path}/none.db"), world.rescorer)
    _, evidence, problem = missing.gather(match, project, progress, None, NOW)
    assert problem is not None
    assert "does not exist" in problem
    assert evidence.differences is not None
    _, evidence, problem = Collector(None, world.rescorer).gather(match, project, progress, None, NOW)
    assert (evidence.differences, problem) == (None, None)


def test_bundle_that_is_gone_is_a_problem_and_no_harm(
    world: World, match: Match, project: Project, progress: Progress
) -> None:
    world.ask(range(10))
    gone = Match("churn", match.canary, match.canary_uri, match.stable, "s3://t/" + "f" * 64, 0.0, True)
    _, evidence, problem = world.collect().gather(gone, project, progress, None, NOW)
    assert problem is not None
    assert evidence.mismatches == 0


def test_rows_that_a_bundle_refuses_have_no_score(world: World, bundles: tuple[Bundle, Bundle]) -> None:
    bad = {**world.rows[0], "monthly_charges": -5.0}
    found = world.rescorer.score(f"s3://tenure/bundles/{bundles[0].digest}", [bad, world.rows[1]])
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(world.scores[0][1], abs=1e-12)
