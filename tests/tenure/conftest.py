"""Fixtures over the real customers and over small contracts, for every test of the domain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tenure.bundle import Bundle, load_bundle, write_bundle
from tenure.contract import Contract
from tenure.partition import Part, assign_parts
from tenure.project import Project, load_project
from tenure.snapshot import read_source
from tenure.training import TrainedModel, train
from tenure.validation import Validated, validate_frame

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project_file() -> Path:
    """The committed Telco project."""
    return ROOT / "projects" / "telco.yaml"


@pytest.fixture(scope="session")
def project(project_file: Path) -> Project:
    return load_project(project_file)


@pytest.fixture(scope="session")
def telco_validated(project: Project) -> Validated:
    """The whole Telco file, validated once per process: do not change it."""
    return validate_frame(read_source(Path(project.source.uri), None, project.contract), project.contract)


@pytest.fixture
def telco(telco_validated: Validated) -> pd.DataFrame:
    """All 7,043 canonical rows, a copy of your own."""
    return telco_validated.good.copy()


@pytest.fixture(scope="session")
def make_contract() -> Callable[..., Contract]:
    """Build a contract from feature columns; an id `id` and a nullable label `left` are added."""

    def build(*columns: dict[str, Any], **label: Any) -> Contract:
        identifier = {"name": "id", "role": "id", "type": "string"}
        left = {
            "name": "left",
            "role": "label",
            "type": "string",
            "positive": "Yes",
            "nullable": True,
        } | label
        if not any(column.get("role", "feature") == "feature" for column in columns):
            columns = (*columns, {"name": "x", "type": "float", "nullable": True})
        return Contract.model_validate({"columns": [identifier, left, *columns]})

    return build


@pytest.fixture(scope="session")
def quick_project(project: Project) -> Project:
    """The Telco project with few trials, so that training takes about a second."""
    training = project.training.model_copy(update={"trials": 5, "folds": 3, "max_rounds": 60})
    return project.model_copy(update={"training": training})


@pytest.fixture(scope="session")
def telco_parts(project: Project, telco_validated: Validated) -> dict[Part, pd.DataFrame]:
    """The three parts of the Telco customers: do not change them."""
    good = telco_validated.good
    parts = assign_parts(good, project.contract, project.split, project.name)
    return {part: good[parts == part.value].reset_index(drop=True) for part in Part}


@pytest.fixture(scope="session")
def model(quick_project: Project, telco_parts: dict[Part, pd.DataFrame]) -> TrainedModel:
    """A model of the training customers."""
    return train(telco_parts[Part.TRAIN], quick_project)


@pytest.fixture(scope="session")
def bundle(model: TrainedModel, quick_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """That model's bundle on disk: copy the directory before you change it."""
    directory = tmp_path_factory.mktemp("bundles") / "bundle"
    digest = write_bundle(
        directory, model, project=quick_project, snapshot="5" * 64, code_version="0123456789abcdef"
    )
    return load_bundle(directory, digest)
