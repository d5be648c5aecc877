"""Third parties' manifests: from their release pages once, from a directory where there is no internet."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from installer.errors import SourceError
from installer.kubectl import Document, load
from installer.options import Options


@dataclass(frozen=True)
class Source:
    """One file that a third party publishes."""

    switch: str
    """Which piece it installs (ARGO: a part of Kubeflow Pipelines); `versions.env` has SWITCH_VERSION and
    SWITCH_SHA256."""
    url: str
    """Where it is, with `{version}`."""
    file: str
    """What it is called in MANIFESTS and among the downloads, with `{version}`."""


SOURCES = {
    source.switch: source
    for source in (
        Source(
            "GATEWAY_API",
            "https://github.com/kubernetes-sigs/gateway-api/releases/download/{version}/standard-install.yaml",
            "gateway-api-{version}.yaml",
        ),
        Source(
            "ENVOY_GATEWAY",
            "https://github.com/envoyproxy/gateway/releases/download/{version}/install.yaml",
            "envoy-gateway-{version}.yaml",
        ),
        Source(
            "CERT_MANAGER",
            "https://github.com/cert-manager/cert-manager/releases/download/{version}/cert-manager.yaml",
            "cert-manager-{version}.yaml",
        ),
        Source(
            "KSERVE",
            "https://github.com/kserve/kserve/releases/download/{version}/kserve.yaml",
            "kserve-{version}.yaml",
        ),
        Source(
            "KFP",
            "https://github.com/kubeflow/pipelines/archive/refs/tags/{version}.tar.gz",
            "pipelines-{version}.tar.gz",
        ),
        Source(
            "ARGO",
            "https://github.com/argoproj/argo-workflows/archive/refs/tags/{version}.tar.gz",
            "argo-workflows-{version}.tar.gz",
        ),
    )
}

_NOT_WHAT_IT_SHOULD_BE = (
    SourceError, yaml.YAMLError, UnicodeDecodeError, tarfile.TarError, zlib.error, EOFError,
)  # fmt: skip

Fetch = Callable[[str, Path], None]


def fetch(url: str, path: Path) -> None:
    """Download a file, whole or not at all.

    Raises:
        SourceError: With the reason, and how to do without.
    """
    import httpx

    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with (
            os.fdopen(descriptor, "wb") as handle,
            httpx.stream("GET", url, follow_redirects=True, timeout=60) as answer,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_bytes():
                handle.write(chunk)
        temporary.replace(path)
    except (httpx.HTTPError, OSError) as error:
        raise SourceError(
            f"{url}: {error}. Without the internet: put the file as {path.name} into a directory and say "
            "MANIFESTS=DIRECTORY"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


class Sources:
    """Finds each file, and holds it to what is pinned or was seen first."""

    def __init__(self, options: Options, downloads: Path, fetch: Fetch = fetch) -> None:
        self._options = options
        self._downloads = downloads
        self._fetch = fetch

    def read(self, switch: str) -> Path:
        """Return the file of a piece, downloading it if need be.

        Raises:
            SourceError: It cannot be had, or is not what it was.
        """
        source = SOURCES[switch]
        version = self._options.versions[f"{switch}_VERSION"]
        name = source.file.format(version=version)
        given = self._options.manifests
        path = given / name if given else self._downloads / name
        if given and not path.is_file():
            raise SourceError(f"MANIFESTS={given} has no {name} ({source.url.format(version=version)})")
        if not path.is_file():
            self._fetch(source.url.format(version=version), path)
        self._verify(path, self._options.versions.get(f"{switch}_SHA256", ""))
        return path

    def load(self, path: Path) -> list[Document]:
        """Return the Kubernetes objects in a file that `read` found.

        Raises:
            SourceError: It holds something else, such as the page of a network's login.
        """
        with self._held_to_content(path):
            documents = load(path.read_text())
            if not documents or not all(_is_object(one) for one in documents):
                raise SourceError(f"{path} does not hold Kubernetes objects")
        return documents

    def unpack(self, path: Path, inside: str) -> Path:
        """Unpack one directory of a source archive and return where it lies.

        Raises:
            SourceError: It is no archive, or lacks the directory.
        """
        target = self._downloads / path.name.removesuffix(".tar.gz")
        done = target / ".complete"
        digest = _digest(path)
        if done.is_file() and done.read_text() == digest:
            return target / inside
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        with self._held_to_content(path), tarfile.open(path, "r:gz") as archive:
            for member in archive:
                parts = member.name.split("/", 1)
                if len(parts) == 2 and parts[1].startswith(f"{inside}/"):
                    member.name = parts[1]
                    archive.extract(member, target, filter="data")
            if not (target / inside).is_dir():
                raise SourceError(f"{path} holds no directory {inside}: is it a release's source archive?")
        done.write_text(digest)
        return target / inside

    @contextmanager
    def _held_to_content(self, path: Path) -> Iterator[None]:
        """Note a file's hash once it was read as what it should be; else throw away what was downloaded."""
        try:
            yield
        except _NOT_WHAT_IT_SHOULD_BE as error:
            again = ""
            if path.parent == self._downloads:
                path.unlink(missing_ok=True)
                again = ". It was removed: the same command fetches it anew"
            reason = str(error) if isinstance(error, SourceError) else f"{path} cannot be read: {error}"
            raise SourceError(f"{reason}{again}") from error
        except OSError as error:
            raise SourceError(f"{path}: {error}") from error
        self._note(path)

    def _verify(self, path: Path, pinned: str) -> None:
        found = _digest(path)
        number, known = self._find_noted(path.name)
        wanted = pinned or known
        if wanted and wanted != found:
            where = "as pinned in versions.env" if pinned else f"as noted in {self._sums}, line {number}"
            raise SourceError(
                f"{path} has SHA-256 {found}, not {wanted} ({where}). Remove the file to fetch it anew; if "
                "the publisher changed a release, find out why before you accept it by removing that line."
            )

    def _note(self, path: Path) -> None:
        if self._find_noted(path.name)[1] is None:
            self._downloads.mkdir(parents=True, exist_ok=True)
            with self._sums.open("a") as file:
                file.write(f"{_digest(path)}  {path.name}\n")

    def _find_noted(self, name: str) -> tuple[int, str | None]:
        """Return the line's number and hash that were noted for a file."""
        lines = self._sums.read_text().splitlines() if self._sums.is_file() else []
        for number, line in enumerate(lines, start=1):
            digest, _, noted = line.partition("  ")
            if noted == name:
                return number, digest
        return 0, None

    @property
    def _sums(self) -> Path:
        return self._downloads / "SHA256SUMS"


def _is_object(document: Document) -> bool:
    metadata = document.get("metadata")
    return (
        isinstance(document.get("kind"), str)
        and isinstance(document.get("apiVersion"), str)
        and isinstance(metadata, dict)
        and isinstance(metadata.get("name"), str)
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
