"""The manifest: each file of a bundle with size and SHA-256, and the reading that trusts nothing else."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tenure.canonical import dump_canonical, load_canonical
from tenure.errors import BundleError

FORMAT = 2  # 2: the reference has labels
MANIFEST = "manifest.json"


class Entry(BaseModel):
    """One file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """The manifest's document. Nothing in it is free: that is why no byte of it can change unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int
    files: dict[str, Entry]


def build_manifest(data: Mapping[str, bytes]) -> bytes:
    """Return the manifest of some files (name -> content)."""
    return dump_canonical(
        {
            "format": FORMAT,
            "files": {
                name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in data.items()
            },
        }
    )


def read_verified(
    directory: Path, names: Collection[str], digest: str | None = None
) -> tuple[str, dict[str, bytes]]:
    """Read a directory that holds a manifest and the files `names`, and nothing else.

    Args:
        directory: Where.
        names: What the manifest must name.
        digest: SHA-256 that the manifest must have; None accepts any.

    Returns:
        The manifest's SHA-256 in hex, and each file's verified bytes by name.

    Raises:
        BundleError: A file is missing, added, altered or no regular file; the manifest is another one than
            `digest`, or of a format that this version does not read.
    """
    content = read_file(directory / MANIFEST)
    actual = hashlib.sha256(content).hexdigest()
    if digest is not None and actual != digest:
        raise BundleError(f"{directory}: is bundle {actual}, expected {digest}: fetch it again")
    manifest = _parse_manifest(directory / MANIFEST, content, names)
    try:
        extra = sorted({path.name for path in directory.iterdir()} - {MANIFEST, *names})
    except OSError as error:
        raise BundleError(f"{directory}: cannot be listed: {error.strerror}") from error
    if extra:
        raise BundleError(f"{directory}: holds files that are not of a bundle: {', '.join(extra[:5])}")
    data = {}
    for name, entry in manifest.files.items():
        data[name] = read_file(directory / name, entry.size)
        if hashlib.sha256(data[name]).hexdigest() != entry.sha256:
            raise BundleError(
                f"{directory / name}: its SHA-256 is not the manifest's, it was altered: fetch it again"
            )
    return actual, data


def read_file(path: Path, size: int | None = None) -> bytes:
    """Return a regular file's bytes; no link is followed, and `size` is checked before anything is read.

    Raises:
        BundleError: It is missing, of another size, or no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path}: is not a regular file")
            if size is not None and status.st_size != size:
                raise BundleError(
                    f"{path}: has {status.st_size} bytes, the manifest says {size}: fetch the bundle again"
                )
            return file.read()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error


def write_files(directory: Path, data: Mapping[str, bytes]) -> None:
    """Write new files into a directory and wait until they are on the disk.

    Raises:
        OSError: A file exists already, or the disk is full.
    """
    for name, content in data.items():
        with (directory / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    flush_directory(directory)


def flush_directory(path: Path) -> None:
    """Wait until a directory's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse_manifest(path: Path, content: bytes, names: Collection[str]) -> Manifest:
    """Read the manifest: canonical JSON with exactly the known keys and names."""
    try:
        manifest = Manifest.model_validate(load_canonical(content))
    except ValueError as error:
        detail = "wrong keys or values" if isinstance(error, ValidationError) else str(error)
        raise BundleError(f"{path}: is no manifest ({detail}): fetch the bundle again") from error
    if manifest.format != FORMAT:
        raise BundleError(
            f"{path}: the bundle has format {manifest.format}, this version reads {FORMAT}: train again"
        )
    if set(manifest.files) != set(names):
        raise BundleError(f"{path}: names the files {sorted(manifest.files)}, expected {sorted(names)}")
    return manifest
