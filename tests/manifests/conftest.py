"""The manifests as kustomize renders them: no cluster is needed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("kind", "production")
KUBECTL = Path(sys.executable).with_name("kubectl")

Document = dict[str, Any]

# Several modules here ask it; there is no package to import it from.
_spec = importlib.util.spec_from_file_location("monitoring_queries", Path(__file__).with_name("queries.py"))
assert _spec is not None
assert _spec.loader is not None
sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[_spec.name])


@cache
def render(path: Path) -> tuple[Document, ...]:
    """Return what `kubectl kustomize` makes of a directory."""
    answer = subprocess.run(
        [str(KUBECTL), "kustomize", str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    assert not answer.stderr, f"kustomize warns: {answer.stderr}"
    return tuple(yaml.safe_load_all(answer.stdout))


class Rendered:
    """The documents of one overlay."""

    def __init__(self, overlay: str, documents: tuple[Document, ...]) -> None:
        self.overlay = overlay
        self.documents = documents

    def list(self, kind: str, namespace: str | None = None) -> list[Document]:
        """Return the documents of a kind."""
        found = [one for one in self.documents if one["kind"] == kind]
        return [one for one in found if namespace in (None, one["metadata"].get("namespace"))]

    def get(self, kind: str, name: str, namespace: str = "tenure") -> Document:
        """Return the one document of this kind and name."""
        found = [one for one in self.list(kind, namespace) if one["metadata"]["name"] == name]
        assert len(found) == 1, f"{kind} {namespace}/{name}: {len(found)} in {self.overlay}"
        return found[0]

    def pods(self) -> Iterator[tuple[str, Document]]:
        """Yield (name, template) of everything that makes pods."""
        for one in self.documents:
            if one["kind"] in ("Deployment", "StatefulSet", "Job", "CronJob", "DaemonSet"):
                yield one["metadata"]["name"], one["spec"]["template"]

    def containers(self) -> Iterator[tuple[str, Document]]:
        """Yield (POD/CONTAINER, container) of every pod, and of the model servers."""
        for name, template in self.pods():
            for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
                yield f"{name}/{container['name']}", container
        for runtime in self.list("ServingRuntime"):
            for container in runtime["spec"]["containers"]:
                yield f"servingruntime/{container['name']}", container


@pytest.fixture(params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """Each overlay in turn."""
    return Rendered(request.param, render(MANIFESTS / "overlays" / request.param))


@pytest.fixture
def kind() -> Rendered:
    """The overlay that `make up` installs."""
    return Rendered("kind", render(MANIFESTS / "overlays" / "kind"))


@pytest.fixture
def production() -> Rendered:
    """The example for a site with managed services."""
    return Rendered("production", render(MANIFESTS / "overlays" / "production"))


@pytest.fixture
def render_directory() -> Callable[[Path], tuple[Document, ...]]:
    """Render any kustomization."""
    return render
