"""The images as they were built: what they hold, whom they run as, and how large they are.

They are looked for under the tag in TENURE_IMAGES_TAG (`dev`): TAG=dev make images.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker

ROOT = Path(__file__).resolve().parents[2]
TAG = os.environ.get("TENURE_IMAGES_TAG", "dev")
BASE = os.environ.get("PYTHON_IMAGE") or "python:3.11-slim-bookworm"
ROOMS = {
    "components": ("components", "clients", "tenure"),
    "predictor": ("serving.predictor", "tenure"),
    "detector": ("serving.detector", "clients", "tenure"),
    "pilot": ("serving.pilot", "clients", "tenure"),
    "console": ("console", "clients", "tenure"),
    # MLflow is not ours: its server, its login, and what it reaches its database and its bucket by.
    "mlflow": (
        "mlflow.server.handlers",
        "mlflow.server.fastapi_app",
        "flask_wtf.csrf",
        "psycopg2.extensions",
        "boto3.session",
    ),
}
MEGABYTES = {
    "components": 700, "predictor": 400, "detector": 950, "pilot": 400, "console": 490, "mlflow": 350,
}  # fmt: skip
"""How much larger than its base an image may be."""

EACH = pytest.mark.parametrize("name", ROOMS)

# Imports all modules of the packages given, prints those that could not be.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
failed = {}
for root in sys.argv[1:]:
    package = importlib.import_module(root)
    for found in pkgutil.walk_packages(getattr(package, "__path__", []), root + "."):
        if ".migrations." in found.name:  # run by alembic, never imported
            continue
        try:
            importlib.import_module(found.name)
        except ImportError as error:
            failed[found.name] = str(error)
print(json.dumps(failed))
"""


def normalise(pin: str) -> str:
    """Return a name and version, however its author writes the name (PEP 503)."""
    name, version = re.split("==|@", pin, maxsplit=1)
    return f"{re.sub('[-_.]+', '-', name).lower()}=={version}"


def list_pins(lock: Path) -> list[str]:
    """Return what a lock installs on Linux."""
    lines = re.findall(
        r"^([\w.-]+==[^\s;]+)(?: ; ([^\\\n]+))?", lock.read_text(encoding="utf-8"), re.MULTILINE
    )
    return [pin for pin, marker in lines if not marker or Marker(marker.strip()).evaluate()]


