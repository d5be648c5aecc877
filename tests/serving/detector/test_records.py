"""Records: what the ledger cannot hold is refused before it spoils a transaction."""

from __future__ import annotations

from typing import Any

import pytest

from serving.detector.errors import EventError, LabelError
from serving.detector.records import BODY_BYTES, DeadLetter, Label, Request, Response, Transition, count_rows


def make_request(**changes: Any) -> Request:
    known: dict[str, Any] = {
        "event_id": "e",
        "service": "s",
        "version": "v",
        "time": 1,
        "customers": ["c"],
        "features": [{}],
    }
    return Request(**known | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event_id": "x" * 201}, "201 characters"),
        ({"event_id": ""}, "not empty"),
        ({"service": "a\0b"}, "NUL"),
        ({"version": "\ud800"}, "surrogate"),
        ({"time": -1}, "no time"),
        ({"time": 1 << 62}, "no time"),
        ({"customers": []}, "0 customers"),
        ({"customers": ["x" * 401]}, "customer of row 0"),
        ({"customers": [7]}, "customer of row 0"),
        ({"customers": [], "features": []}, "0 rows"),
    ],
)
def test_request_that_no_row_can_hold(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EventError, match=message):
        make_request(**changes)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_response_has_numbers(score: float) -> None:
    with pytest.raises(EventError, match="row 1"):
        Response("e", "s", "v", 1, [0.5, score], [True, False])
    with pytest.raises(EventError, match="1 scores and 2"):
        Response("e", "s", "v", 1, [0.5], [True, False])


def test_label_and_transition_are_checked() -> None:
    with pytest.raises(LabelError, match="outcome"):
        Label("s", "c", "", 1, 1)
    with pytest.raises(LabelError, match="known_at"):
        Label("s", "c", "Yes", 1, -1)
    with pytest.raises(EventError, match="id"):
        Transition("x" * 65, "s", 1, "promoted", {}, "", {})
    with pytest.raises(EventError, match="reason"):
        Transition("x", "s", 1, "promoted", {}, "a\0b", {})


def test_dead_letter_is_clipped_and_keeps_no_credentials() -> None:
    letter = DeadLetter(
        "/" + "p" * 500, "a\0b\ud800", {"Authorization": "Bearer x", "Ce-Id": "1"}, b"x" * 70_000
    )
    kept = letter.clip()
    assert len(kept.path) == 400
    assert kept.reason == "a\N{REPLACEMENT CHARACTER}b?"
    assert kept.headers == {"Authorization": "(not kept)", "Ce-Id": "1"}
    assert len(kept.body) == BODY_BYTES


def test_rows_are_counted() -> None:
    two = make_request(customers=[None, "c"], features=[{}, {}])
    assert count_rows([two, Response("e", "s", "v", 1, [0.5], [True]), Label("s", "c", "Yes", 1, 1)]) == 4
