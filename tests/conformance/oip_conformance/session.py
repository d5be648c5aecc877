"""One server under test: what it says of itself and of its model, a good request, and the answer to that."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

from oip_conformance import answers
from oip_conformance.answers import Answer
from oip_conformance.datatypes import pack
from oip_conformance.errors import BrokenError, NotApplicableError, UsageError
from oip_conformance.example import Example, guess_example, read_example
from oip_conformance.messages import MESSAGES
from oip_conformance.rest import JSON_TYPE, RestClient, RestReply, RestRequest
from oip_conformance.rpc import RpcClient, RpcReply, RpcRequest
from oip_conformance.target import Target

BINARY_EXTENSION = "binary_tensor_data"


@dataclass
class Session:
    """The server's addresses and what was learnt; remembers the last exchange for the scorecard."""

    target: Target
    rest: RestClient
    rpc: RpcClient | None
    model: str
    example: Example
    server_metadata: Mapping[str, Any]
    model_metadata: Mapping[str, Any]
    sent: str = field(default="", init=False)
    came: str = field(default="", init=False)

    @property
    def path(self) -> str:
        """Path of the model."""
        return f"v2/models/{quote(self.model, safe='')}"

    @cached_property
    def baseline(self) -> Answer:
        """The answer to the good request over REST."""
        return self.ask(self.example)

    @cached_property
    def rpc_baseline(self) -> Answer | None:
        """The answer to the good request over gRPC; None if it gets none, or there is no gRPC."""
        if self.rpc is None:
            return None
        try:
            return self.call_infer()
        except BrokenError:
            return None

    def send(self, request: RestRequest) -> RestReply:
        """Send over REST."""
        if not request.path and request.raw is None:
            request = RestRequest(
                request.body, request.note, request.method, f"{self.path}/infer", request.headers
            )
        self.sent = request.describe()
        reply = self.rest.send(request)
        self.came = reply.describe()
        return reply

    def get(self, path: str) -> RestReply:
        """Ask for a document."""
        return self.send(RestRequest(method="GET", path=path, headers={}))

    def get_json(self, path: str) -> Any:
        """Ask for a document that has to be there.

        Raises:
            BrokenError: The status is not 200, or the body is not JSON.
        """
        reply = self.get(path)
        if reply.status != 200:
            raise BrokenError(f"expected 200, got {reply.describe()}")
        return reply.read_json()

    def post(self, document: Any, path: str = "") -> RestReply:
        """Send an inference request that is JSON."""
        return self.send(RestRequest(json.dumps(document).encode(), path=path))

    def ask(self, example: Example, path: str = "", **more: Any) -> Answer:
        """Ask for predictions.

        Raises:
            BrokenError: There is no answer, or none that is well-formed.
        """
        return answers.read_rest(self.post(example.to_json(**more), path))

    def call(self, method: str, **fields: Any) -> RpcReply:
        """Call a method over gRPC."""
        return self.send_rpc(RpcRequest(MESSAGES[f"{method}Request"](**fields), method=method))

    def send_rpc(self, request: RpcRequest) -> RpcReply:
        """Send over gRPC."""
        if self.rpc is None:
            raise NotApplicableError("no address of gRPC was given")
        self.sent = request.describe()
        reply = self.rpc.send(request)
        self.came = reply.describe()
        return reply

    def call_infer(self, message: Any = None) -> Answer:
        """Ask for predictions over gRPC; without a message, for the good request's.

        Raises:
            BrokenError: The status is not OK, or the answer is not well-formed.
        """
        reply = self.send_rpc(RpcRequest(self.make_message() if message is None else message))
        if not reply.ok:
            raise BrokenError(f"expected OK, got {reply.describe()}")
        return answers.read_rpc(reply.message)

    def make_message(self, example: Example | None = None, raw: bool | None = None) -> Any:
        """Return a ModelInferRequest; raw if asked for, or where a datatype has no field."""
        example = example or self.example
        if raw is None:
            raw = any(not tensor.type.field for tensor in example.inputs)
        message = MESSAGES["ModelInferRequest"](model_name=self.model)
        for tensor in example.inputs:
            entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            if raw:
                message.raw_input_contents.append(pack(tensor.type, tensor.data))
            else:
                values = [value.encode() if isinstance(value, str) else value for value in tensor.data]
                getattr(entry.contents, tensor.type.field).extend(values)
        return message

    def need_binary(self) -> None:
        """Pass over a check if the server does not announce binary tensors."""
        extensions = self.server_metadata.get("extensions") or []
        if BINARY_EXTENSION not in extensions:
            raise NotApplicableError(f"the server does not announce {BINARY_EXTENSION}")

    def find(self, *kinds: str) -> int:
        """Return the position of the first input of one of these kinds."""
        position = self.example.find(*kinds)
        if position is None:
            raise NotApplicableError(f"the request has no input of the kind {' or '.join(kinds)}")
        return position

    def takes_batches(self) -> bool:
        """Whether the metadata announce a variable first dimension for each input of the example."""
        listed = self.model_metadata.get("inputs")
        entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        shapes = {one.get("name"): one.get("shape") for one in entries}
        return all((shapes.get(tensor.name) or [0])[0] == -1 for tensor in self.example.inputs)

    def list_versions(self) -> list[str]:
        """Return the versions that the model's metadata announce."""
        versions = self.model_metadata.get("versions")
        return [one for one in versions if isinstance(one, str)] if isinstance(versions, list) else []


