from __future__ import annotations

import pytest

from clients.split import find_split, read_shares, read_weights


def make_route(*backends: tuple[str, int]) -> dict:
    asked = {"matches": [{"headers": [{"name": "x-tenure-variant", "value": "b1"}]}], "backendRefs": []}
    split = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in backends],
    }
    return {"spec": {"rules": [asked, split]}}


@pytest.mark.parametrize(
    ("backends", "weights", "shares"),
    [
        ([("a", 80), ("b", 20)], {"a": 80, "b": 20}, {"a": 80, "b": 20}),
        ([("a", 999_999), ("b", 1)], {"a": 999_999, "b": 1}, {"a": 100, "b": 0}),
        ([("a", 0), ("b", 80), ("a", 20)], {"a": 20, "b": 80}, {"a": 20, "b": 80}),
        ([("a", 0)], {"a": 0}, {"a": 0}),
    ],
)
def test_shares_are_percent_whatever_the_scale(backends, weights, shares):
    route = make_route(*backends)
    assert read_weights(route) == weights
    assert read_shares(route) == shares


def test_a_route_that_only_asks_for_headers_shares_nothing():
    route = make_route(("a", 1))
    route["spec"]["rules"].pop()
    assert find_split(route) == {}
    assert read_shares(route) == {}
