"""The benchmarks' modules, which are scripts beside each other, and the predictor's small bundle."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _load(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# Not by a path of imports: `serving` would then be a benchmark. The order is that of who imports whom.
_modules = {
    name: _load(name, ROOT / "benchmarks" / f"{name}.py")
    for name in ("_clients", "_load", "_requests", "_servers", "_report")
}
_predictor = _load("predictor_conftest", ROOT / "tests" / "serving" / "predictor" / "conftest.py")

project = _predictor.project
contract = _predictor.contract
frame = _predictor.frame
bundle_dir = _predictor.bundle_dir
bundle = _predictor.bundle
rows = _predictor.rows


@pytest.fixture
def load() -> ModuleType:
    return _modules["_load"]


@pytest.fixture
def requests() -> ModuleType:
    return _modules["_requests"]


@pytest.fixture
def servers() -> ModuleType:
    return _modules["_servers"]


@pytest.fixture
def report() -> ModuleType:
    return _modules["_report"]
