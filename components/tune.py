"""Search for a model on the training part and write it as a bundle; every trial is tracked."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from clients.settings import load_settings
from clients.study import open_study
from clients.tracking import BUNDLE, Tracking
from components.version import check_code_version
from tenure.bundle import write_bundle
from tenure.featuriser import encode_labels
from tenure.partition import Part, assign_parts
from tenure.project import Project, parse_project
from tenure.search import TrialRecord
from tenure.snapshot import read_snapshot
from tenure.training import train

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("tenure.tune")


def run(project: str, rows_path: str, digest: str, code_version: str, bundle_path: str) -> tuple[str, str]:
    """Train, resuming the same study if an earlier attempt was cut short.

    Args:
        project: The project as JSON.
        rows_path: The good rows.
        digest: The snapshot's SHA-256.
        code_version: The ingest's code version.
        bundle_path: The folder that becomes the bundle.

    Returns:
        The bundle's digest and the id of the MLflow run that holds the study.

    Raises:
        tenure.errors.TrainingError: Nothing can be trained on these rows.
        clients.errors.ClientError: The tracking server.
    """
    check_code_version(code_version)
    settings = parse_project(project)
    frame = select_part(read_snapshot(Path(rows_path)), Part.TRAIN, settings)
    study = open_study(
        Tracking.connect(load_settings()),
        settings.name,
        name_study(settings, digest, code_version),
        tags={"tenure.snapshot": digest, "tenure.code_version": code_version},
        params={
            "objective": settings.training.objective.value,
            "trials": settings.training.trials,
            "folds": settings.training.folds,
            "seed": settings.training.seed,
            "rows": len(frame),
        },
    )
    try:
        previous = [TrialRecord.model_validate_json(record) for record in study.load_trials()]
        if previous:
            logger.info("resuming study %s after %d trials", study.run_id, len(previous))
        model = train(frame, settings, previous=previous, on_trial=study.enqueue_trial)
        bundle = write_bundle(
            Path(bundle_path), model, project=settings, snapshot=digest, code_version=code_version
        )
        study.describe(tags={BUNDLE: bundle})
    except BaseException:
        study.abandon()
        raise
    study.finish()
    logger.info("wrote bundle %s", bundle[:12])
    return bundle, study.run_id


def name_study(project: Project, digest: str, code_version: str) -> str:
    """Return what decides every trial of a study, as one SHA-256."""
    document = {
        "project": project.name,
        "contract": project.contract.model_dump(mode="json"),
        "split": project.split.model_dump(mode="json"),
        "training": project.training.model_dump(mode="json"),
        "snapshot": digest,
        "code_version": code_version,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def select_part(frame: pd.DataFrame, part: Part, project: Project) -> pd.DataFrame:
    """Return the rows of one part whose label is known, with a fresh index."""
    import numpy as np

    parts = assign_parts(frame, project.contract, project.split, project.name)
    labelled = ~np.isnan(encode_labels(frame, project.contract))
    selected: pd.DataFrame = frame[(parts == part.value) & labelled].reset_index(drop=True)
    return selected
