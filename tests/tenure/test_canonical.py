"""Canonical JSON: one spelling for each document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.canonical import dump_canonical, load_canonical

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON.filter(lambda document: "\\ud" not in json.dumps(document)))
def test_canonical_json_comes_back(document: Any) -> None:
    data = dump_canonical(document)
    assert load_canonical(data) == document
    assert dump_canonical(load_canonical(data)) == data


@pytest.mark.parametrize(
    "data", [b'{"a": 1}', b'{"b":1,"a":2}', b'{"a":1,"a":1}', b"1.0e0", b'"\\u00e9"', b"1 ", b"NaN", b"\xff"]
)
def test_other_spellings_of_json_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"canonical|JSON|utf-8|column"):
        load_canonical(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_canonical_json_has_no_nan(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_canonical(value)
