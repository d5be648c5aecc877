from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.detector.intake import IntakeError, Refusal, read_labels, read_notice, read_transitions
from serving.detector.records import Label, Transition

NOW = 1_800_000_000_000_000


def accept(service: str, outcome: str) -> None:
    """A contract that allows everything."""


def read(document: Any) -> tuple[list[Label], list[Refusal]]:
    return read_labels(json.dumps(document).encode(), NOW, accept)


def make_label(**changes: Any) -> dict[str, Any]:
    label = {"service": "telco", "customer_id": "7", "outcome": "Yes", "true_at": "2026-01-01T00:00:00+01:00"}
    return {**label, **changes}


def test_good_labels() -> None:
    first, second = make_label(), make_label(customer_id=8, outcome=True, known_at=5)
    labels, refused = read({"labels": [first, second]})
    true_at = 1_767_222_000_000_000
    assert labels == [Label("telco", "7", "Yes", true_at, NOW), Label("telco", "8", "true", true_at, 5)]
    assert not refused


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"service": None}, "service"),
        ({"service": "s" * 81}, "service"),
        ({"customer_id": ""}, "customer_id"),
        ({"customer_id": 1.5}, "customer_id"),
        ({"customer_id": "a\0"}, "customer_id"),
        ({"outcome": 1}, "outcome"),
        ({"outcome": []}, "outcome"),
        ({"true_at": None}, "true_at"),
        ({"true_at": "soon"}, "true_at"),
        ({"true_at": -1}, "true_at"),
        ({"true_at": True}, "true_at"),
        ({"known_at": 10**30}, "known_at"),
        ({"known_at": "0001-01-01T00:00:00+14:00"}, "known_at"),
    ],
)
def test_bad_label_is_named_and_the_others_are_taken(changes: dict[str, Any], field: str) -> None:
    labels, (refusal,) = read([make_label(), make_label(**changes), make_label(customer_id="9")])
    assert [label.customer_id for label in labels] == ["7", "9"]
    assert (refusal.row, refusal.field) == (1, field)
    assert refusal.message


def test_contract_is_asked_about_outcomes() -> None:
    def find_problem(service: str, outcome: str) -> str | None:
        return None if outcome == "Yes" else f"{service} knows no {outcome}"

    body = json.dumps([make_label(), make_label(outcome="Maybe")]).encode()
    labels, refused = read_labels(body, NOW, find_problem)
    assert len(labels) == 1
    assert refused == [Refusal(1, "outcome", "telco knows no Maybe")]


@pytest.mark.parametrize("body", [b"", b"7", b"{}", b'{"labels": {}}', b"[" * 100_000])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    for read_any in (lambda raw: read_labels(raw, NOW, accept), read_transitions):
        with pytest.raises(IntakeError):
            read_any(body)


@given(
    st.lists(
        st.dictionaries(st.sampled_from([*make_label(), "known_at"]), st.none() | st.text() | st.integers())
    )
)
def test_every_row_is_taken_or_refused(rows: list[dict[str, Any]]) -> None:
    labels, refused = read(rows)
    assert len(labels) + len(refused) == len(rows)


def make_transition(**changes: Any) -> dict[str, Any]:
    transition = {
        "id": "a" * 64,
        "service": "telco",
        "at": 5,
        "outcome": "stepped",
        "shares": {"abc": 80, "def": 20},
    }
    return {**transition, "reason": "", "evidence": {"n": 3}, **changes}


def test_good_transition() -> None:
    (transition,), refused = read_transitions(json.dumps([make_transition()]).encode())
    assert transition == Transition("a" * 64, "telco", 5, "stepped", {"abc": 80, "def": 20}, "", {"n": 3})
    assert not refused


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "a" * 65}, "id"),
        ({"at": "later"}, "at"),
        ({"outcome": "x" * 33}, "outcome"),
        ({"shares": {"abc": "80"}}, "shares"),
        ({"shares": []}, "shares"),
        ({"evidence": None}, "evidence"),
        ({"reason": 7}, "reason"),
    ],
)
def test_bad_transition_is_named(changes: dict[str, Any], field: str) -> None:
    transitions, (refusal,) = read_transitions(json.dumps([make_transition(**changes)]).encode())
    assert not transitions
    assert (refusal.row, refusal.field) == (0, field)


def make_record(key: str, name: str = "s3:ObjectCreated:Put") -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": "lake"}, "object": {"key": key}}}


def test_new_objects_are_named() -> None:
    records = [make_record("new/a+b%C3%A4.csv"), make_record("gone.csv", "s3:ObjectRemoved:Delete")]
    uris = ["s3://lake/new/a bä.csv"]
    assert read_notice(json.dumps({"Records": records}).encode()) == uris
    assert read_notice(json.dumps(records[0]).encode()) == uris
    event = {"specversion": "1.0", "type": "com.amazonaws.s3.ObjectCreated:Put", "data": records[0]}
    assert read_notice(json.dumps(event).encode()) == uris


@pytest.mark.parametrize(
    "document",
    [7, [], {}, {"Records": {}}, {"Records": [7]}, {"Records": [{"s3": {"bucket": 1}}]}, make_record("")],
)
def test_what_is_no_notice_is_refused(document: Any) -> None:
    with pytest.raises(IntakeError):
        read_notice(json.dumps(document).encode())
