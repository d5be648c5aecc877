"""MLflow loads the champion from the registry as a stranger would: in a process of its own, by its alias."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clients import names
from clients.flavor import read_columns
from clients.settings import Settings
from clients.store import Store
from clients.tracking import Tracking
from components.tune import select_part
from tenure.bundle import load_bundle
from tenure.errors import RowError
from tenure.partition import Part
from tenure.scorer import Scorer
from tenure.snapshot import read_snapshot

LOAD = """
import sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pandas.read_csv(sys.argv[2])).to_json(orient="records", double_precision=15))
"""


@pytest.fixture
def registered(trained: tuple[Any, Any], tracking: Tracking, store: Store) -> Any:
    """Register the second model under an alias of this test."""
    _, second = trained
    uri = names.bundle_uri(store.bucket, second.bundle_digest)
    store.upload_directory(second.bundle, uri)
    version = tracking.register_bundle(second.project.name, second.run_id, second.bundle_digest, uri)
    tracking.set_alias(second.project.name, "loaded", version.version)
    yield second
    tracking.delete_alias(second.project.name, "loaded")


def load(model: str, csv: Path, settings: Settings) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": settings.tracking_url}
    return subprocess.run(
        [sys.executable, "-c", LOAD, model, str(csv)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_mlflow_loads_the_model_by_its_alias(registered: Any, settings: Settings, tmp_path: Path) -> None:
    frame = select_part(read_snapshot(registered.rows), Part.HELD_OUT, registered.project).head(200)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    done = load(f"models:/{registered.project.name}@loaded", tmp_path / "rows.csv", settings)
    assert done.returncode == 0, done.stderr
    found = pd.DataFrame(json.loads(done.stdout.splitlines()[-1]))
    bundle = load_bundle(registered.bundle)
    expected = Scorer(bundle).score_matrix(bundle.featuriser.transform_frame(frame))
    np.testing.assert_allclose(found["churn_probability"], expected, atol=1e-9)
    assert found["churn"].tolist() == (expected >= bundle.threshold).tolist()


def test_altered_bundle_is_refused(
    registered: Any, settings: Settings, store: Store, part: Any, tmp_path: Path
) -> None:
    uri = f"{names.bundle_uri(store.bucket, registered.bundle_digest)}/calibrator.json"
    good = store.get_bytes(uri)
    store.put_bytes(good.replace(b"1", b"2"), uri)
    path = part(tmp_path / "rows.csv", 10)
    done = load(f"models:/{registered.project.name}@loaded", Path(path), settings)
    store.put_bytes(good, uri)
    assert done.returncode != 0
    assert "altered" in done.stderr


def test_columns_become_the_contracts_types(trained: tuple[Any, Any]) -> None:
    contract = trained[1].project.contract
    frame = read_snapshot(trained[1].rows).head(3)
    frame["tenure"] = [1.0, float("nan"), 2.5]
    frame["monthly_charges"] = [20, 30, 40]
    columns = read_columns(frame, contract)
    assert columns["tenure"] == [1, None, 2.5]
    assert [type(value) for value in columns["monthly_charges"]] == [float] * 3
    assert list(columns) == [column.name for column in contract.features]
    with pytest.raises(RowError, match="partner"):
        read_columns(frame.drop(columns="partner"), contract)
