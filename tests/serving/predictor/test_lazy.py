"""Imports that are put off until somebody uses what was imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.predictor.lazy import defer_imports

_KSERVE = """
import sys
from serving.predictor.lazy import defer_imports
with defer_imports("kubernetes"):
    import serving.predictor.server
assert "kubernetes.client.models" not in sys.modules, "kserve has used the client"
from kserve import KServeClient
import kubernetes
print(kubernetes.client.V1Pod(kind="Pod").kind, kubernetes.config.__name__)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that notes which of its modules have run."""
    folder = tmp_path / "heavy"
    folder.mkdir()
    note = "from pathlib import Path; Path(__file__).with_suffix('.ran').touch()\n"
    (folder / "__init__.py").write_text(f"{note}from heavy import part\n", encoding="utf-8")
    (folder / "part.py").write_text(f"{note}ANSWER = 42\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in ("heavy", "heavy.part"):
        sys.modules.pop(name, None)


def test_a_module_runs_when_it_is_used(package: Path) -> None:
    finders = list(sys.meta_path)
    with defer_imports("heavy"):
        import heavy.part  # noqa: F401
        from heavy import part
    assert sys.meta_path == finders
    assert not (package / "part.ran").exists()
    assert part.ANSWER == 42
    assert (package / "part.ran").exists()


def test_other_packages_are_imported_as_ever(package: Path) -> None:
    with defer_imports("another"):
        import heavy  # noqa: F401
    assert (package / "part.ran").exists()


def test_the_server_leaves_the_kubernetes_client_alone() -> None:
    result = subprocess.run([sys.executable, "-c", _KSERVE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "Pod kubernetes.config\n"