@contextlib.contextmanager
def open_session(target: Target) -> Iterator[Session]:
    """Connect, learn the model from its metadata, and see that a good request is answered.

    Raises:
        UsageError: There is no server, no one model, or the good request gets no answer to build on.
    """
    with contextlib.ExitStack() as stack:
        rest = stack.enter_context(RestClient(target.url, target.seconds))
        rpc = stack.enter_context(RpcClient(target.grpc, target.seconds)) if target.grpc else None
        server = _look(rest, "v2")
        model = target.model or _find_model(rest)
        metadata = _look(rest, f"v2/models/{quote(model, safe='')}")
        example = read_example(target.example) if target.example else _guess(metadata)
        session = Session(target, rest, rpc, model, example, server, metadata)
        try:
            session.baseline  # noqa: B018 - asks
        except BrokenError as error:
            raise UsageError(
                f"the good request is not answered, so that nothing can be learnt from others: {error}; "
                "give one that is with --example FILE"
            ) from error
        yield session


def _look(rest: RestClient, path: str) -> Mapping[str, Any]:
    """Return a document of the server; none if it has none, which is for the rules to judge."""
    reply = rest.get(path)
    if reply.status is None:
        raise UsageError(f"{path}: {reply.problem}: is the server there?")
    try:
        document = reply.read_json() if reply.status == 200 else {}
    except BrokenError:
        return {}
    return document if isinstance(document, dict) else {}


def _find_model(rest: RestClient) -> str:
    """Ask for the names of the models; no standard says how, these two ways are common."""
    names: list[Any] = []
    listed = _look(rest, "v2/models").get("models")
    if isinstance(listed, list):
        names = listed
    else:
        reply = rest.send(RestRequest(b"{}", path="v2/repository/index", headers={"Content-Type": JSON_TYPE}))
        with contextlib.suppress(BrokenError):
            index = reply.read_json() if reply.status == 200 else None
            if isinstance(index, list):
                names = [one.get("name") for one in index if isinstance(one, dict)]
    if len(names) == 1 and isinstance(names[0], str):
        return names[0]
    found = f"the server lists {', '.join(map(str, names))}" if names else "the server lists no models"
    raise UsageError(f"{found}: say which with --model NAME")


def _guess(metadata: Mapping[str, Any]) -> Example:
    try:
        return guess_example(metadata.get("inputs") or [])
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the model's metadata describe no tensors ({error!r}): give --example FILE"
        ) from error
