"""The peers answer what Tenure answers, over every wire that the benchmark measures."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.peers.trees import Trees
from tenure.bundle import Bundle
from tenure.scorer import score_with_xgboost, to_columns


@pytest.fixture
def complete(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without a missing value, which gRPC could not carry."""
    return [row for row in rows if None not in row.values()][:30]


def score(bundle: Bundle, rows: list[dict[str, Any]]) -> np.ndarray:
    columns = to_columns(rows, bundle.featuriser.names)
    return score_with_xgboost(bundle, bundle.featuriser.transform(columns))


def test_trees_are_the_bundles(bundle: Bundle, rows: list[dict[str, Any]]) -> None:
    trees = Trees(bundle.directory)
    scores = trees.score({name: [row[name] for row in rows] for name in trees.datatypes})
    np.testing.assert_allclose(scores, score(bundle, rows), atol=1e-9)


@pytest.mark.parametrize(
    ("module", "path", "kinds"),
    [
        pytest.param(None, None, ("json", "binary", "grpc", "grpc raw"), id="ours"),
        pytest.param("stock_kserve", None, ("json", "binary", "grpc", "grpc raw"), id="kserve"),
        pytest.param("grpc_floor", "/", ("grpc",), id="floor"),
        pytest.param("fastapi_server", "/health", ("rows",), id="fastapi"),
    ],
)
def test_server_answers_the_bundles_scores(
    module: str | None,
    path: str | None,
    kinds: tuple[str, ...],
    bundle: Bundle,
    complete: list[dict[str, Any]],
    load: ModuleType,
    requests: ModuleType,
    servers: ModuleType,
    tmp_path: Path,
) -> None:
    port, grpc_port = servers.find_port(), servers.find_port()
    if module is None:
        command = servers.build_predictor_command(bundle.directory, port, grpc_port, None)
    else:
        command = [sys.executable, "-m", f"benchmarks.peers.{module}", "--bundle", str(bundle.directory)]
        command += ["--port", str(port)]
        command += ["--grpc-port", str(grpc_port)] if requests.is_grpc(kinds[-1]) else []
    expected = score(bundle, complete)
    file = tmp_path / "request"
    with servers.run("peer", command, port, tmp_path / "log", grpc_port, path or servers.READY) as server:
        for kind in kinds:
            for count in (1, len(complete)):
                request = requests.build_request(kind, complete[:count], bundle, servers.NAME)
                where = grpc_port if requests.is_grpc(kind) else port
                scores = requests.ask(kind, where, request, bundle)
                np.testing.assert_allclose(scores, expected[:count], atol=1e-6, err_msg=kind)
                file.write_bytes(request)
                wire = "grpc" if requests.is_grpc(kind) else "http"
                result = load.drive(load.Order(wire, where, server.process.pid, str(file), 2, 0.1, 0.05))
                assert result.requests >= 2
        if "grpc raw" in kinds:
            file.write_bytes(requests.build_request("grpc", complete[:1], bundle, "nobody"))
            with pytest.raises(load.LoadError, match="nobody"):
                load.drive(load.Order("grpc", grpc_port, server.process.pid, str(file), 1, 0.1, 0.05))
