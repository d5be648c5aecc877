from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from clients.errors import RefusedError
from clients.package import read_package

TRAINING = Path(__file__).parents[2] / "pipelines" / "training.yaml"
IMAGE = "registry.example.com/tenure-components@sha256:" + "a" * 64


def load(content: bytes) -> list[Any]:
    return list(yaml.safe_load_all(content))


def test_without_an_image_the_file_is_left_as_it_is() -> None:
    assert read_package(TRAINING) == TRAINING.read_bytes()


def test_an_image_becomes_the_default_and_nothing_else_changes() -> None:
    found, wanted = load(read_package(TRAINING, IMAGE)), load(TRAINING.read_bytes())
    parameter = found[0]["root"]["inputDefinitions"]["parameters"]["image"]
    assert parameter["defaultValue"] == IMAGE
    parameter["defaultValue"] = wanted[0]["root"]["inputDefinitions"]["parameters"]["image"]["defaultValue"]
    assert found == wanted
    assert len(found) == 2, "the second part is for Kubernetes"


def test_the_same_image_gives_the_same_bytes_and_another_one_others() -> None:
    assert read_package(TRAINING, IMAGE) == read_package(TRAINING, IMAGE)
    assert read_package(TRAINING, IMAGE) != read_package(TRAINING, IMAGE.replace("a", "b"))


def test_a_pipeline_that_takes_no_image_is_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "plain.yaml"
    file.write_text("# a comment\nroot:\n  dag: {}\n")
    assert read_package(file, IMAGE) == file.read_bytes()


@pytest.mark.parametrize("text", ["", "just text", "root: 3", "root: [", "a: b\n"])
def test_what_is_no_pipeline_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(RefusedError, match=r"odd\.yaml: is no compiled pipeline"):
        read_package(file, IMAGE)
