"""gRPC's own server with a handler that only remembers: what is left of a request when nothing is computed.

    python -m benchmarks.peers.grpc_floor --bundle DIR --port 8080 --grpc-port 8081

A message is answered by the trees when it comes for the first time, and from memory ever after. `/` of the
HTTP port answers 200 when it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import grpc
import uvloop
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest, ModelInferResponse

from benchmarks.peers.trees import Trees

LOOPBACK = "127.0.0.1"


class Memory:
    """Answers what it has been asked before."""

    def __init__(self, directory: Path) -> None:
        self._trees = Trees(directory)
        self._answers: dict[bytes, bytes] = {}

    async def infer(self, message: bytes, _: Any) -> bytes:
        answer = self._answers.get(message)
        if answer is None:
            answer = self._answers[message] = self._compute(message)
        return answer

    def _compute(self, message: bytes) -> bytes:
        request = ModelInferRequest.FromString(message)
        columns = {entry.name: list(entry.contents.ListFields()[0][1]) for entry in request.inputs}
        scores = self._trees.score(columns)
        response = ModelInferResponse(model_name=request.model_name)
        output = response.outputs.add(name="churn_probability", datatype="FP64", shape=[len(scores)])
        output.contents.fp64_contents.extend(scores.tolist())
        return bytes(response.SerializeToString())


async def answer_ready(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def serve(options: argparse.Namespace) -> None:
    memory = Memory(options.bundle)
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(memory.infer)
    server.add_registered_method_handlers("inference.GRPCInferenceService", {"ModelInfer": handler})
    server.add_insecure_port(f"{LOOPBACK}:{options.grpc_port}")
    await server.start()
    async with await asyncio.start_server(answer_ready, LOOPBACK, options.port):
        await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
