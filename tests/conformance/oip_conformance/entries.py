"""Short ways to enter malformed REST requests: another document, another first input, another value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oip_conformance.checks import Level, Tolerance, malformed
from oip_conformance.clauses import Clause
from oip_conformance.example import Tensor
from oip_conformance.rest import RestRequest
from oip_conformance.session import Session
from oip_conformance.spoiling import PLACE, post, replace_input, replace_value

FIRST = PLACE.format(0)

Document = Any
Spoil = Callable[[Session], Document]


def enter_document(
    id_: str, level: Level, clause: Clause, text: str, tolerance: Tolerance = Tolerance.REFUSE
) -> Callable[[Spoil], Spoil]:
    """Enter a function that returns the request's document."""

    def mark(spoil: Spoil) -> Spoil:
        def build(session: Session) -> RestRequest:
            return post(text, spoil(session))

        malformed(f"rest.malformed.{id_}", level, clause, text, tolerance)(build)
        return spoil

    return mark


def enter_first(
    id_: str, level: Level, clause: Clause, text: str, make: Callable[[Tensor], dict[str, Any]]
) -> None:
    """Enter a request whose first input has other members; `...` leaves one out."""

    def build(session: Session) -> RestRequest:
        return post(text, replace_input(session.example, 0, **make(session.example.inputs[0])))

    malformed(f"rest.malformed.{id_}", level, clause, text)(build)


def enter_value(
    id_: str,
    level: Level,
    clause: Clause,
    text: str,
    kinds: tuple[str, ...],
    value: Any,
    tolerance: Tolerance = Tolerance.REFUSE,
    raw: str | None = None,
) -> None:
    """Enter a request with another first value in the first input of these kinds; `raw` is its text."""

    def build(session: Session) -> RestRequest:
        at = session.find(*kinds)
        tensor = session.example.inputs[at]
        document = replace_input(session.example, at, data=replace_value(tensor, FIRST if raw else value))
        return post(text, document, *([raw] if raw else []))

    malformed(f"rest.malformed.{id_}", level, clause, text, tolerance)(build)
