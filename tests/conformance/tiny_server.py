"""A tiny server that keeps the protocol, or breaks it in the way that it is told.

It shows that every check can pass, and that every check can fail.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import grpc
from tiny_model import (
    GARBAGE,
    GOOD,
    GOOD_MESSAGE,
    INFER_PATHS,
    INPUTS,
    METADATA,
    MODEL_PATHS,
    NAME,
    OUTPUTS,
    READER,
    SERVER,
    VERSION,
    Refusal,
    predict,
    understand,
)

from oip_conformance.datatypes import pack
from oip_conformance.errors import BrokenError
from oip_conformance.messages import MESSAGES as M
from oip_conformance.messages import METHODS, SERVICE
from oip_conformance.reader import UnjudgedError
from oip_conformance.rest import BINARY_TYPE, HEADER_LENGTH, JSON_TYPE, RestRequest

MOST_BYTES = 150_000


class Mode(StrEnum):
    """What the server does with all but the good request of its example."""

    RIGHT = "right"
    ACCEPTS = "accepts"
    """Answers everything as if it were the good request; a document after its first time is empty."""
    GARBLES = "garbles"
    """Answers 200 with nonsense."""
    FAILS = "fails"
    """Answers 500."""
    MUTE = "mute"
    """Refuses without saying why."""
    CLOSES = "closes"
    """Closes the connection."""
    DIES = "dies"
    """Answers 500, from then on to the good request too."""
    LIES = "lies"
    """Answers the first good request only; then nonsense, and has no documents."""


def answer_rest(path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    if path not in INFER_PATHS:
        raise Refusal(404, f"{path[:80]} is not here")
    if headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "the body is compressed")
    if headers.get("content-type") not in (JSON_TYPE, BINARY_TYPE):
        raise Refusal(415, "the body is said not to be JSON")
    length = headers.get(HEADER_LENGTH.lower())
    request = RestRequest(body, headers={} if length is None else {HEADER_LENGTH: length})
    try:
        reading = READER.read_rest(request)
    except (BrokenError, UnjudgedError) as error:
        raise Refusal(400, str(error)) from error
    document = json.loads(body if length is None else body[: int(length)])
    everything = read_switches(document.get("parameters") or {}, "binary_data_output")
    predicted = predict(understand(reading))
    own = {one["name"]: one.get("parameters") or {} for one in document.get("outputs") or []}
    outputs, tail = [], []
    for name in dict.fromkeys(reading.outputs or predicted):
        switch = read_switches(own.get(name, {}), "binary_data")
        entry = predicted[name].to_json()
        if everything if switch is None else switch:
            raw = pack(predicted[name].type, entry.pop("data"))
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        outputs.append(entry)
    said = {"model_name": NAME, "model_version": VERSION, "outputs": outputs}
    if document.get("id") is not None:
        said["id"] = document["id"]
    head = json.dumps(said).encode()
    if not tail:
        return head, {"Content-Type": JSON_TYPE}
    return head + b"".join(tail), {"Content-Type": BINARY_TYPE, HEADER_LENGTH: str(len(head))}


def read_switches(parameters: dict[str, Any], name: str) -> bool | None:
    for value in parameters.values():
        if isinstance(value, dict | list):
            raise Refusal(400, "a parameter is no string, number or boolean")
    value = parameters.get(name)
    if not isinstance(value, bool | None):
        raise Refusal(400, f"{name} is {value!r}")
    return value


def find_document(path: str) -> Any:
    base = next((one for one in MODEL_PATHS if path == one or path == f"{one}/ready"), None)
    if base is not None:
        return METADATA if path == base else {"name": NAME, "ready": True}
    known = {"/v2": SERVER, "/v2/health/live": {"live": True}, "/v2/health/ready": {"ready": True}}
    if path not in known:
        raise Refusal(404, f"{path} is not here")
    return known[path]


class Handler(BaseHTTPRequestHandler):
    """REST."""

    protocol_version = "HTTP/1.1"
    timeout = 5
    wbufsize = -1  # head and body in one packet, or the client's delayed acknowledgement costs 40 ms
    server: TinyServer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server refuses by itself."""
        self.close_connection = True
        self._finish(False, lambda: self._refuse(Refusal(code, message or "refused")))

    def do_GET(self) -> None:
        first = self.path not in self.server.seen
        self.server.seen.add(self.path)
        try:
            document = find_document(self.path)
        except Refusal as refusal:
            self._finish(False, lambda refusal=refusal: self._refuse(refusal), b"{}")
            return
        learning = first and self.path in ("/v2", MODEL_PATHS[0])
        answer = lambda: self._send(200, json.dumps(document).encode())  # noqa: E731
        if learning:
            answer()
        else:
            self._finish(False, answer, b"{}")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._finish(False, lambda: self._refuse(Refusal(405, "PUT is not for this")))

    def do_POST(self) -> None:
        try:
            body = self._read()
        except Refusal as refusal:
            self.close_connection = True
            self._finish(False, lambda refusal=refusal: self._refuse(refusal))
            return
        headers = {key.lower(): value for key, value in self.headers.items()}
        plain = headers.get("content-type") == JSON_TYPE and not {
            "content-encoding",
            HEADER_LENGTH.lower(),
        } & set(headers)
        good = body == GOOD and self.path == INFER_PATHS[0] and plain

        def answer() -> None:
            try:
                text, more = answer_rest(self.path, body, headers)
            except Refusal as refusal:
                self._refuse(refusal)
            else:
                self._send(200, text, **more)

        self._finish(good, answer)

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding"):
            if self.headers.get("Content-Length"):
                raise Refusal(400, "two lengths")
            return self._read_chunks()
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit():
            raise Refusal(400, f"Content-Length is {length!r}")
        if int(length) > MOST_BYTES:
            self.rfile.read(int(length))
            raise Refusal(413, "the body is too large")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refusal(400, "the body ends too soon")
        return body

    def _read_chunks(self) -> bytes:
        parts = []
        while True:
            try:
                size = int(self.rfile.readline().strip(), 16)
            except ValueError as error:
                raise Refusal(400, "a chunk without a size") from error
            part = self.rfile.read(size)
            if len(part) < size or self.rfile.readline() != b"\r\n":
                raise Refusal(400, "a chunk ends too soon")
            if not size:
                return b"".join(parts)
            parts.append(part)

    def _finish(self, good: bool, answer: Any, empty: bytes | None = None) -> None:
        """Answer as the mode says; `empty` is what stands for the good answer to a document."""
        mode = self.server.decide(good)
        if mode is Mode.RIGHT:
            answer()
        elif mode is Mode.CLOSES:
            self.close_connection = True
        elif mode in (Mode.FAILS, Mode.DIES):
            self._send(500, b'{"error": "broken"}')
        elif mode is Mode.MUTE:
            self._send(400, b"no")
        elif mode is Mode.ACCEPTS:
            self._send(200, empty or answer_rest(INFER_PATHS[0], GOOD, {"content-type": JSON_TYPE})[0])
        elif empty is not None and mode is Mode.LIES:
            self._send(404, b"{}")
        else:
            self._send(200, empty or GARBAGE)

    def _refuse(self, refusal: Refusal) -> None:
        self._send(refusal.status, json.dumps({"error": str(refusal)}).encode())

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for key, value in ({"Content-Type": JSON_TYPE} | headers).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """gRPC."""

    def __init__(self, server: TinyServer) -> None:
        self._server = server

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if details.method != f"/{SERVICE}/{name}" or (
            name not in METHODS and self._server.mode is Mode.RIGHT
        ):
            return None
        return grpc.unary_unary_rpc_method_handler(lambda raw, context: self._handle(name, raw, context))

    def _handle(self, name: str, raw: bytes, context: grpc.ServicerContext) -> bytes:
        good = name == "ModelInfer" and raw == GOOD_MESSAGE
        mode = self._server.decide(good)
        if mode is Mode.RIGHT:
            return self._answer(name, raw, context)
        if mode is Mode.ACCEPTS:
            if name in METHODS[:5]:
                return b"\x08\x01" if name == "ModelReady" else b""  # field 1 is true
            return infer_rpc(M["ModelInferRequest"].FromString(GOOD_MESSAGE))
        if mode is Mode.CLOSES:
            context.abort(grpc.StatusCode.UNAVAILABLE, "closed")
        if mode is Mode.MUTE:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "")
        if mode in (Mode.FAILS, Mode.DIES):
            context.abort(grpc.StatusCode.UNKNOWN, "broken")
        response = M["ModelInferResponse"]()
        response.outputs.add(name="total", datatype="FP64", shape=[7]).contents.fp64_contents.append(1)
        return response.SerializeToString() if name not in METHODS[:5] else b""

    def _answer(self, name: str, raw: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            request = M[f"{name}Request"].FromString(raw)
            return answer_rpc(name, request)
        except Refusal as refusal:
            code = grpc.StatusCode.NOT_FOUND if refusal.status == 404 else grpc.StatusCode.INVALID_ARGUMENT
            context.abort(code, str(refusal))
        except Exception as error:  # noqa: BLE001 - protobuf's DecodeError has no common base
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no message: {error}")
        raise AssertionError


def answer_rpc(name: str, request: Any) -> bytes:
    if name.startswith("Model") and name != "ModelInfer":
        if request.name != NAME or request.version not in ("", VERSION):
            raise Refusal(404, "no such model")
        if name == "ModelReady":
            return M["ModelReadyResponse"](ready=True).SerializeToString()
        response = M["ModelMetadataResponse"](name=NAME, versions=[VERSION], platform="tiny_sum")
        for tensors, entries in ((response.inputs, INPUTS), (response.outputs, OUTPUTS)):
            for entry in entries:
                tensors.add(**entry)
        return response.SerializeToString()
    if name == "ServerMetadata":
        return M["ServerMetadataResponse"](**SERVER).SerializeToString()
    if name == "ModelInfer":
        return infer_rpc(request)
    return M[f"{name}Response"](**{name.removeprefix("Server").lower(): True}).SerializeToString()


def infer_rpc(request: Any) -> bytes:
    try:
        reading = READER.read_rpc(request)
    except (BrokenError, UnjudgedError) as error:
        raise Refusal(404 if "another" in str(error) else 400, str(error)) from error
    predicted = predict(understand(reading))
    response = M["ModelInferResponse"](model_name=NAME, model_version=VERSION, id=request.id)
    raw = bool(request.raw_input_contents)
    for name in dict.fromkeys(reading.outputs or predicted):
        tensor = predicted[name]
        entry = response.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            response.raw_output_contents.append(pack(tensor.type, tensor.data))
        else:
            values = [one.encode() if isinstance(one, str) else one for one in tensor.data]
            getattr(entry.contents, tensor.type.field).extend(values)
    return response.SerializeToString()


class TinyServer(ThreadingHTTPServer):
    """Both transports of one server."""

    daemon_threads = True

    def __init__(self, mode: Mode) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode = mode
        self.seen: set[str] = set()
        self._goods = 0
        self._dead = False
        self.rpc = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        self.rpc.add_generic_rpc_handlers((Service(self),))
        self.grpc_port = self.rpc.add_insecure_port("127.0.0.1:0")

    def decide(self, good: bool) -> Mode:
        """Return how this request is answered; the good one rightly, unless the mode says otherwise."""
        self._goods += good
        if self.mode is Mode.DIES:
            self._dead = self._dead or not good
            return Mode.DIES if self._dead else Mode.RIGHT
        if self.mode is Mode.LIES:
            return Mode.RIGHT if good and self._goods == 1 else Mode.LIES
        return Mode.RIGHT if good else self.mode

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"


@contextlib.contextmanager
def run_tiny(mode: Mode) -> Iterator[TinyServer]:
    """Run a server in this process."""
    with TinyServer(mode) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        server.rpc.start()
        try:
            yield server
        finally:
            server.rpc.stop(None).wait()
            server.shutdown()
            thread.join()
