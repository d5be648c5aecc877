"""Every check passes on a server that keeps the protocol, and fails on one that does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from tiny_model import GOOD, NAME
from tiny_server import Mode, run_tiny

from oip_conformance.checks import Check, Failure, Finding, Level, Tolerance, Verdict, list_checks
from oip_conformance.runner import run_checks
from oip_conformance.session import open_session
from oip_conformance.target import Target

CHECKS = list_checks()
MALFORMED = [check for check in CHECKS if check.malformed]
RULES = [check for check in CHECKS if not check.malformed]


def run(mode: Mode, checks: Iterable[Check], example: Path) -> dict[str, Finding]:
    with run_tiny(mode) as server:
        target = Target(server.url, server.address, NAME, example, seconds=3, oversize=200_000)
        with open_session(target) as session:
            return {check.id: finding for check, finding in run_checks(session, checks)}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("example") / "example.json"
    file.write_bytes(GOOD)
    return file


def tell(found: dict[str, Finding], wanted: Callable[[Check], bool], failure: Failure) -> dict[str, str]:
    """Return the checks that should have failed so and did not, with what they found."""
    return {
        check.id: f"{found[check.id].failure or found[check.id].verdict}: {found[check.id].came}"
        for check in MALFORMED
        if wanted(check) and found[check.id].failure is not failure
    }


def test_identifiers_say_transport_and_kind() -> None:
    for check in CHECKS:
        assert check.id.split(".")[0] in ("rest", "binary", "grpc")
        assert (".malformed." in check.id) == check.malformed
        assert check.rule
        assert check.clause.section
    assert Counter(check.malformed for check in CHECKS) == {True: len(MALFORMED), False: len(RULES)}
    assert len(MALFORMED) > 200
    assert len(RULES) > 50


def test_a_server_that_keeps_the_protocol_passes_every_check(example: Path) -> None:
    found = run(Mode.RIGHT, CHECKS, example)
    wrong = {name: one.came for name, one in found.items() if one.verdict is not Verdict.PASS}
    assert wrong == {}


def test_every_malformed_check_tells_a_5xx(example: Path) -> None:
    assert tell(run(Mode.FAILS, MALFORMED, example), lambda _: True, Failure.SERVER_ERROR) == {}


def test_every_malformed_check_that_wants_a_refusal_tells_a_wrong_200(example: Path) -> None:
    found = run(Mode.ACCEPTS, MALFORMED, example)
    strict = lambda check: check.tolerance is not Tolerance.ANSWER_OR_REFUSE  # noqa: E731
    assert tell(found, strict, Failure.ACCEPTED) == {}


def test_every_tolerant_check_tells_a_200_that_is_no_answer(example: Path) -> None:
    found = run(Mode.GARBLES, MALFORMED, example)
    assert tell(found, lambda _: True, Failure.ACCEPTED) == {}


def test_every_check_tells_a_closed_connection_where_an_answer_is_due(example: Path) -> None:
    found = run(Mode.CLOSES, MALFORMED, example)
    due = lambda check: check.tolerance is not Tolerance.REFUSE_OR_CLOSE  # noqa: E731
    assert tell(found, due, Failure.SILENT) == {}


def test_every_check_tells_a_refusal_that_does_not_say_why(example: Path) -> None:
    found = run(Mode.MUTE, MALFORMED, example)
    assert tell(found, lambda check: check.has_message, Failure.MESSAGE) == {}


def test_a_server_that_is_hurt_is_told_and_not_asked_again(example: Path) -> None:
    found = run(Mode.DIES, MALFORMED[:20], example)
    assert {one.failure for one in found.values()} == {Failure.HURT}
    assert found[MALFORMED[1].id].came.startswith("not asked")


def test_every_rule_can_fail(example: Path) -> None:
    failed = set()
    for mode in (Mode.ACCEPTS, Mode.LIES, Mode.FAILS):
        found = run(mode, RULES, example)
        failed |= {name for name, one in found.items() if one.verdict is Verdict.FAIL}
    assert {check.id for check in RULES} - failed == set()


def test_binding_and_advised_rules_are_both_there() -> None:
    assert {check.level for check in MALFORMED} == {check.level for check in RULES} == set(Level)
