"""That the chaos test's judge lets nothing pass; no platform is needed for this."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pytest
from chaos_books import Books, Kill, Round
from chaos_schedule import VICTIMS, Gap, plan_blows, read_seeds
from e2e_generator import Answer, Failure
from e2e_load import Report

# A canary's server dies at 10 s, in a blow that is over at 15 s.
DEATH = 10.0


def make_round(*victims: str, held: int = 0) -> Round:
    kills = [Kill(one, 1, DEATH, DEATH, one, DEATH - 0.1, held) for one in victims]
    return Round("blow", 9.9, 15.0, kills)


def make_answer(number: int, at: float, version: str = "canary", seconds: float = 0.01) -> Answer:
    return Answer(at, seconds, version, -1, number)


def judge(entry: Round, *failures: Failure, answers: tuple[Answer, ...] = ()) -> list[str]:
    return Books(Report(list(answers), list(failures)), [entry], 8).check_failures()


CUT = Failure(DEATH + 0.01, "IncompleteReadError: 0 bytes read", 0.02, 1)
LATER = Failure(DEATH + 2.0, "503: no healthy upstream", 0.01, 2)


@pytest.mark.parametrize("victim", ["gateway", "stable", "canary"])
def test_what_was_under_way_may_be_cut(victim: str) -> None:
    assert judge(make_round(victim), CUT) == []


@pytest.mark.parametrize("victim", sorted({*VICTIMS} - {"gateway", "stable", "canary"}))
def test_who_serves_nobody_costs_no_answer(victim: str) -> None:
    assert len(judge(make_round(victim), CUT)) == 1
    assert len(judge(make_round(victim), LATER)) == 1


@pytest.mark.parametrize(
    ("victim", "text", "allowed"),
    [
        ("gateway", "ConnectionRefusedError: [Errno 111]", True),
        ("gateway", "503: no healthy upstream", True),
        ("gateway", "500: Internal Server Error", False),
        ("stable", "503: no healthy upstream", True),
        ("stable", "ConnectionRefusedError: [Errno 111]", False),
        ("stable", "abc: 0.7 for row 3, not 0.2", False),
        ("canary", "503: no healthy upstream", False),
    ],
)
def test_a_refusal_is_allowed_only_while_somebody_is_missed(victim: str, text: str, allowed: bool) -> None:
    found = judge(make_round(victim), LATER._replace(text=text))
    assert (found == []) == allowed


def test_what_hangs_or_comes_when_all_is_whole_is_wrong() -> None:
    assert judge(make_round("stable"), LATER._replace(seconds=6.0, at=DEATH + 7)) != []
    assert judge(make_round("stable"), CUT._replace(text="TimeoutError: ")) != []
    assert judge(make_round("stable"), LATER._replace(at=15.1)) != []
    assert judge(make_round("stable"), LATER._replace(at=9.0)) != []


def check_rows(entry: Round, answers: list[Answer], rows: list[str], **dropped: int) -> list[str]:
    books = Books(Report(answers, [CUT]), [entry], 8)
    frame: Any = pd.DataFrame({"customer_id": rows})
    return books.check_ledger(frame, "m", {"canary": Counter(dropped=2 * dropped.get("dropped", 0))})


def test_each_answer_is_a_row() -> None:
    entry = make_round("store")
    answers = [make_answer(number, 8.0 + number) for number in range(3)]
    assert check_rows(entry, answers, ["m-0", "m-1", "m-2", None, "x-1"]) == []  # type: ignore[list-item]
    assert check_rows(entry, answers, ["m-0", "m-2"]) != []
    assert check_rows(entry, answers, ["m-0", "m-2"], dropped=1) == []
    assert check_rows(entry, answers, ["m-0", "m-1", "m-2", "m-2"]) != []
    assert check_rows(entry, answers, ["m-0", "m-1", "m-2", "m-7"]) != []


def test_a_server_takes_with_it_what_it_held_and_no_more() -> None:
    answers = [make_answer(number, 9.0 + number / 10) for number in range(3)]
    assert check_rows(make_round("canary", held=3), answers, []) == []
    assert check_rows(make_round("canary", held=2), answers, []) != []
    assert check_rows(make_round("canary", held=2), answers, ["m-1"]) == []
    # What the next process answered is not its.
    assert check_rows(make_round("canary", held=3), [make_answer(0, 12.0)], []) != []
    # Nor is what the other model answered.
    assert check_rows(make_round("stable", held=3), answers, []) != []


def test_a_seed_kills_everybody_once_in_an_order_of_its_own() -> None:
    plans = {seed: plan_blows(seed) for seed in range(1, 21)}
    for blows in plans.values():
        assert sorted(one for blow in blows for one in blow.victims) == sorted(VICTIMS)
        assert Counter(len(blow.victims) for blow in blows) == {1: 4, 2: 3}
    assert plans[3] == plan_blows(3)
    assert len({str(blows) for blows in plans.values()}) == 20
    pairs = [blow for blows in plans.values() for blow in blows if len(blow.victims) == 2]
    assert {blow.gap for blow in pairs} == {*Gap}


def test_seeds_are_read() -> None:
    assert read_seeds("1..3") == [1, 2, 3]
    assert read_seeds("7, 9..10") == [7, 9, 10]
    for text in ("", "x", "3..1", "-1"):
        with pytest.raises(ValueError, match="is no seed"):
            read_seeds(text)
