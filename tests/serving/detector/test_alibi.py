"""alibi-detect says what scipy says, and says clearly when it is not there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from serving.detector.alibi import open_backend
from serving.detector.errors import BackendError
from tenure.contract import Contract
from tenure.drift.backend import ScipyBackend
from tenure.drift.reference import Reference

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-detector" / "bin" / "python"
COMPARE = Path(__file__).parent / "compare_backends.py"


@pytest.fixture
def reference() -> Reference:
    contract = Contract.model_validate(
        {
            "columns": [
                {"name": "id", "role": "id", "type": "string"},
                {"name": "left", "role": "label", "type": "boolean"},
                {"name": "x", "type": "float"},
            ]
        }
    )
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "score": [0.1, 0.2, 0.9], "label": [0.0, 0.0, 1.0]})
    return Reference.from_frame(frame, contract, "inputs")


@pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-detector: `make environment-detector` creates it")
def test_both_backends_agree_on_a_thousand_windows() -> None:
    finished = subprocess.run(
        [str(PYTHON), str(COMPARE), "1000"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found["windows"] == 1000
    assert found["worst"] < 1e-6
    assert found["smallest"] < 1e-30  # shifts were among them


def test_scipy_is_always_there(reference: Reference) -> None:
    assert isinstance(open_backend("scipy", reference), ScipyBackend)


@pytest.mark.skipif(importlib.util.find_spec("alibi_detect") is not None, reason="alibi-detect is installed")
def test_says_how_to_get_alibi_detect(reference: Reference) -> None:
    with pytest.raises(BackendError, match=r"make environment-detector.*backend: scipy"):
        open_backend("alibi-detect", reference)


def test_refuses_an_unknown_backend(reference: Reference) -> None:
    with pytest.raises(BackendError, match="no drift backend 'other'"):
        open_backend("other", reference)