def run(*command: str) -> str:
    """Return what a program prints; what it says on standard error is the message of its failure."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr
    return result.stdout


@cache
def inspect(reference: str) -> dict[str, Any]:
    """Return what Docker knows of an image; the test is skipped when there is none."""
    if not shutil.which("docker"):
        pytest.skip("docker is not installed: the images cannot be looked at")
    result = subprocess.run(
        ["docker", "image", "inspect", reference], capture_output=True, text=True, check=False, timeout=60
    )
    if result.returncode:
        pytest.skip(f"docker has no {reference} here: make images TAG={TAG}")
    document: dict[str, Any] = json.loads(result.stdout)[0]
    return document


def run_inside(name: str, *command: str) -> str:
    """Run a command as a restricted pod would: nobody, no capability, no network, /tmp alone writable."""
    inspect(f"tenure-{name}:{TAG}")
    return run(
        "docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL",
        "--security-opt=no-new-privileges", f"tenure-{name}:{TAG}", *command,
    )  # fmt: skip


@EACH
def test_every_module_of_its_rooms_can_be_imported(name: str) -> None:
    assert json.loads(run_inside(name, "python", "-W", "ignore", "-c", IMPORT_ALL, *ROOMS[name])) == {}


@EACH
def test_holds_no_installer_no_compiler_and_no_shell_but_sh(name: str) -> None:
    programs = "pip pip3 uv gcc cc make curl wget apt apt-get perl bash"
    script = f"for one in {programs}; do command -v $one && exit 1; done; "
    modules = "'pip', 'setuptools', 'ensurepip'"
    check = f"import importlib.util as u; assert not [n for n in ({modules}) if u.find_spec(n)]"
    run_inside(name, "sh", "-c", f'{script} python -c "{check}"')


@EACH
def test_runs_as_nobody(name: str) -> None:
    assert run_inside(name, "id").split()[:2] == ["uid=65532", "gid=65532"]
    # Kubernetes can tell a number to be no root's, not a name.
    assert inspect(f"tenure-{name}:{TAG}")["Config"]["User"] == "65532:65532"


@EACH
def test_says_where_it_comes_from(name: str) -> None:
    labels = inspect(f"tenure-{name}:{TAG}")["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"tenure-{name}"
    for key in ("version", "created", "licenses", "description"):
        assert labels[f"org.opencontainers.image.{key}"]
    revision = labels["org.opencontainers.image.revision"]
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", revision)
    if re.fullmatch("[0-9a-f]{12}", TAG):
        assert revision.startswith(TAG)


@EACH
def test_its_bill_of_materials_is_what_is_installed(name: str, tmp_path: Path) -> None:
    identity = inspect(f"tenure-{name}:{TAG}")["Id"]
    run(sys.executable, str(ROOT / "scripts" / "image-sbom"), f"tenure-{name}:{TAG}", str(tmp_path))
    document = json.loads((tmp_path / f"tenure-{name}.cdx.json").read_text(encoding="utf-8"))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["hashes"][0]["content"] == identity.removeprefix("sha256:")
    purls = [component["purl"] for component in document["components"]]
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in purls)
    found = {normalise(purl.split("/")[-1]) for purl in purls if purl.startswith("pkg:pypi/")}
    assert found == {normalise(pin) for pin in list_pins(ROOT / "requirements" / f"{name}.txt")}


@EACH
def test_keeps_no_address_of_a_package_index(name: str) -> None:
    environment = inspect(f"tenure-{name}:{TAG}")["Config"]["Env"]
    history = run("docker", "history", "--no-trunc", "--format={{.CreatedBy}}", f"tenure-{name}:{TAG}")
    assert "PIP_INDEX_URL" not in history + " ".join(environment)


@EACH
def test_is_no_larger_than_it_may_be(name: str) -> None:
    image, base = inspect(f"tenure-{name}:{TAG}"), inspect(BASE)
    assert image["RootFS"]["Layers"][: len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]
    assert (image["Size"] - base["Size"]) / 1e6 < MEGABYTES[name]


@EACH
def test_bytecode_is_there_for_every_module(name: str) -> None:
    script = (
        "import pathlib, sys; sources = [p for r in sys.argv[1:] for p in pathlib.Path(r).rglob('*.py')];"
        "tag = sys.implementation.cache_tag;"
        "print([str(p) for p in sources if not (p.parent / '__pycache__' / f'{p.stem}.{tag}.pyc').exists()])"
    )
    code = () if name == "mlflow" else ("/app",)
    assert run_inside(name, "python", "-c", script, *code, "/opt/venv/lib").strip() == "[]"


def test_what_the_launcher_of_kubeflow_pipelines_needs_is_there() -> None:
    """A step begins as `sh -c 'mktemp ...; python3 -m kfp.dsl.executor_main ...'`."""
    out = run_inside(
        "components", "sh", "-ec",
        "folder=$(mktemp -d); printf %s text >$folder/file; test -w /tmp; command -v python3;"
        " _KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --help",
    )  # fmt: skip
    assert "--component_module_path" in out


def test_the_code_version_is_that_of_the_image_and_not_of_the_place() -> None:
    script = "from tenure.version import compute_code_version; print(compute_code_version())"
    first = run_inside("components", "python", "-c", script)
    assert len(first.strip()) == 16
    assert run_inside("components", "sh", "-c", f"cd /tmp && python -c '{script}'") == first


def test_reasons_can_be_computed_by_what_the_predictor_holds() -> None:
    """XGBoost is imported only when a request asks for reasons, and with scipy's few modules."""
    script = (
        "import numpy as np, xgboost as xgb; X = np.eye(8);"
        "booster = xgb.train({'objective': 'binary:logistic'}, xgb.DMatrix(X, label=np.arange(8) % 2), 2);"
        "print(booster.predict(xgb.DMatrix(X), pred_contribs=True).shape)"
    )
    assert run_inside("predictor", "python", "-W", "ignore", "-c", script).strip() == "(8, 9)"


def test_the_detector_tests_drift_with_alibi_detect() -> None:
    script = (
        "import numpy as np; from alibi_detect.cd import TabularDrift; rng = np.random.default_rng(1);"
        "drift = TabularDrift(rng.normal(size=(200, 2)), p_val=0.01);"
        "print(drift.predict(rng.normal(3, 1, size=(200, 2)))['data']['is_drift'])"
    )
    assert run_inside("detector", "python", "-W", "ignore", "-c", script).strip() == "1"
