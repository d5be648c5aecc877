from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from installer.kubectl import load
from installer.options import ROOT, Options, read_options, read_versions
from installer.overlay import choose_images, make_entry, write_kustomization

DIGEST = "sha256:" + "1" * 64
KUBECTL = Path(sys.executable).parent / "kubectl"


def make_options(postgres: str, **variables: str) -> Options:
    return read_options(variables, {**read_versions(), "POSTGRES_IMAGE": postgres})


@pytest.mark.parametrize(
    ("image", "entry"),
    [
        ("r.example.com:5000/x/a:1", {"newName": "r.example.com:5000/x/a", "newTag": "1"}),
        ("a:1", {"newName": "a", "newTag": "1"}),
        (f"r.example.com:5000/a@{DIGEST}", {"newName": "r.example.com:5000/a", "digest": DIGEST}),
        (f"a:1@{DIGEST}", {"newName": "a", "digest": DIGEST}),
        ("r.example.com:5000/a", {"newName": "r.example.com:5000/a"}),
    ],
)
def test_an_image_is_taken_apart(image: str, entry: dict[str, str]) -> None:
    assert make_entry("n", image) == {"name": "n", **entry}


@pytest.mark.parametrize(
    ("postgres", "mirror", "image"),
    [
        ("postgres:18", "", "postgres:18"),
        (f"postgres:18@{DIGEST}", "", f"postgres@{DIGEST}"),
        ("postgres:18", "m.example.com", "m.example.com/docker.io/library/postgres:18"),
        (f"postgres@{DIGEST}", "m.example.com", f"m.example.com/docker.io/library/postgres@{DIGEST}"),
    ],
)
def test_postgresql_is_the_one_of_the_versions(
    tmp_path: Path, postgres: str, mirror: str, image: str
) -> None:
    options = make_options(postgres, MIRROR=mirror)
    assert image in find_images(write_kustomization(tmp_path, options, {}, {}))


def test_a_tag_that_looks_like_a_number_stays_a_tag(tmp_path: Path) -> None:
    for tag in ("123456789e12", "012345678901"):
        directory = write_kustomization(
            tmp_path / tag, make_options("postgres:18"), {"tenure-pilot": f"tenure-pilot:{tag}"}, {}
        )
        assert f"tenure-pilot:{tag}" in find_images(directory)


def test_the_base_has_the_postgresql_of_the_versions() -> None:
    found = {one for one in find_images(ROOT / "manifests" / "overlays" / "kind") if "postgres" in one}
    assert found == {read_versions()["POSTGRES_IMAGE"]}
    assert choose_images({}, make_options("postgres:18")) == [
        {"name": "postgres", "newName": "postgres", "newTag": "18"}
    ]


def find_images(directory: Path) -> set[str]:
    """Return the images of what the real kustomize builds."""
    built = subprocess.run(
        [str(KUBECTL), "kustomize", str(directory)], capture_output=True, text=True, check=True, timeout=60
    )

    def walk(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["image"]} if isinstance(value.get("image"), str) else set()
            return own.union(*map(walk, value.values()))
        return set().union(*map(walk, value)) if isinstance(value, list) else set()

    return walk(load(built.stdout))
