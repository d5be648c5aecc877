"""A short way to enter malformed gRPC requests: a message that is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oip_conformance.checks import Level, Tolerance, malformed
from oip_conformance.clauses import Clause
from oip_conformance.errors import NotApplicableError
from oip_conformance.rpc import RpcRequest
from oip_conformance.session import Session

Spoil = Callable[[Session, Any], Any]


def enter_message(
    id_: str,
    level: Level,
    clause: Clause,
    text: str,
    spoil: Spoil,
    tolerance: Tolerance = Tolerance.REFUSE,
    raw: bool | None = None,
) -> None:
    """Enter a request whose message is changed in place; `raw` as in `Session.make_message`."""

    def build(session: Session) -> RpcRequest:
        if session.rpc is None:
            raise NotApplicableError("no address of gRPC was given")
        message = session.make_message(raw=raw)
        spoil(session, message)
        return RpcRequest(message, text)

    malformed(f"grpc.malformed.{id_}", level, clause, text, tolerance)(build)
