"""What an image holds is what its rooms import: no module is missing, in the lock or among what is copied."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("tenure", "clients", "components", "pipelines", "serving", "embedded", "console", "oip_conformance")
ROOMS = {
    "components": "components",
    "predictor": "serving/predictor",
    "detector": "serving/detector",
    "pilot": "serving/pilot",
    "console": "console",
}
FILES = {
    **{name: ROOT / room / "Dockerfile" for name, room in ROOMS.items()},
    "mlflow": ROOT / "manifests/mlflow/Dockerfile",
}

_WRITES_GRAPHS = "training alone writes ONNX graphs"
_KEEPS_REFERENCES = "training writes the reference of a bundle, the detector reads it"
_EXPLAINS = "only the predictor gives reasons, only training fits"
_MEASURES = "only the detector computes effects; the others take its verdict's types"
UNREACHED = {
    "components": {},
    "predictor": {
        ("tenure.bundle", "pyarrow"): _KEEPS_REFERENCES,
        ("tenure.graph", "onnx"): _WRITES_GRAPHS,
    },
    "detector": {
        ("tenure.graph", "onnx"): _WRITES_GRAPHS,
        ("tenure.graph", "onnxruntime"): "the detector scores nobody",
        ("tenure.booster", "xgboost"): _EXPLAINS,
        ("tenure.scorer", "xgboost"): _EXPLAINS,
    },
    "pilot": {
        ("tenure.bundle", "pyarrow"): _KEEPS_REFERENCES,
        ("tenure.drift.effect", "scipy"): _MEASURES,
        ("tenure.graph", "onnx"): _WRITES_GRAPHS,
        ("tenure.booster", "xgboost"): _EXPLAINS,
        ("tenure.scorer", "xgboost"): _EXPLAINS,
    },
    "console": {
        ("tenure.baseline", "sklearn"): "the console reads evaluations, it makes none",
        ("tenure.baseline", "xgboost"): "the console reads evaluations, it makes none",
        ("tenure.drift.effect", "scipy"): _MEASURES,
        ("tenure.graph", "onnx"): _WRITES_GRAPHS,
        ("tenure.graph", "onnxruntime"): "the console asks the gateway for scores",
        ("tenure.booster", "xgboost"): _EXPLAINS,
        ("tenure.scorer", "xgboost"): _EXPLAINS,
    },
}
"""Imports inside functions that an image never calls, by module and package, each with its reason."""


@cache
def read_lock(name: str) -> dict[str, str]:
    """Return version by package."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))


@cache
def find_distributions() -> dict[str, set[str]]:
    """Return the distributions that bring each importable name; alibi-detect's is not installed here."""
    found = {
        name: {re.sub(r"[-_.]+", "-", one).lower() for one in names}
        for name, names in metadata.packages_distributions().items()
    }
    return {**found, "alibi_detect": {"alibi-detect"}}


def locate(module: str) -> Path | None:
    home = ROOT / "tests/conformance" if module.split(".")[0] == "oip_conformance" else ROOT
    path = home.joinpath(*module.split("."))
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


@cache
def read_imports(file: Path) -> frozenset[str]:
    """Return what a file imports anywhere but under TYPE_CHECKING, `a.b` for `from a import b` too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def list_modules(room: str) -> Iterator[str]:
    for file in (ROOT / room).rglob("*.py"):
        yield ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def walk(image: str) -> tuple[dict[str, Path], frozenset[tuple[str, str]]]:
    """Return the modules of ours that a room reaches, and (module, package) for the others' imports."""
    waiting, reached, foreign = list(list_modules(ROOMS[image])), {}, set()
    while waiting:
        module = waiting.pop()
        file = locate(module)
        if module in reached or file is None:
            continue
        reached[module] = file
        parts = module.split(".")
        waiting += [".".join(parts[:end]) for end in range(1, len(parts))]
        for name in read_imports(file):
            top = name.split(".")[0]
            if top in OURS:
                waiting.append(name)
            elif top not in sys.stdlib_module_names:
                foreign.add((module, top))
    return reached, frozenset(foreign)


@pytest.mark.parametrize("image", ROOMS)
def test_lock_holds_every_package_that_the_image_imports(image: str) -> None:
    lock, brings = read_lock(image), find_distributions()
    foreign = walk(image)[1]
    missing = {
        (module, package)
        for module, package in foreign
        if not any(one in lock for one in brings.get(package, {package}))
    }
    assert missing - UNREACHED[image].keys() == set()
    assert UNREACHED[image].keys() - missing == set(), "these are imported no more, or are there after all"


@pytest.mark.parametrize("image", ROOMS)
def test_every_module_that_the_image_reaches_is_copied(image: str) -> None:
    text = FILES[image].read_text(encoding="utf-8")
    copied = [ROOT / one for one in re.findall(r"^COPY (\S+) /app/", text, re.MULTILINE)]
    assert copied
    left_out = {
        module
        for module, file in walk(image)[0].items()
        if not any(file == one or one in file.parents for one in copied)
    }
    assert left_out == set()


@pytest.mark.parametrize("image", FILES)
def test_what_is_excluded_is_neither_locked_nor_imported(image: str) -> None:
    file = ROOT / "requirements/excludes" / f"{image}.in"
    if not file.exists():
        assert image in ("pilot", "console")
        return
    excluded = {line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")}
    assert excluded
    assert excluded & read_lock(image).keys() == set()
    if image in ROOMS:
        brings = find_distributions()
        imported = {one for _, package in walk(image)[1] for one in brings.get(package, {package})}
        assert excluded & imported == set()


@pytest.mark.parametrize("image", [*FILES, "build"])
def test_lock_has_the_versions_that_the_tests_run_with(image: str) -> None:
    """Only the detector is resolved by itself: alibi-detect needs another numpy."""
    known, lock = read_lock("dev"), read_lock(image)
    differ = {
        name: (version, known[name]) for name, version in lock.items() if known.get(name, version) != version
    }
    assert image == "detector" or differ == {}


@pytest.mark.parametrize("image", [*FILES, "build"])
def test_every_locked_package_has_hashes(image: str) -> None:
    text = (ROOT / "requirements" / f"{image}.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) >= len(read_lock(image)) > 0
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_code_version_has_all_its_sources_in_the_steps_image() -> None:
    from tenure.version import PACKAGES

    text = FILES["components"].read_text(encoding="utf-8")
    assert all(f"COPY {package} /app/{package}\n" in text for package in PACKAGES)
