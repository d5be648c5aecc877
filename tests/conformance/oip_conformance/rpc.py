"""gRPC as the kit speaks it: the protocol's messages, or any bytes in their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError

from oip_conformance.messages import MESSAGES, SERVICE
from oip_conformance.rest import shorten

_LARGEST = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """One call; `message` is a protobuf message, or bytes that may be none."""

    message: Any
    note: str = ""
    method: str = "ModelInfer"
    service: str = SERVICE

    def describe(self) -> str:
        """Return the call in short."""
        return self.note or f"{self.method} {shorten(str(self.message))}".strip()


@dataclass(frozen=True, slots=True)
class RpcReply:
    """What came: a message with the status OK, or another status and its details."""

    code: grpc.StatusCode
    message: Any = None
    details: str = ""

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return self.code is grpc.StatusCode.OK

    def describe(self) -> str:
        """Return the answer in short."""
        return f"{self.code.name} {shorten(str(self.message) if self.ok else self.details)}".strip()


class RpcClient:
    """Calls one server, without TLS."""

    def __init__(self, address: str, seconds: float) -> None:
        """Take `HOST:PORT`; `seconds` bound each call."""
        self._seconds = seconds
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_send_message_length", _LARGEST),
                ("grpc.max_receive_message_length", _LARGEST),
                # After a server closed the connection, the next call connects again at once.
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
            ],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def call(self, method: str, **fields: Any) -> RpcReply:
        """Call a method with a message of these fields."""
        return self.send(RpcRequest(MESSAGES[f"{method}Request"](**fields), method=method))

    def send(self, request: RpcRequest, wait: bool = False) -> RpcReply:
        """Call; with `wait` until the server is reachable, within the time that is allowed."""
        serialize: Callable[[Any], bytes] = _serialize
        call = self._channel.unary_unary(
            f"/{request.service}/{request.method}", request_serializer=serialize, response_deserializer=None
        )
        try:
            raw = call(request.message, timeout=self._seconds, wait_for_ready=wait)
        except grpc.RpcError as error:
            return RpcReply(error.code(), None, error.details() or "")
        kind = MESSAGES.get(f"{request.method}Response")
        if kind is None:
            return RpcReply(grpc.StatusCode.OK, raw)
        message = kind()
        try:
            message.ParseFromString(raw)
        except DecodeError as error:
            return RpcReply(grpc.StatusCode.DATA_LOSS, None, f"the answer is no {kind.__name__}: {error}")
        return RpcReply(grpc.StatusCode.OK, message)


def _serialize(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
