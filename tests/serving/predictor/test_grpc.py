from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenure.bundle import Bundle

SCRIPT = Path(__file__).with_name("triton_grpc.py")
Rows = list[dict[str, Any]]
Ask = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def ask(server: Any, model_name: str, datatypes: dict[str, str]) -> Ask:
    """Return a function that has the client do some jobs."""

    def run(*jobs: dict[str, Any]) -> list[Any]:
        order = {
            "address": f"127.0.0.1:{server.grpc_port}",
            "model": model_name,
            "datatypes": datatypes,
            "jobs": jobs,
        }
        done = subprocess.run(
            [sys.executable, str(SCRIPT)], input=json.dumps(order).encode(), capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        answers: list[Any] = json.loads(done.stdout)
        return answers

    return run


@pytest.fixture(scope="module")
def columns(rows: Rows) -> dict[str, list[Any]]:
    """Ten customers without a missing integer or boolean, for which the protocol has no value."""
    full = [row for row in rows if row["calls"] is not None and row["autopay"] is not None][:10]
    return {
        name: ["" if value is None and name == "city" else value for value in values]
        for name, values in ((name, [row[name] for row in full]) for name in full[0])
    }


def test_answers_what_the_bundle_says(
    ask: Ask, columns: dict[str, list[Any]], score: Callable[[Rows], np.ndarray], bundle: Bundle
) -> None:
    sent = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    expected = score([{**row, "city": row["city"] or None} for row in sent]).tolist()
    raw, typed, chosen, unknown = ask(
        {"kind": "raw", "columns": columns, "id": "q"},
        {"kind": "typed", "columns": columns},
        {"kind": "raw", "columns": columns, "outputs": ["churn"], "parameters": {"reasons": True}},
        {
            "kind": "raw",
            "columns": {**columns, "calls": [None] * 10, "autopay": [None] * 10},
            "datatypes": {"calls": "FP64", "autopay": "FP64"},
            "version": bundle.version,
        },
    )
    assert raw["id"] == "q"
    for answer in (raw, typed):
        assert answer["version"] == bundle.version
        assert answer["churn_probability"] == expected
        assert answer["churn"] == [probability >= bundle.threshold for probability in expected]
    assert set(chosen) == {"version", "id", "churn", "reasons"}
    assert json.loads(chosen["reasons"][0])[0].keys() == {"feature", "contribution"}
    without = [{**row, "city": row["city"] or None, "calls": None, "autopay": None} for row in sent]
    assert unknown["churn_probability"] == score(without).tolist()


def test_names_the_tensor_that_is_wrong(ask: Ask, columns: dict[str, list[Any]]) -> None:
    without = {name: values for name, values in columns.items() if name != "months"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"columns": without}, "months: missing"),
        ({"columns": {**columns, "extra": ["x"] * 10}}, "extra: is not an input"),
        ({"columns": {**columns, "months": [-1] * 10}}, "months: row 0: -1 is below the minimum"),
        ({"columns": {**columns, "months": [1]}}, "months: shape [1], but plan has 10 rows"),
        ({"columns": {**columns, "charge": [None] * 10}}, "charge: row 0: is missing"),
        ({"columns": columns, "datatypes": {"months": "FP64"}}, "months: datatype 'FP64'"),
        ({"columns": columns, "datatypes": {"plan": "WORDS"}, "kind": "typed"}, "plan: datatype 'WORDS'"),
        ({"columns": columns, "shape": [-1], "kind": "typed"}, "plan: has no rows"),
        ({"columns": columns, "shape": [5], "kind": "typed"}, "plan: shape [5], but there are 10"),
        ({"columns": {name: values * 31 for name, values in columns.items()}}, "plan: has 310 rows"),
    ]
    answers = ask(*({"kind": "raw", **case} for case, _ in cases))
    for answer, (_, message) in zip(answers, cases, strict=True):
        assert answer["status"] == "StatusCode.INVALID_ARGUMENT"
        assert answer["message"].startswith(message)


def test_tells_health_and_metadata(ask: Ask, datatypes: dict[str, str], bundle: Bundle) -> None:
    health, metadata, mine, *others = ask(
        {"kind": "health"},
        {"kind": "metadata"},
        {"kind": "metadata", "version": bundle.version},
        {"kind": "metadata", "version": "2"},
        {"kind": "health", "version": "2"},
    )
    assert health == [True, True, True]
    assert mine == metadata
    for other in others:
        assert other["status"] == "StatusCode.NOT_FOUND"
        assert other["message"].startswith("version 2 of")
    assert metadata["versions"] == [bundle.version]
    inputs = {entry["name"]: (entry["datatype"], entry["shape"]) for entry in metadata["inputs"]}
    assert inputs == {name: (kind, ["-1"]) for name, kind in {**datatypes, "client": "BYTES"}.items()}
    assert [entry["name"] for entry in metadata["outputs"]] == ["churn_probability", "churn"]


def test_knows_one_model_and_keeps_it(ask: Ask, columns: dict[str, list[Any]]) -> None:
    other, version, unload, after = ask(
        {"kind": "raw", "columns": columns, "model": "other"},
        {"kind": "raw", "columns": columns, "version": "2"},
        {"kind": "unload"},
        {"kind": "raw", "columns": columns},
    )
    assert other["status"] == version["status"] == "StatusCode.NOT_FOUND"
    assert unload["status"] == "StatusCode.PERMISSION_DENIED"
    assert len(after["churn"]) == 10
