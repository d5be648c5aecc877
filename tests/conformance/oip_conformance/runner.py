"""Runs the checks, one after the other, and sees after each malformed request that the server is unhurt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from oip_conformance import answers
from oip_conformance.checks import Check, Failure, Finding, Tolerance, Verdict
from oip_conformance.errors import BrokenError, NotApplicableError
from oip_conformance.grpc_rules import CALLER
from oip_conformance.rest import RestReply, RestRequest
from oip_conformance.rpc import RpcReply, RpcRequest
from oip_conformance.session import Session

_PAUSE = 0.2
_CLOSED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED"}


def run_checks(session: Session, checks: Iterable[Check]) -> Iterator[tuple[Check, Finding]]:
    """Run the checks; after the server is gone for good, the others fail without being asked."""
    gone = ""
    for check in checks:
        if gone:
            finding = Finding(Verdict.FAIL, "nothing", f"not asked: {gone}", Failure.HURT)
        else:
            finding = _run(session, check)
            if finding.failure is Failure.HURT and not _recovers(session):
                gone = f"the server answers no more since {check.id}"
        yield check, finding


def _run(session: Session, check: Check) -> Finding:
    session.sent = session.came = ""
    if check.transport == "grpc" and session.rpc is None:
        return Finding(Verdict.NOT_APPLICABLE, "", "no address of gRPC was given")
    try:
        built = check.build(session)
        if not check.malformed:
            return Finding(Verdict.PASS, session.sent, session.came)
        return _judge(session, check, built)
    except NotApplicableError as error:
        return Finding(Verdict.NOT_APPLICABLE, session.sent, str(error))
    except BrokenError as error:
        return Finding(Verdict.FAIL, session.sent, str(error), Failure.BROKEN)


def _judge(session: Session, check: Check, request: RestRequest | RpcRequest) -> Finding:
    """Send a malformed request, judge its answer, and see whether a good one is still answered."""
    if isinstance(request, RpcRequest) and session.rpc_baseline is None:
        raise NotApplicableError("the good request gets no answer over gRPC: see grpc.infer")
    if isinstance(request, RestRequest):
        failure = _judge_rest(check, session.send(request))
    else:
        failure = _judge_rpc(check, session.send_rpc(request))
    sent, came = session.sent, session.came
    hurt = _find_hurt(session, isinstance(request, RpcRequest))
    if hurt:
        return Finding(Verdict.FAIL, sent, f"{came}; then a good request: {hurt}", Failure.HURT)
    return Finding(Verdict.FAIL if failure else Verdict.PASS, sent, came, failure)


def _judge_rest(check: Check, reply: RestReply) -> Failure | None:
    status = reply.status
    if status is None:
        closed = reply.closed and check.tolerance is Tolerance.REFUSE_OR_CLOSE
        return None if closed else Failure.SILENT
    if status >= 500:
        return Failure.SERVER_ERROR
    if status >= 400:
        return Failure.MESSAGE if check.has_message and reply.find_error() is None else None
    if check.tolerance is not Tolerance.ANSWER_OR_REFUSE:
        return Failure.ACCEPTED
    return _judge_answer(lambda: answers.read_rest(reply))


def _judge_rpc(check: Check, reply: RpcReply) -> Failure | None:
    name = reply.code.name
    if reply.ok:
        if check.tolerance is not Tolerance.ANSWER_OR_REFUSE:
            return Failure.ACCEPTED
        return _judge_answer(lambda: answers.read_rpc(reply.message))
    if name in CALLER or (name == "INTERNAL" and "INTERNAL" in check.clause.section):
        return None if reply.details.strip() else Failure.MESSAGE
    return Failure.SILENT if name in _CLOSED else Failure.SERVER_ERROR


def _judge_answer(read: Callable[[], object]) -> Failure | None:
    try:
        read()
    except BrokenError:
        return Failure.ACCEPTED
    return None


def _find_hurt(session: Session, rpc: bool) -> str:
    """Say what is wrong with the answer to a good request; nothing if it is right."""
    try:
        if rpc:
            answers.compare(session.call_infer(), session.rpc_baseline or {})
        else:
            answers.compare(session.ask(session.example), session.baseline)
    except BrokenError as error:
        return str(error)
    return ""


def _recovers(session: Session) -> bool:
    """Wait for the server, no longer than for one request."""
    deadline = time.monotonic() + session.target.seconds
    while time.monotonic() < deadline:
        try:
            session.ask(session.example)
        except BrokenError:
            time.sleep(_PAUSE)
        else:
            return True
    return False
