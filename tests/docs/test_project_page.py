from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from tenure.contract import Column
from tenure.project import Project, parse_project

PAGE = (Path(__file__).parents[2] / "docs" / "project.md").read_text(encoding="utf-8")


def list_keys(model: type[BaseModel]) -> set[str]:
    keys = set()
    for name, field in model.model_fields.items():
        keys.add(name)
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys |= list_keys(kind)
    return keys


@pytest.mark.parametrize("key", sorted(list_keys(Project) | list_keys(Column)))
def test_every_key_is_explained(key):
    assert f"`{key}`" in PAGE or f"  - {key}" in PAGE or f"{key}:" in PAGE


def test_the_example_is_a_right_project():
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    assert parse_project(yaml.safe_load(example[1])).name == "my-churn"
