"""Check a snapshot against the contract; set bad rows aside; draw a profile."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from pathlib import Path

from clients.errors import IntegrityError
from clients.names import snapshot_uri
from clients.settings import load_settings
from clients.store import Store
from components.version import check_code_version
from tenure.profile import render_profile
from tenure.project import parse_project
from tenure.snapshot import read_snapshot, write_snapshot
from tenure.validation import check_bad_fraction, validate_frame

logger = logging.getLogger("tenure.validate")


def run(
    project: str,
    digest: str,
    code_version: str,
    rows_path: str,
    bad_rows_path: str,
    profile_path: str,
    counts_path: str,
) -> dict[str, float]:
    """Write the good rows in canonical types, the violations, and the profile.

    Args:
        project: The project as JSON.
        digest: The snapshot's SHA-256.
        code_version: The ingest's code version; with the other arguments it decides whether a cached result
            may stand in.
        rows_path: Where the good rows go (Parquet).
        bad_rows_path: Where the violations go (Parquet: row, id, column, rule, value).
        profile_path: Where the profile goes (HTML).
        counts_path: Where the counts go (JSON).

    Returns:
        Counts: rows, good_rows, bad_rows, violations, unlisted_categories.

    Raises:
        tenure.errors.ContractError: A column of the contract is missing.
        tenure.errors.TooManyBadRowsError: More bad rows than the project allows; all files are written.
        clients.errors.IntegrityError: The stored snapshot is not what its name says.
    """
    check_code_version(code_version)
    settings = parse_project(project)
    store = Store.connect(load_settings())
    uri = snapshot_uri(store.bucket, digest)
    with tempfile.TemporaryDirectory() as directory:
        path = store.get_file(uri, Path(directory) / "snapshot.parquet")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != digest:
            raise IntegrityError(f"{uri}: its SHA-256 is {found}: the snapshot was altered; ingest it again")
        frame = read_snapshot(path)
    validated = validate_frame(frame, settings.contract)
    write_snapshot(validated.good, Path(rows_path))
    write_snapshot(validated.bad, Path(bad_rows_path))
    Path(profile_path).write_text(render_profile(validated, settings.contract), encoding="utf-8")
    logger.info("%d of %d rows keep the contract", len(validated.good), validated.rows)
    counts = {
        "rows": validated.rows,
        "good_rows": len(validated.good),
        "bad_rows": validated.bad_rows,
        "violations": len(validated.bad),
        "unlisted_categories": sum(sum(found.values()) for found in validated.warnings.values()),
    }
    # kfp keeps metrics as metadata only; its local cache takes an artifact without a file for lost.
    Path(counts_path).write_text(json.dumps(counts), encoding="utf-8")
    check_bad_fraction(validated, settings.validation.max_bad_fraction)
    return {name: float(count) for name, count in counts.items()}
