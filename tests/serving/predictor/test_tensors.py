from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.predictor.encoding import pack
from serving.predictor.errors import RequestError
from serving.predictor.tensors import DTYPES, decode_strings, parse_request, unpack


def join(inputs: list[dict[str, Any]], *tails: bytes) -> tuple[bytes, int]:
    text = json.dumps({"inputs": inputs}).encode()
    return b"".join((text, *tails)), len(text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"inputs": []', "not JSON"),
        (b'{"inputs": []} {}', "not JSON"),
        (b"[]", "expected `object`"),
        (b"{}", "inputs"),
        (b'{"inputs": [], "id": 5}', "id"),
        (b'{"inputs": {}}', "inputs"),
        (b'{"inputs": [{"name": "a", "shape": [1], "datatype": 5}]}', "^a: .*datatype"),
        (b'{"inputs": [{"name": "a", "shape": [1.5], "datatype": "FP64"}]}', "^a: .*shape"),
        (b'{"inputs": [{"name": "a", "shape": [true], "datatype": "FP64"}]}', "^a: .*shape"),
        (b'{"inputs": [{"name": 1, "shape": [1], "datatype": "FP64"}]}', r"^inputs\[0\]: "),
        (b'{"inputs": [{"name": "a", "shape": [1.5], "datatype": NaN}]}', "^a: expected `int`"),
        (
            b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [NaN]}]}',
            "^a: row 0: NaN is not",
        ),
        (
            b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1, -Infinity]}]}',
            "^a: row 1: -Inf",
        ),
        (
            b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1e999]}]}',
            "^a: row 0: 1e999 is",
        ),
        (b'{"inputs": [{"name": "a", "shape": [1, NaN], "datatype": "FP64"}]}', "not JSON"),
        (b'{"inputs": [{"name": "a", "shape": [' + b"9" * 5000 + b'], "datatype": "FP64"}]}', "^a: .*range"),
        (b'{"inputs": [], "parameters": {"a": {"b": 1}}}', r"expected .*got `object`.*parameters"),
        (b'{"inputs": [], "parameters": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", "got `object`"),
        (b'{"inputs": [], "later": ' + b"[" * 5000 + b"1" + b"]" * 5000 + b"}", "deeply"),
        (b'{"inputs": [], "later": ' + b"[" * 90000, "deeply"),
        (b'{"inputs": [], "inputs": []}', "^inputs: the key 'inputs' is there twice"),
        (b'{"inputs": [], "id": "a", "\\u0069d": "b"}', "^id: the key 'id' is there twice"),
        (b'{"inputs": [], "parameters": {"b": 1, "b": 1}}', "^b: the key 'b'"),
        (b'{"inputs": [], "later": [{"b": 1, "b": 1}]}', "^b: the key 'b'"),
        (
            b'{"inputs": [{"name": "a", "shape": [1], "shape": [1], "datatype": "FP64"}]}',
            "^a: the key 'shape'",
        ),
        (b'{"inputs": [{"name": "a", "name": "b", "shape": [1], "datatype": "FP64"}]}', "^name: the key"),
        (b'{"inputs": [], "outputs": [{"name": "a", "parameters": {"c": 1, "c": 2}}]}', "^c: the key 'c'"),
        # What the protocol does not have is passed over, and still has to be JSON.
        (b'{"inputs": [], "later": "a: \xff"}', "not JSON: .*utf-8"),
        (b'{"inputs": [], "\xff": 1}', "not JSON: .*utf-8"),
        (b'{"inputs": [{"name": "a", "shape": [], "datatype": "FP64", "\xff": 1}]}', "not JSON: .*utf-8"),
        (b'{"inputs": [], "later": "a\x01"}', "not JSON"),
        (b'{"inputs": [], "later": "\\ud800\\q"}', "not JSON"),
        (b'{"inputs": [], "later": 01}', "not JSON"),
        # Half a surrogate pair cannot go into an answer as it is.
        (b'{"inputs": [], "later": {"\\ud800": 1, "\\ud800": 2}}', "not JSON"),
        (b'{"inputs": [{"shape": [1.5], "name": "\\ud800"}]}', r"^\\ud800: expected `int`"),
    ],
)
def test_refuses_what_is_no_request(body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        parse_request(body)
    str(refused.value).encode()


def test_takes_colons_in_texts_and_keys_that_are_null() -> None:
    text = b'{"inputs": [{"name": "a:b", "shape": [1], "datatype": "BYTES", "data": ["x: y"]}], "id": null}'
    (entry,) = parse_request(text).inputs
    assert (entry.name, entry.data) == ("a:b", ["x: y"])


@given(st.text(max_size=5), st.text(max_size=5), st.booleans())
def test_a_key_is_never_there_twice(one: str, other: str, ascii_only: bool) -> None:
    first, second = (json.dumps(key, ensure_ascii=ascii_only) for key in (one, other))
    body = f'{{"inputs": [], "parameters": {{{first}: 1, {second}: ":"}}}}'.encode(errors="surrogatepass")
    if one == other:
        with pytest.raises(RequestError, match="is there twice"):
            parse_request(body)
    else:
        assert parse_request(body).parameters == {one: 1, other: ":"}


def test_ignores_keys_that_the_protocol_does_not_know() -> None:
    assert parse_request(b'{"inputs": [], "later": {"version": 3}}').inputs == []


def test_reads_binary_tensors_from_the_tail() -> None:
    numbers = np.array([1.5, np.nan])
    body, length = join(
        [
            {"name": "a", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": 16}},
            {"name": "b", "shape": [1], "datatype": "FP64", "data": [3]},
            {"name": "c", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}},
        ],
        numbers.tobytes(),
        pack(["é", "x"]),
    )
    first, second, third = parse_request(body, length).inputs
    assert first.data is not None
    assert first.data[0] == 1.5
    assert np.isnan(first.data[1])
    assert (second.data, third.data) == ([3], ["é", "x"])


@pytest.mark.parametrize(
    ("size", "tail", "message"),
    [
        (16, b"12345678", "a: .*beyond the end"),
        (8, b"123456789", "belong to no tensor"),
        (7, b"1234567", "a: 7 bytes are not a whole number"),
        (-1, b"", "a: binary_data_size"),
        (True, b"1", "a: binary_data_size"),
        ("8", b"12345678", "a: binary_data_size"),
    ],
)
def test_refuses_binary_tensors_that_do_not_fit(size: Any, tail: bytes, message: str) -> None:
    entry = {"name": "a", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": size}}
    with pytest.raises(RequestError, match=message):
        parse_request(*join([entry], tail))


def test_refuses_binary_tensors_without_the_header_or_beside_data() -> None:
    entry = {"name": "a", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}}
    body, length = join([entry], b"\1")
    with pytest.raises(RequestError, match="not JSON"):
        parse_request(body)
    with pytest.raises(RequestError, match=r"a: .*no Inference-Header-Content-Length"):
        parse_request(body[:length])
    with pytest.raises(RequestError, match="Inference-Header-Content-Length is 5000"):
        parse_request(body, 5000)
    with pytest.raises(RequestError, match=r"a: .*both"):
        parse_request(*join([{**entry, "data": [True]}], b"\1"))


@pytest.mark.parametrize(
    ("datatype", "raw", "message"),
    [
        ("BYTES", b"\1\0\0", "row 0: .*end inside"),
        ("BYTES", b"\1\0\0\0", "row 0: .*end inside"),
        ("BYTES", b"\1\0\0\0x\xff\xff\xff\xff", "row 1: .*end inside"),
        ("BYTES", b"\1\0\0\0\xff", "row 0: .*UTF-8"),
        ("BOOL", b"\2", "neither 0 nor 1"),
        ("BF16", b"\2\2", "'BF16' is not one of"),
    ],
)
def test_refuses_broken_values(datatype: str, raw: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=f"^t: .*{message}"):
        unpack("t", datatype, raw)


@given(st.lists(st.text()))
def test_strings_survive_packing(texts: list[str]) -> None:
    assert unpack("t", "BYTES", pack(texts)) == texts
    assert decode_strings("t", [text.encode() for text in texts]) == texts


@given(st.sampled_from(sorted({*DTYPES, "BYTES", "FP8"})), st.binary(max_size=64))
def test_any_bytes_are_values_or_refused(datatype: str, raw: bytes) -> None:
    try:
        values = unpack("t", datatype, raw)
    except RequestError:
        return
    if datatype == "BYTES":
        assert pack(values) == raw
    else:
        assert len(values) * DTYPES[datatype].itemsize == len(raw)


@given(st.lists(st.floats(), max_size=20))
def test_numbers_survive_packing(numbers: list[float]) -> None:
    raw = pack(np.array(numbers, dtype=np.float64))
    assert raw == struct.pack(f"<{len(numbers)}d", *numbers)
    np.testing.assert_array_equal(unpack("t", "FP64", raw), numbers)
