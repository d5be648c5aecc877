"""Evaluate and gate: what is judged, shown and tagged."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import names
from clients.errors import NotFoundError
from clients.settings import Settings, load_settings
from clients.store import Store
from clients.tracking import CHAMPION, Tracking
from components import evaluate, gate
from components.evaluate import score_rows, thin_roc
from components.tune import select_part
from tenure.bundle import load_bundle
from tenure.errors import BundleError, EvaluationError
from tenure.evaluation import EvaluationReport
from tenure.partition import Part
from tenure.project import Metric, Project
from tenure.snapshot import read_snapshot


def judge(model: Any, directory: Path, project: Project | None = None) -> Any:
    text = model.text if project is None else project.model_dump_json()
    paths = [str(directory / name) for name in ("evaluation.json", "report.html")]
    return evaluate.run(text, str(model.rows), str(model.bundle), model.run_id, *paths)


def decide(model: Any, directory: Path, project: Project | None = None) -> bool:
    text = model.text if project is None else project.model_dump_json()
    return gate.run(text, str(directory / "evaluation.json"), model.run_id, str(directory / "decision.md"))


@pytest.fixture
def champion(trained: tuple[Any, Any], tracking: Tracking, store: Store) -> Any:
    """Make the first model the champion for one test."""
    first, _ = trained
    uri = names.bundle_uri(store.bucket, first.bundle_digest)
    store.upload_directory(first.bundle, uri)
    version = tracking.register_bundle(first.project.name, first.run_id, first.bundle_digest, uri)
    tracking.set_alias(first.project.name, CHAMPION, version.version)
    yield first
    tracking.delete_alias(first.project.name, CHAMPION)


def test_first_model_is_judged_without_a_champion(
    trained: tuple[Any, Any], tracking: Tracking, tmp_path: Path
) -> None:
    first, _ = trained
    found = judge(first, tmp_path)
    report = EvaluationReport.model_validate_json((tmp_path / "evaluation.json").read_text())
    assert "champion" not in report.models
    assert 0.8 < found.metrics["challenger_roc_auc"] < 0.88
    assert found.metrics["challenger_roc_auc_low"] < found.metrics["challenger_roc_auc"]
    assert found.metrics["refused_rows"] == 0
    assert all(math.isfinite(value) for value in found.metrics.values())
    assert sum(map(sum, found.confusion)) == report.rows
    run = tracking.client.get_run(first.run_id)
    assert run.data.metrics["challenger_roc_auc"] == found.metrics["challenger_roc_auc"]
    assert {item.path for item in tracking.client.list_artifacts(first.run_id)} >= {"evaluation.html"}
    assert decide(first, tmp_path) is True
    assert tracking.get_tags(first.run_id)["gate"] == "approved"
    assert "Approved" in (tmp_path / "decision.md").read_text()


def test_champion_is_judged_on_the_same_rows(
    trained: tuple[Any, Any], champion: Any, tracking: Tracking, tmp_path: Path
) -> None:
    _, second = trained
    judge(second, tmp_path)
    report = EvaluationReport.model_validate_json((tmp_path / "evaluation.json").read_text())
    assert report.models["champion"].version == champion.bundle_digest[:12]
    assert "roc_auc" in report.differences["challenger-champion"]
    frame = select_part(read_snapshot(second.rows), Part.HELD_OUT, second.project)
    assert report.rows == len(frame)


@pytest.fixture
def messages(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Listen for alarms; returns those that came."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("TENURE_NOTIFY_URLS", f"json://127.0.0.1:{server.server_port}")
    load_settings.cache_clear()
    yield received
    load_settings.cache_clear()
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_gate_rejects_with_reasons_and_tells_people(
    trained: tuple[Any, Any], tracking: Tracking, tmp_path: Path, messages: list[dict[str, Any]]
) -> None:
    first, second = trained
    judge(first, tmp_path)
    assert decide(first, tmp_path)
    assert messages == []
    changed = second.project.gate.model_copy(update={"floors": {Metric.ROC_AUC: 0.99}})
    project = second.project.model_copy(update={"gate": changed})
    judge(second, tmp_path, project)
    assert decide(second, tmp_path, project) is False
    tags = tracking.get_tags(second.run_id)
    assert tags["gate"] == "rejected"
    assert "0.99" in tags["gate.reasons"]
    assert "Rejected" in (tmp_path / "decision.md").read_text()
    (message,) = messages
    assert message["title"] == f"{project.name}: the gate rejected a challenger"
    assert "0.99" in message["message"]
    assert second.run_id in message["message"]


def test_altered_champion_fails(
    trained: tuple[Any, Any], champion: Any, store: Store, tmp_path: Path
) -> None:
    _, second = trained
    uri = f"{names.bundle_uri(store.bucket, champion.bundle_digest)}/model.onnx"
    data = bytearray(store.get_bytes(uri))
    data[100] ^= 1
    store.put_bytes(bytes(data), uri)
    with pytest.raises(BundleError, match="altered"):
        judge(second, tmp_path)
    store.delete(uri)
    with pytest.raises((BundleError, NotFoundError)):
        judge(second, tmp_path)


def test_rows_that_a_model_refuses_are_left_out(trained: tuple[Any, Any], settings: Settings) -> None:
    _, second = trained
    bundle = load_bundle(second.bundle)
    frame = select_part(read_snapshot(second.rows), Part.HELD_OUT, second.project).head(20)
    expected = score_rows(bundle, frame)
    frame.loc[3, "tenure"] = -1
    found = score_rows(bundle, frame)
    assert np.isnan(found[3])
    kept = np.arange(20) != 3
    np.testing.assert_allclose(found[kept], expected[kept], atol=1e-6)


def test_model_of_another_contract_is_told(trained: tuple[Any, Any]) -> None:
    _, second = trained
    frame = read_snapshot(second.rows).drop(columns="partner")
    with pytest.raises(EvaluationError, match="partner"):
        score_rows(load_bundle(second.bundle), frame)


def test_roc_is_thinned_with_both_ends_and_finite() -> None:
    count = 1000
    rates = [i / (count - 1) for i in range(count)]
    fpr, tpr, thresholds = thin_roc(rates, rates, [math.inf, *reversed(rates[1:])])
    assert len(fpr) == len(tpr) == len(thresholds) == 100
    assert (fpr[0], fpr[-1]) == (0.0, 1.0)
    assert fpr == sorted(fpr)
    assert all(map(math.isfinite, thresholds))
    assert thin_roc([0.0, 1.0], [0.0, 1.0], [1.0, 0.0]) == ([0.0, 1.0], [0.0, 1.0], [1.0, 0.0])
