from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from installer.errors import SourceError
from installer.kubectl import load
from installer.remote import is_remote, localize

ARGO = "https://github.com/argoproj/argo-workflows/manifests"
KUBECTL = Path(sys.executable).parent / "kubectl"


def write(directory: Path, **document: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(document))


def make_map(path: Path, name: str) -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    path.write_text(yaml.safe_dump(document))


@pytest.fixture
def argo(tmp_path: Path) -> Path:
    base = tmp_path / "argo" / "manifests" / "base"
    write(base, resources=["map.yaml"])
    make_map(base / "map.yaml", "argo")
    return tmp_path / "argo"


@pytest.mark.parametrize(
    ("entry", "remote"),
    [
        (f"{ARGO}/base?ref=v1", True),
        ("github.com/a/b?ref=v1", True),
        ("git@github.com:a/b", True),
        ("ssh://git@host/a", True),
        ("../base", False),
        ("github.yaml", False),
        ("a@b/c.yaml", False),
    ],
)
def test_what_kustomize_fetches_is_known(entry: str, remote: bool) -> None:
    assert is_remote(entry) is remote


@pytest.mark.parametrize(
    "entry", [f"{ARGO}/base?ref=v1&timeout=60s", "github.com/argoproj/argo-workflows//manifests/base?ref=v1"]
)
def test_the_real_kustomize_builds_it_without_a_network(tmp_path: Path, argo: Path, entry: str) -> None:
    tree = tmp_path / "tree"
    write(tree / "env", resources=["../third-party"], namespace="kubeflow")
    write(tree / "third-party", resources=[entry, "own.yaml"])
    make_map(tree / "third-party" / "own.yaml", "own")
    localize(tree, tmp_path / "copy", ["env"], argo, "v1")
    built = subprocess.run(
        [str(KUBECTL), "kustomize", str(tmp_path / "copy" / "env")],
        capture_output=True, text=True, check=True, env={"PATH": ""}, timeout=60,
    )  # fmt: skip
    assert {one["metadata"]["name"] for one in load(built.stdout)} == {"argo", "own"}
    assert "://" in (tree / "third-party" / "kustomization.yaml").read_text() or "//" in entry
    assert entry in (tree / "third-party" / "kustomization.yaml").read_text(), "the original is left alone"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (f"{ARGO}/base?ref=v2", "asks for Argo Workflows v2, and ARGO_VERSION is v1"),
        (f"{ARGO}/base", "asks for Argo Workflows no version"),
        (f"{ARGO}/elsewhere?ref=v1", "manifests/elsewhere of Argo Workflows v1"),
        ("https://github.com/somebody/else?ref=v1", "fetches https://github.com/somebody/else"),
        ("https://example.com/all.yaml", "fetches https://example.com/all.yaml"),
    ],
)
def test_anything_else_from_elsewhere_is_refused_by_name(
    tmp_path: Path, argo: Path, entry: str, words: str
) -> None:
    write(tmp_path / "tree" / "env", resources=[entry])
    with pytest.raises(SourceError, match=r"env/kustomization\.yaml") as caught:
        localize(tmp_path / "tree", tmp_path / "copy", ["env"], argo, "v1")
    assert words in str(caught.value)


def test_what_is_not_built_may_fetch_what_it_likes(tmp_path: Path, argo: Path) -> None:
    write(tmp_path / "tree" / "env", resources=[])
    write(tmp_path / "tree" / "other", resources=["https://example.com/all.yaml"])
    localize(tmp_path / "tree", tmp_path / "copy", ["env"], argo, "v1")
    with pytest.raises(SourceError, match="holds no kustomization"):
        localize(tmp_path / "tree", tmp_path / "copy", ["nowhere"], argo, "v1")
