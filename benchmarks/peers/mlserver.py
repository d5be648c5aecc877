"""MLServer: writes its settings and becomes `mlserver start`.

    python -m benchmarks.peers.mlserver --bundle DIR --port 8080 --grpc-port 8081 [--name telco]
        [--runtime custom|xgboost] [--workers 1]

Runs in an environment of its own (`make environment-peers`), for MLServer's pins are not kserve's. One tensor
per feature either way. The custom runtime takes strings; MLServer's own XGBoost runtime cannot: it gets each
feature's code as FP64 and the parameter `content_type: pd`, and answers XGBoost's probability as `predict`,
uncalibrated. --workers is its `parallel_workers`: 1 as it comes, 0 predicts in the server's process.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlserver.cli import main as start

from benchmarks.peers.bundle import read_datatypes

LOOPBACK = "127.0.0.1"


def write_settings(folder: Path, options: argparse.Namespace) -> None:
    """Write what MLServer reads at its start."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        metrics_port = probe.getsockname()[1]
    settings = {
        "debug": False,
        "host": LOOPBACK,
        "http_port": options.port,
        "grpc_port": options.grpc_port,
        "metrics_port": metrics_port,
        "metrics_dir": str(folder / "metrics"),
        "environments_dir": str(folder / "environments"),
        "parallel_workers": options.workers,
    }
    model: dict[str, Any] = {"name": options.name, "parameters": {"version": "1"}}
    if options.runtime == "custom":
        model["implementation"] = "benchmarks.peers.mlserver_model.ChurnModel"
        model["parameters"]["uri"] = str(options.bundle.resolve())
        model["inputs"] = [
            {"name": name, "datatype": datatype, "shape": [-1]}
            for name, datatype in read_datatypes(options.bundle).items()
        ]
        model["outputs"] = [
            {"name": "churn_probability", "datatype": "FP64", "shape": [-1, 1]},
            {"name": "churn", "datatype": "BOOL", "shape": [-1, 1]},
        ]
    else:
        model["implementation"] = "mlserver_xgboost.XGBoostModel"
        model["parameters"]["uri"] = str((options.bundle / "model.ubj").resolve())
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--name", default="telco")
    parser.add_argument("--runtime", choices=["custom", "xgboost"], default="custom")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tenure-mlserver-", ignore_cleanup_errors=True) as folder:
        write_settings(Path(folder), options)
        sys.argv = ["mlserver", "start", folder]
        start()


if __name__ == "__main__":
    main()
