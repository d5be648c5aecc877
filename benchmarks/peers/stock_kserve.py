"""KServe's own model server with a Model as its documentation shows one.

    python -m benchmarks.peers.stock_kserve --bundle DIR --port 8080 --grpc-port 8081 [--name telco] [--logs]

Its logs are off unless --logs is given: as it comes it writes four lines a request.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import grpc
import kserve
from kserve import InferOutput, InferRequest, InferResponse, model_server
from kserve.protocol.rest.server import RESTServer

from benchmarks.peers.trees import Trees

LOOPBACK = "127.0.0.1"


class ChurnModel(kserve.Model):  # type: ignore[misc]
    """The bundle's trees behind the documented interface."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name)
        self._directory = directory
        self.load()

    def load(self) -> bool:
        self._trees = Trees(self._directory)
        self.ready = True
        return self.ready

    def get_input_types(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "datatype": datatype, "shape": [-1]}
            for name, datatype in self._trees.datatypes.items()
        ]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [
            {"name": "churn_probability", "datatype": "FP64", "shape": [-1]},
            {"name": "churn", "datatype": "BOOL", "shape": [-1]},
        ]

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        scores = self._trees.score({entry.name: entry.as_numpy() for entry in payload.inputs})
        churn = scores >= self._trees.threshold
        return InferResponse(
            response_id=payload.id or "",
            model_name=self.name,
            infer_outputs=[
                InferOutput("churn_probability", [len(scores)], "FP64", scores.tolist()),
                InferOutput("churn", [len(scores)], "BOOL", churn.tolist()),
            ],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


def stay_on_loopback(logs: bool) -> None:
    """Bind to loopback: kserve listens on every address of the machine, and has no setting for it."""

    class Loopback(RESTServer):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.config.host = LOOPBACK
            self.config.access_log = logs

    def make_server(*arguments: Any, **more: Any) -> grpc.aio.Server:
        server = make(*arguments, **more)
        bind = server.add_insecure_port
        server.add_insecure_port = lambda address: bind(address.replace("[::]", LOOPBACK))
        return server

    model_server.RESTServer = Loopback
    make = grpc.aio.server
    grpc.aio.server = make_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--name", default="telco")
    parser.add_argument("--logs", action="store_true")
    options = parser.parse_args()
    stay_on_loopback(options.logs)
    if not options.logs:
        logging.getLogger("kserve").addHandler(logging.NullHandler())
        logging.getLogger("kserve").setLevel(logging.WARNING)
        logging.getLogger("uvicorn.access").disabled = True
    server = kserve.ModelServer(
        http_port=options.port, grpc_port=options.grpc_port, enable_latency_logging=options.logs
    )
    server.start([ChurnModel(options.name, options.bundle)])


if __name__ == "__main__":
    main()
