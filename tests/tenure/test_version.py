"""The code version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tenure import version
from tenure.errors import TenureError
from tenure.version import compute_code_version, hash_sources


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for name in ("tenure/a.py", "tenure/b/c.py", "clients/d.py", "tenure/templates/page.j2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_it_is_stable_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(version.VARIABLE, raising=False)
    first = compute_code_version()
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert compute_code_version() == first


@pytest.mark.parametrize("given", ["sha256:" + "a" * 64, "1f2e3d", "registry/image@sha256:ab", " padded "])
def test_the_variable_wins(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(version.VARIABLE, given)
    assert compute_code_version() == given.strip()


@pytest.mark.parametrize("given", ["two words", "-x", "a" * 300, "a\nb"])
def test_what_is_no_version_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(version.VARIABLE, given)
    with pytest.raises(TenureError, match="is no version"):
        compute_code_version()


def test_an_edit_a_name_and_a_library_make_a_new_version(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [hash_sources(sources)]
    (sources / "tenure" / "b" / "c.py").write_text("edited")
    seen.append(hash_sources(sources))
    (sources / "tenure" / "a.py").rename(sources / "tenure" / "z.py")
    seen.append(hash_sources(sources))
    (sources / "tenure" / "templates" / "page.j2").write_text("edited")
    seen.append(hash_sources(sources))
    (sources / "components").mkdir()
    (sources / "components" / "e.py").write_text("")
    seen.append(hash_sources(sources))
    monkeypatch.setattr(version.metadata, "version", lambda name: "0")
    seen.append(hash_sources(sources))
    assert len(set(seen)) == len(seen)


def test_what_is_no_source_makes_no_difference(sources: Path) -> None:
    before = hash_sources(sources)
    (sources / "tenure" / "__pycache__").mkdir()
    (sources / "tenure" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"")
    (sources / "console").mkdir()
    (sources / "console" / "main.py").write_text("x")
    (sources / "tenure" / "a.py").touch()
    assert hash_sources(sources) == before
