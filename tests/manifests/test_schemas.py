"""Objects of Kubernetes' own kinds keep to the schemas of its API, without a field too many."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

MANIFESTS = Path(__file__).parents[2] / "manifests"
VERSIONS = ("1.32", "1.34")
"""The oldest that docs/cluster.md promises, and the one that the tests' cluster has."""
CUSTOM = {
    "BackendTrafficPolicy",
    "ClientTrafficPolicy",
    "ClusterStorageContainer",
    "Gateway",
    "PodMonitor",
    "PrometheusRule",
    "ServiceMonitor",
    "ServingRuntime",
}
"""Kinds of other projects: their schemas come with their CustomResourceDefinitions (tests/cluster)."""

Render = Callable[[Path], tuple[dict[str, Any], ...]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("directory", ["overlays/kind", "overlays/production", "monitoring"])
def test_objects_keep_to_their_schemas(render_directory: Render, directory: str, version: str) -> None:
    own = [one for one in render_directory(MANIFESTS / directory) if one["kind"] not in CUSTOM]
    assert own
    for one in own:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("replicas",), "two"),
        (("replica",), 2),
        (("template", "spec", "containers", 0, "livenesProbe"), {}),
        (("template", "spec", "containers", 0, "ports", 0, "containerPort"), "http"),
    ],
)
def test_mistakes_are_found(render_directory: Render, place: tuple[str | int, ...], value: object) -> None:
    documents = render_directory(MANIFESTS / "overlays" / "kind")
    (found,) = (
        one for one in documents if (one["kind"], one["metadata"]["name"]) == ("Deployment", "tenure-pilot")
    )
    pilot = deepcopy(found)
    part: Any = pilot["spec"]
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pilot, VERSIONS[-1], strict=True)
