"""Merge patches and JSON patches, by the RFCs' own examples and by properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.kubernetes.errors import ApiError
from embedded.kubernetes.patches import apply_json_patch, apply_merge_patch
from embedded.kubernetes.protobuf import decode_namespace

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, result: Any):
    assert apply_merge_patch(target, patch) == result


@given(DOCUMENTS, DOCUMENTS)
def test_a_merge_patch_twice_is_a_merge_patch_once(target: Any, patch: Any):
    once = apply_merge_patch(target, patch)
    assert apply_merge_patch(once, patch) == once


@pytest.mark.parametrize(
    ("target", "operations", "result"),
    [  # RFC 6902, appendix A
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        (
            {"foo": ["bar", "baz"]},
            [{"op": "add", "path": "/foo/1", "value": "q"}],
            {"foo": ["bar", "q", "baz"]},
        ),
        ({"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": "b"}], {"foo": ["a", "b"]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": [1, 2, 3]}, [{"op": "remove", "path": "/foo/1"}], {"foo": [1, 3]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
        (
            {"a": {"b": 1}, "c": {}},
            [{"op": "move", "from": "/a/b", "path": "/c/d"}],
            {"a": {}, "c": {"d": 1}},
        ),
        ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1], "b": [1]}),
        ({"a/b": 1, "m~n": 2}, [{"op": "test", "path": "/a~1b", "value": 1}], {"a/b": 1, "m~n": 2}),
        ({"m~n": 2}, [{"op": "replace", "path": "/m~0n", "value": 3}], {"m~n": 3}),
    ],
)
def test_json_patch(target: Any, operations: Any, result: Any):
    assert apply_json_patch(target, operations) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/missing"},
        {"op": "add", "path": "/a/b/c", "value": 1},
        {"op": "add", "path": "/list/5", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "replace", "path": "/list/-", "value": 1},
        {"op": "test", "path": "/list", "value": []},
        {"op": "add", "path": "nothing", "value": 1},
        {"op": "add", "path": "/a"},
        {"op": "fly", "path": "/a"},
        {"path": 3},
        "remove",
    ],
)
def test_json_patch_that_does_not_fit_is_refused_as_a_whole(operation: Any):
    target = {"a": 1, "list": [1]}
    with pytest.raises(ApiError) as caught:
        apply_json_patch(target, [{"op": "replace", "path": "/a", "value": 2}, operation])
    assert caught.value.code == 400
    assert target == {"a": 1, "list": [1]}


@given(DOCUMENTS, DOCUMENTS)
def test_json_patch_never_fails_otherwise(target: Any, operations: Any):
    try:
        apply_json_patch(target, operations)
    except ApiError as error:
        assert error.code == 400  # noqa: PT017 - any other exception is what this looks for


@given(st.binary(max_size=200))
def test_protobuf_nonsense_is_refused(content: bytes):
    for message in (content, b"k8s\x00" + content):
        with pytest.raises(ApiError):
            decode_namespace(message)
