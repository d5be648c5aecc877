"""The bundle: a trained model as a directory of data, in which every byte is accounted for.

`manifest.json` names every other file with its size and SHA-256, and holds nothing else; the bundle's digest
is the SHA-256 of the manifest. Nothing in a bundle is code, nothing is unpickled. Loading reads each file
once, checks it, and works on the checked bytes, so that a file changed later changes nothing.
"""

from __future__ import annotations

import copy
import hashlib
import io
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tenure.calibration import Calibrator
from tenure.canonical import dump_canonical, load_canonical
from tenure.contract import Contract
from tenure.errors import BundleError
from tenure.featuriser import Featuriser
from tenure.manifest import FORMAT, MANIFEST, build_manifest, flush_directory, read_verified, write_files
from tenure.project import Metric

if TYPE_CHECKING:
    import pandas as pd

    from tenure.project import Project
    from tenure.training import TrainedModel

METADATA = "metadata.json"
CONTRACT = "contract.json"
FEATURISER = "featuriser.json"
CALIBRATOR = "calibrator.json"
TREES = "model.ubj"
GRAPH = "model.onnx"
REFERENCE = "reference.parquet"
PROBE = "probe.json"
FILES = (CALIBRATOR, CONTRACT, FEATURISER, METADATA, GRAPH, TREES, PROBE, REFERENCE)

Finite = Annotated[float, Field(allow_inf_nan=False)]


