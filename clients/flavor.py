"""What `mlflow.pyfunc.load_model("models:/NAME@champion")` loads: a pointer to the bundle, and no pickle.

The registered directory holds `MLmodel`, which names this module as the loader, and `bundle.json`, which
says where the bundle is and what its SHA-256 is. Loading fetches the bundle with the `TENURE_S3_*` settings
and verifies it.
"""

from __future__ import annotations

import json
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clients.settings import load_settings
from clients.store import Store
from tenure.contract import Type

if TYPE_CHECKING:
    import pandas as pd

    from tenure.bundle import Bundle
    from tenure.contract import Contract

MODEL_FOLDER = "model"
"""Where in a run's artifacts the registered directory lies."""

_POINTER = "bundle.json"


def write_pointer(directory: Path, *, digest: str, uri: str, run_id: str) -> None:
    """Write the two files that MLflow needs to find the bundle.

    Args:
        directory: An existing folder.
        digest: SHA-256 of the bundle.
        uri: Where the bundle is stored.
        run_id: The MLflow run that trained it.
    """
    (directory / _POINTER).write_text(json.dumps({"digest": digest, "uri": uri}) + "\n", encoding="utf-8")
    document = {
        "artifact_path": MODEL_FOLDER,
        "flavors": {
            "python_function": {
                "loader_module": "clients.flavor",
                "data": _POINTER,
                "python_version": platform.python_version(),
            }
        },
        "metadata": {"tenure.bundle": digest, "tenure.uri": uri},
        "model_uuid": digest[:32],
        "run_id": run_id,
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    (directory / "MLmodel").write_text(yaml.safe_dump(document), encoding="utf-8")


class ChurnModel:
    """A verified bundle behind MLflow's `predict`.

    Attributes:
        bundle: The bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        from tenure.scorer import Scorer

        self.bundle = bundle
        self._scorer = Scorer(bundle)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score n rows.

        Args:
            model_input: The features by name, in any order; further columns are ignored.
            params: Not used; MLflow passes it.

        Returns:
            n rows with the input's index: `churn_probability` (float) and `churn` (bool).

        Raises:
            tenure.errors.RowError: Names the column whose values the contract does not allow.
        """
        import pandas as pd

        scores = self._scorer.score_columns(read_columns(model_input, self.bundle.contract))
        return pd.DataFrame(
            {"churn_probability": scores, "churn": scores >= self.bundle.threshold}, index=model_input.index
        )


def read_columns(frame: pd.DataFrame, contract: Contract) -> dict[str, list[Any]]:
    """Return the contract's features as plain Python lists, None for missing.

    Pandas reads an integer column with gaps as floats, and a float column without decimals as integers: both
    come back as the contract's type when no digit is lost.

    Raises:
        tenure.errors.RowError: A feature is not among the columns.
    """
    from tenure.errors import RowError

    columns: dict[str, list[Any]] = {}
    for column in contract.features:
        if column.name not in frame.columns:
            raise RowError(column.name, "is missing from the input's columns")
        series = frame[column.name]
        values = [
            None if absent else value for value, absent in zip(series.tolist(), series.isna(), strict=True)
        ]
        if column.type is Type.INTEGER:
            values = [
                int(value) if isinstance(value, float) and value.is_integer() else value for value in values
            ]
        elif column.type is Type.FLOAT:
            values = [float(value) if type(value) is int else value for value in values]
        columns[column.name] = values
    return columns


def _load_pyfunc(path: str) -> ChurnModel:
    """Fetch and verify the bundle that the pointer at `path` names (MLflow calls this).

    Raises:
        tenure.errors.BundleError: The bundle is altered or incomplete.
        clients.errors.ClientError: The store does not have it, or does not answer.
    """
    from tenure.bundle import load_bundle

    pointer = json.loads(Path(path).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="tenure-bundle-") as directory:
        Store.connect(load_settings()).download_directory(pointer["uri"], Path(directory))
        # A loaded bundle keeps its bytes in memory: the folder may go.
        return ChurnModel(load_bundle(Path(directory), pointer["digest"]))
