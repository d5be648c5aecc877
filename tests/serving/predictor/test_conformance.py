"""The predictor, held against the Open Inference Protocol, and against what its bundle itself predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks._oracle import BundleOracle
from oip_conformance.checks import Level, list_checks
from oip_conformance.fuzzing import fuzz, render_tally
from oip_conformance.runner import run_checks
from oip_conformance.session import open_session
from oip_conformance.target import Target
from tenure.bundle import Bundle


@pytest.fixture(scope="module")
def target(server: Any, rows: list[dict[str, Any]], make_body: Any, tmp_path_factory: Any) -> Target:
    complete = [row for row in rows if None not in row.values()][:4]
    file: Path = tmp_path_factory.mktemp("conformance") / "example.json"
    file.write_text(json.dumps(make_body(complete)))
    url, grpc = f"http://127.0.0.1:{server.http_port}", f"127.0.0.1:{server.grpc_port}"
    return Target(url, grpc, example=file, oversize=300_000)


def test_every_binding_rule_is_kept(target: Target) -> None:
    with open_session(target) as session:
        found = list(run_checks(session, list_checks()))
    failed = {
        check.id: f"{finding.failure}: {finding.came}"
        for check, finding in found
        if finding.failure and check.level is Level.MUST
    }
    assert failed == {}


def test_generated_requests_get_what_the_bundle_predicts(target: Target, bundle: Bundle) -> None:
    with open_session(target) as session:
        tally = fuzz(session, 1000, seed=3, oracle=BundleOracle(bundle))
    assert tally.misses == [], render_tally(tally)
    assert sum(tally.outcomes[one, "right 200"] for one in ("rest", "binary", "grpc")) > 200
