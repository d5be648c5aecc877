"""The check that all steps of a run are of one code version."""

from __future__ import annotations

from tenure.errors import TenureError
from tenure.version import compute_code_version


def check_code_version(expected: str) -> None:
    """Refuse to work under another version's name: a cached result would be taken for this code's.

    Raises:
        TenureError: The code here is not what the run's ingest ran.
    """
    found = compute_code_version()
    if found != expected:
        raise TenureError(
            f"this step runs code version {found}, but the run began with {expected}: the code changed while "
            "it ran, or the steps' images differ; start a new run"
        )
