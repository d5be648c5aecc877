"""Sends generated requests, and judges every answer: no 5xx, no silence, no 200 that is wrong.

A 200 is right if the strict reader understands the request too, and the answer is the one that the same rows
get when each is sent by itself in the plainest form (or the one that an oracle of the caller's gives).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from oip_conformance import answers
from oip_conformance.answers import Answer
from oip_conformance.checks import Failure
from oip_conformance.errors import BrokenError
from oip_conformance.example import Example
from oip_conformance.generator import Case, Generator
from oip_conformance.grpc_rules import CALLER
from oip_conformance.reader import Reader, Reading, UnjudgedError
from oip_conformance.rest import RestRequest, shorten
from oip_conformance.session import Session

Oracle = Callable[[Example], Answer]
"""Gives the answer that rows must get, or raises `BrokenError` for rows that must be refused."""

_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Miss:
    """One request that was not answered as it should."""

    case: Case
    failure: str
    came: str


@dataclass
class Tally:
    """What came of the requests."""

    seed: int
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    misses: list[Miss] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every request was answered as it should."""
        return not self.misses


def fuzz(session: Session, count: int, seed: int, oracle: Oracle | None = None) -> Tally:
    """Send the first `count` requests of a seed."""
    generator, reader, tally = Generator(session, seed), Reader(session), Tally(seed)
    oracle = oracle or Rows(session)
    for number in range(count):
        case = generator.make(number)
        outcome, came = _judge(session, reader, oracle, case)
        tally.outcomes[case.transport, outcome] += 1
        if outcome not in _FINE:
            tally.misses.append(Miss(case, outcome, came))
    return tally


_RIGHT, _REFUSED, _COERCED, _UNJUDGED = "right 200", "refused", "right 200, converted", "200, not judged"
_REFUSED_GOOD = "good one refused"
_FINE = {_RIGHT, _REFUSED, _COERCED, _UNJUDGED}


def _judge(session: Session, reader: Reader, oracle: Oracle, case: Case) -> tuple[str, str]:
    """Send a request and return what came of it: an outcome, and the answer in short."""
    request = case.request
    if isinstance(request, RestRequest):
        reply = session.send(request)
        outcome = _sort_status(reply.status, reply.find_error() is not None)
        read: Callable[[], Answer] = lambda: answers.read_rest(reply)  # noqa: E731
        understand: Callable[[], Reading] = lambda: reader.read_rest(request)  # noqa: E731
    else:
        answer = session.send_rpc(request)
        outcome = _sort_code(
            answer.code.name, bool(answer.details.strip()), isinstance(request.message, bytes)
        )
        read = lambda: answers.read_rpc(answer.message)  # noqa: E731
        understand = lambda: reader.read_rpc(request.message)  # noqa: E731
    came = session.came
    if outcome == _REFUSED and case.good:
        return _REFUSED_GOOD, came
    if outcome != _RIGHT:
        return outcome, came
    try:
        reading = understand()
        expected = oracle(reading.example)
        if reading.outputs:
            expected = {name: expected[name] for name in reading.outputs}
        answers.compare(read(), expected)
    except UnjudgedError:
        return _UNJUDGED, came
    except BrokenError as error:
        return Failure.ACCEPTED.value, f"{error}; {came}"
    return (_COERCED if reading.coerced else _RIGHT), came


def _sort_status(status: int | None, message: bool) -> str:
    if status is None:
        return Failure.SILENT.value
    if status == 200:
        return _RIGHT
    if 400 <= status < 500:
        return _REFUSED if message else Failure.MESSAGE.value
    return Failure.SERVER_ERROR.value


def _sort_code(name: str, message: bool, raw: bool) -> str:
    if name == "OK":
        return _RIGHT
    # A message that does not parse is refused by gRPC itself, as INTERNAL or UNKNOWN.
    if name in CALLER or (raw and name in ("INTERNAL", "UNKNOWN")):
        return _REFUSED if message else Failure.MESSAGE.value
    silent = name in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
    return (Failure.SILENT if silent else Failure.SERVER_ERROR).value


class Rows:
    """The oracle that needs nothing but the server: the same rows, each sent alone in the plainest form."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[Any, Answer | BrokenError] = {}
        self._splits = session.takes_batches()
        self._order = [tensor.name for tensor in session.example.inputs]

    def __call__(self, example: Example) -> Answer:
        """Return the rows' answer; raises `BrokenError` if one of them is refused when it comes alone."""
        ordered = {tensor.name: tensor for tensor in example.inputs}
        example = Example(tuple(ordered[name] for name in self._order))
        if not self._splits:
            return self._ask(example)
        return answers.join([self._ask(example.take([row])) for row in range(example.rows)])

    def _ask(self, example: Example) -> Answer:
        key = repr(example)
        if key not in self._known:
            try:
                self._known[key] = self._session.ask(example)
            except BrokenError as error:
                self._known[key] = BrokenError(f"the same row alone: {error}")
        known = self._known[key]
        if isinstance(known, BrokenError):
            raise known
        return known


def render_tally(tally: Tally) -> str:
    """Return the counts, and the first requests that failed."""
    lines = [f"{sum(tally.outcomes.values())} requests of seed {tally.seed}", ""]
    for (transport, outcome), count in sorted(tally.outcomes.items()):
        lines.append(f"{transport:<8} {outcome:<22} {count:>7}")
    for miss in tally.misses[:_MOST_SHOWN]:
        lines += ["", f"{miss.failure}: number {miss.case.number}, {miss.case.transport}: {miss.case.note}"]
        lines += [f"    sent: {_show(miss.case)}", f"    came: {shorten(miss.came, 400)}"]
    if len(tally.misses) > _MOST_SHOWN:
        lines += ["", f"and {len(tally.misses) - _MOST_SHOWN} more"]
    return "\n".join([*lines, "", "nothing wrong" if tally.ok else f"{len(tally.misses)} wrong"])


def _show(case: Case) -> str:
    request = case.request
    return shorten(request.body if isinstance(request, RestRequest) else str(request.message), 400)


def tally_to_json(tally: Tally) -> dict[str, Any]:
    """Return the counts and every request that failed as a document; bodies in hexadecimal digits."""
    return {
        "seed": tally.seed,
        "outcomes": [
            {"transport": transport, "outcome": outcome, "count": count}
            for (transport, outcome), count in sorted(tally.outcomes.items())
        ],
        "misses": [
            {
                "number": miss.case.number,
                "transport": miss.case.transport,
                "failure": miss.failure,
                "note": miss.case.note,
                "body": _dump(miss.case).hex(),
                "came": shorten(miss.came, 1000),
            }
            for miss in tally.misses
        ],
    }


def _dump(case: Case) -> bytes:
    request = case.request
    if isinstance(request, RestRequest):
        return request.body
    return request.message if isinstance(request.message, bytes) else request.message.SerializeToString()
