from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.runs.errors import BadRequestError
from embedded.runs.listing import select_page

COLUMNS = {"id": lambda item: item[0], "created_at": lambda item: item[1], "name": lambda item: item[2]}
ITEMS = st.lists(
    st.tuples(st.text(min_size=1, max_size=4), st.sampled_from("abc"), st.text(max_size=3)),
    unique_by=lambda item: item[0],
    max_size=12,
)


@given(ITEMS, st.integers(1, 5), st.sampled_from(["", "name", "name desc", "created_at desc", "id asc"]))
def test_pages_are_a_partition_in_order(items, size, order):
    whole = select_page(items, COLUMNS, {"page_size": "200", "sort_by": order}, "x").items
    read, query = [], {"page_size": str(size), "sort_by": order}
    while True:
        page = select_page(items, COLUMNS, query, "x")
        assert page.total == len(items)
        read += page.items
        if not page.next_token:
            break
        assert len(page.items) == size
        query["page_token"] = page.next_token
    assert read == whole
    assert sorted(read) == sorted(items)


def test_items_that_come_in_between_shift_nothing():
    items = [(str(n), str(n), "x") for n in range(4, 9)]
    query = {"page_size": "2", "sort_by": "created_at desc"}
    first = select_page(items, COLUMNS, query, "x")
    items.append(("9", "9", "x"))
    second = select_page(items, COLUMNS, {**query, "page_token": first.next_token}, "x")
    assert [item[0] for item in (*first.items, *second.items)] == ["8", "7", "6", "5"]


def test_a_token_is_bound_to_its_call():
    items = [(str(n), str(n), "x") for n in range(4)]
    token = select_page(items, COLUMNS, {"page_size": "2"}, "x").next_token
    for query, scope in (({}, "y"), ({"sort_by": "name"}, "x")):
        with pytest.raises(BadRequestError, match="another order, filter or scope"):
            select_page(items, COLUMNS, {**query, "page_token": token}, scope)


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ({"operation": "EQUALS", "key": "name", "stringValue": "ab"}, ["1"]),
        ({"operation": 1, "key": "name", "string_value": "ab"}, ["1"]),
        ({"operation": "NOT_EQUALS", "key": "name", "string_value": "ab"}, ["2", "3"]),
        ({"operation": "IS_SUBSTRING", "key": "name", "string_value": "b"}, ["1", "2"]),
        ({"operation": 8, "key": "name", "stringValues": {"values": ["ab", "c"]}}, ["1", "3"]),
        ({"operation": "GREATER_THAN", "key": "created_at", "timestamp_value": "2"}, ["3"]),
    ],
)
def test_filters(predicate, expected):
    items = [("1", "1", "ab"), ("2", "2", "b"), ("3", "3", "c")]
    page = select_page(items, COLUMNS, {"filter": json.dumps({"predicates": [predicate]})}, "x")
    assert [item[0] for item in page.items] == expected


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"predicates": {}}',
        '{"predicates": [{"operation": "LIKE", "key": "name", "string_value": "x"}]}',
        '{"predicates": [{"operation": "EQUALS", "key": "colour", "string_value": "x"}]}',
        '{"predicates": [{"operation": "EQUALS", "key": "name"}]}',
        '{"predicates": [{"operation": "IN", "key": "name", "string_values": "x"}]}',
        '{"predicates": [{"operation": [], "key": "name", "string_value": "x"}]}',
    ],
)
def test_wrong_filters_are_refused(text):
    with pytest.raises(BadRequestError):
        select_page([("1", "1", "x")], COLUMNS, {"filter": text}, "x")


@given(st.text(max_size=30))
def test_any_token_is_read_or_refused(token):
    with contextlib.suppress(BadRequestError):
        select_page([("1", "1", "x")], COLUMNS, {"page_token": token}, "x")
