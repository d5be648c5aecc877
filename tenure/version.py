"""The code version: what a cached step result and a bundle owe to the code that made them."""

from __future__ import annotations

import hashlib
import os
import re
from importlib import metadata
from pathlib import Path

from tenure.errors import TenureError

VARIABLE = "TENURE_CODE_VERSION"
PACKAGES = ("tenure", "clients", "components")
SUFFIXES = (".py", ".j2")
# The libraries whose release may change a bundle's bytes or a step's outcome.
LIBRARIES = (
    "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "xgboost-cpu", "optuna", "pandera",
    "onnx", "pydantic",
)  # fmt: skip


def compute_code_version() -> str:
    """Return the version of the code that runs here.

    Whoever builds otherwise may say it (`TENURE_CODE_VERSION`: an image's digest or a git SHA). Without
    that it is derived from the files as they are now, so that an edit is a new version at once: 16 hex digits
    of the SHA-256 over the sources of tenure, clients and components and the libraries' versions.

    Raises:
        TenureError: The variable holds something that is no version.
    """
    given = os.environ.get(VARIABLE, "").strip()
    if given:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,199}", given):
            raise TenureError(f"{VARIABLE}={given!r} is no version: give an image digest or a git SHA")
        return given
    return hash_sources(Path(__file__).resolve().parent.parent)


def hash_sources(root: Path) -> str:
    """Return 16 hex digits over the sources of `PACKAGES` under `root` and the versions of `LIBRARIES`.

    A package that is not installed (an image holds what it needs) counts as empty.
    """
    hasher = hashlib.sha256()
    for library in LIBRARIES:
        try:
            version = metadata.version(library)
        except metadata.PackageNotFoundError:
            version = ""
        _add(hasher, library.encode(), version.encode())
    files = (file for package in PACKAGES for file in (root / package).rglob("*") if file.suffix in SUFFIXES)
    for path in sorted((file.relative_to(root).as_posix(), file) for file in files):
        _add(hasher, path[0].encode(), path[1].read_bytes())
    return hasher.hexdigest()[:16]


def _add(hasher: hashlib._Hash, name: bytes, content: bytes) -> None:
    """Hash a name and its content with their lengths, so that no two lists of files read alike."""
    for part in (name, content):
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
