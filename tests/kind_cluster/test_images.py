from __future__ import annotations

from typing import Any

import pytest

from installer.images import find_lost, name_image


def make_node(*names: str, more: int = 0) -> dict[str, Any]:
    images = [{"names": [name]} for name in names] + [{"names": [f"x:{one}"]} for one in range(more)]
    return {"status": {"images": images}}


@pytest.mark.parametrize(
    ("nodes", "lost"),
    [
        ([make_node("docker.io/library/tenure-pilot:1")], False),
        ([make_node("tenure-pilot:1")], False),
        ([make_node("docker.io/library/tenure-pilot:2")], True),
        ([make_node("docker.io/library/tenure-pilot:1"), make_node("pause:1")], True),
        ([make_node(more=50)], False),
        ([make_node()], False),
        ([], False),
    ],
)
def test_an_image_that_a_node_has_lost_is_noticed(nodes: list[dict[str, Any]], lost: bool) -> None:
    assert find_lost(nodes, "tenure-pilot:1") is lost


def test_an_image_is_named_with_its_registry() -> None:
    assert name_image("tenure-pilot", "1", "") == "tenure-pilot:1"
    assert name_image("tenure-pilot", "1", "r.example.com:5000/x") == "r.example.com:5000/x/tenure-pilot:1"
