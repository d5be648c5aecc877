"""What a kustomization fetches from elsewhere while it is built, led to what lies here instead."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from installer.errors import SourceError

_FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_LISTS = ("resources", "bases", "components", "crds", "configurations", "generators", "transformers")
"""Fields of a kustomization whose entries may lie elsewhere."""
_REMOTE = re.compile(r"^[a-z+]+://|^[\w.-]+@[\w.-]+:|^(?:www\.)?(?:github|gitlab|bitbucket)\.(?:com|org)/")
_ARGO = re.compile(
    r"(?:https://)?github\.com/argoproj/argo-workflows(?:\.git)?/{1,2}(manifests(?:/[^?]*)?)(?:\?(.*))?"
)


def localize(tree: Path, target: Path, parts: Sequence[str], argo: Path, version: str) -> None:
    """Copy a tree of kustomizations; what it fetches of Argo Workflows is taken from an unpacked archive.

    Args:
        tree: Kubeflow Pipelines' own kustomizations.
        target: Where the copy goes; what was there is removed.
        parts: Directories in it that will be built.
        argo: The unpacked source of Argo Workflows, with `manifests/` in it.
        version: Its tag.

    Raises:
        SourceError: The tree asks for another version, or for anything else from elsewhere.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(tree, target, symlinks=True)
    waiting = [target / part for part in parts]
    seen: set[Path] = set()
    while waiting:
        directory = waiting.pop().resolve()
        if directory in seen:
            continue
        seen.add(directory)
        waiting.extend(_localize_one(directory, argo.resolve(), version))


def is_remote(entry: str) -> bool:
    """Say whether kustomize would fetch an entry."""
    return bool(_REMOTE.match(entry))


def _localize_one(directory: Path, argo: Path, version: str) -> Iterator[Path]:
    """Change one kustomization and yield the directories that it stands on."""
    path = next((directory / name for name in _FILES if (directory / name).is_file()), None)
    if path is None:
        raise SourceError(f"{directory} holds no kustomization")
    document = _load(path)
    changed = False
    for field in _LISTS:
        for index, entry in enumerate(document.get(field) or ()):
            if not isinstance(entry, str):
                continue
            if is_remote(entry):
                place = _find_argo(path, entry, argo, version)
                document[field][index] = os.path.relpath(place, directory)
                changed = True
                yield place
            elif (directory / entry).is_dir():
                yield directory / entry
    if changed:
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False))


def _find_argo(path: Path, entry: str, argo: Path, version: str) -> Path:
    matched = _ARGO.fullmatch(entry)
    if matched is None:
        raise SourceError(
            f"{path} fetches {entry}: only Argo Workflows' manifests may come from elsewhere. Is KFP_VERSION "
            "one that is known here?"
        )
    queries = dict(one.partition("=")[::2] for one in (matched[2] or "").split("&"))
    wanted = queries.get("ref") or queries.get("version") or "no version"
    if wanted != version:
        raise SourceError(
            f"{path} asks for Argo Workflows {wanted}, and ARGO_VERSION is {version}: say "
            f"ARGO_VERSION={wanted} (and ARGO_SHA256, where it is pinned)"
        )
    place = argo / matched[1]
    if not place.exists():
        raise SourceError(f"{path} asks for {matched[1]} of Argo Workflows {version}: {argo} has none")
    return place


def _load(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(), yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise SourceError(f"{path} is no kustomization")
    return document