class BundleMetadata(BaseModel):
    """What a model is made of, beside its files.

    Attributes:
        format: Version of the bundle's layout.
        project: Name of the project.
        service: Name of the InferenceService that it is meant for.
        snapshot: SHA-256 of the snapshot that it was trained on.
        code_version: Version of the code that trained it.
        objective: What the search optimised.
        params: The best trial's parameters.
        trial: The best trial's number.
        value: The best trial's objective.
        rounds: Number of trees.
        rows: Training rows.
        positives: Those that left.
        threshold: Probability from which a customer counts as leaving.
        cv: Metrics of the calibrated out-of-fold scores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    project: str
    service: str
    snapshot: str
    code_version: str
    objective: Metric
    params: dict[str, int | Finite | str]
    trial: int
    value: Finite
    rounds: int = Field(ge=1)
    rows: int = Field(ge=1)
    positives: int = Field(ge=0)
    threshold: Finite = Field(ge=0, le=1)
    cv: dict[str, Finite]


class _Probe(BaseModel):
    """The document of `probe.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: list[dict[str, Any]]
    scores: list[Finite]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.rows) != len(self.scores):
            raise ValueError(f"{len(self.rows)} known rows have {len(self.scores)} scores")
        return self


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        directory: Where it was read from; nothing is read from there any more.
        digest: SHA-256 of its manifest, 64 hex digits: the bundle's identity.
        contract: The columns that it expects.
        featuriser: From columns to the matrix.
        calibrator: From margins to probabilities.
        metadata: What it was made of.
    """

    directory: Path
    digest: str
    contract: Contract
    featuriser: Featuriser
    calibrator: Calibrator
    metadata: BundleMetadata
    _data: Mapping[str, bytes] = field(repr=False, compare=False)
    _probe: _Probe = field(repr=False, compare=False)

    @property
    def version(self) -> str:
        """The digest's first 12 digits: the `model_version` of every answer."""
        return self.digest[:12]

    @property
    def threshold(self) -> float:
        """Probability from which a customer counts as leaving."""
        return self.metadata.threshold

    def read(self, name: str) -> bytes:
        """Return the verified bytes of one of `FILES`.

        Raises:
            KeyError: A bundle has no such file.
        """
        return self._data[name]

    def reference(self) -> pd.DataFrame:
        """Return the sample of training rows: the features, their out-of-fold `score`, and their `label`.

        The label is 1 for a customer who left and 0 for one who stayed.
        """
        return decode_reference(self._data[REFERENCE])

    def probe(self) -> list[dict[str, Any]]:
        """Return known rows as plain JSON values: feature name -> value, None for missing."""
        return copy.deepcopy(self._probe.rows)

    def probe_scores(self) -> list[float]:
        """Return XGBoost's own probability for each row of `probe`, rounded to 9 decimals."""
        return list(self._probe.scores)


def write_bundle(
    directory: Path, model: TrainedModel, *, project: Project, snapshot: str, code_version: str
) -> str:
    """Write a bundle; it appears under its name complete or not at all.

    Args:
        directory: Must not exist, be empty, or hold this very bundle already. Parents are created.
        model: From `training.train`.
        project: The project that it was trained for.
        snapshot: SHA-256 of the snapshot.
        code_version: Version of the code.

    Returns:
        The bundle's digest.

    Raises:
        BundleError: The directory holds something else, or cannot be written.
    """
    directory = Path(directory)
    best = model.search.best
    metadata = BundleMetadata(
        project=project.name,
        service=project.rollout.service,
        snapshot=snapshot,
        code_version=code_version,
        objective=project.training.objective,
        params=best.params,
        trial=best.number,
        value=best.value,
        rounds=best.rounds,
        rows=model.rows,
        positives=model.positives,
        threshold=model.threshold,
        cv=model.cv,
    )
    data = {
        CALIBRATOR: dump_canonical(model.calibrator.to_document()),
        CONTRACT: dump_canonical(project.contract.model_dump(mode="json")),
        FEATURISER: dump_canonical(model.featuriser.to_document()),
        METADATA: dump_canonical(metadata.model_dump(mode="json")),
        GRAPH: model.onnx,
        TREES: model.booster,
        PROBE: dump_canonical({"rows": model.probe, "scores": model.probe_scores}),
        REFERENCE: encode_reference(model.reference),
    }
    manifest = build_manifest(data)
    digest = hashlib.sha256(manifest).hexdigest()
    if directory.is_dir() and any(directory.iterdir()):
        load_bundle(directory, digest)  # the same again is fine, anything else is not ours to replace
        return digest
    partial = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.partial")
    try:
        partial.mkdir(parents=True)
        write_files(partial, {**data, MANIFEST: manifest})
        partial.rename(directory)  # replaces an empty directory, and nothing else
        flush_directory(directory.parent)
    except OSError as error:
        raise BundleError(f"{directory}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest


def load_bundle(directory: Path, digest: str | None = None) -> Bundle:
    """Read and verify a bundle. Imports neither XGBoost nor pandas nor ONNX Runtime.

    Args:
        directory: Must hold the manifest, the files that it names, and nothing else.
        digest: What the bundle must be, 64 hex digits. Without it any consistent bundle is accepted.

    Raises:
        BundleError: A file is missing, added, altered or no regular file; the bundle is another one than
            `digest`, or of a format that this version does not read.
    """
    directory = Path(directory)
    actual, data = read_verified(directory, FILES, digest)
    try:
        metadata = BundleMetadata.model_validate(load_canonical(data[METADATA]))
        contract = Contract.model_validate(load_canonical(data[CONTRACT]))
        featuriser = Featuriser.from_document(_load_object(data, FEATURISER), contract)
        calibrator = Calibrator.from_document(_load_object(data, CALIBRATOR))
        probe = _Probe.model_validate(load_canonical(data[PROBE]))
    except ValueError as error:  # pydantic's errors and JSON's are ValueErrors
        raise BundleError(
            f"{directory}: its files are intact but not what this version writes: {error}"
        ) from error
    return Bundle(directory, actual, contract, featuriser, calibrator, metadata, data, probe)


def encode_reference(frame: pd.DataFrame) -> bytes:
    """Write a reference sample as Parquet; the same rows always give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_pandas(frame, preserve_index=False, nthreads=1), sink, compression="zstd", version="2.6"
    )
    return sink.getvalue()


def decode_reference(data: bytes) -> pd.DataFrame:
    """Read a reference sample; the columns have the dtypes that they were written with."""
    import pyarrow.parquet as pq

    frame: pd.DataFrame = pq.read_table(io.BytesIO(data)).to_pandas()
    return frame


def _load_object(data: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """Return a file's JSON object."""
    document = load_canonical(data[name])
    if not isinstance(document, dict):
        raise ValueError(f"{name} is {type(document).__name__}, expected an object")  # noqa: TRY004
    return document
