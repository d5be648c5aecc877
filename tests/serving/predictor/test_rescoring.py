"""What the predictor answers is what the pilot finds when it scores the logged request again.

However it was logged: as it came (KServe's agent), or as the predictor understood it (its own log).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from serving.detector.body import read_body
from serving.detector.event import Event
from serving.detector.pairing import encode_json
from serving.pilot.scoring import Rescorer
from serving.predictor.decoding import Decoder
from serving.predictor.encoding import render_query
from serving.predictor.errors import RequestError
from serving.predictor.tensors import DTYPES, parse_request
from tenure.bundle import Bundle
from tenure.errors import RowError
from tenure.scorer import Scorer

NAN = float("nan")
Body = tuple[bytes, int | None]

NUMBERS = st.one_of(st.integers(), st.floats(), st.just(1e-320), st.just(10**30), st.none())
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "plan": st.sampled_from(["gold", "silver"]),
    "city": st.one_of(st.sampled_from(["Bern", "Zürich", "", None]), st.text(max_size=4)),
    "months": st.integers(0, 71),
    "calls": st.one_of(st.integers(0, 9), st.sampled_from([3.0, NAN, None])),
    "charge": st.one_of(st.floats(5, 100), st.integers(5, 100)),
    "credit": st.one_of(st.integers(-9, 9), st.floats(-1e6, 1e6), st.none()),
    "active": st.booleans(),
    "autopay": st.sampled_from([True, False, None]),
}
ODD: dict[str, st.SearchStrategy[Any]] = {
    "plan": st.sampled_from(["", "tin", None]),
    "city": st.text(),
    "months": NUMBERS,
    "calls": NUMBERS,
    "charge": NUMBERS,
    "credit": NUMBERS,
    "active": st.sampled_from([0, 1.0, None]),
    "autopay": st.sampled_from([0, 1, 0.5, "1", NAN]),
}
KINDS = {
    "plan": ["BYTES"],
    "city": ["BYTES"],
    "months": ["INT64", "INT32", "INT8", "UINT8", "UINT16"],
    "calls": ["INT64", "FP64", "FP64", "INT16"],
    "charge": ["FP64", "FP32", "INT64", "UINT32"],
    "credit": ["FP64", "FP32", "INT32"],
    "active": ["BOOL"],
    "autopay": ["BOOL", "FP64"],
}


def pack(values: list[Any], datatype: str) -> bytes | None:
    """Return a binary tensor, None if the datatype cannot hold the values."""
    try:
        if datatype == "BYTES":
            raws = [value.encode() for value in values]
            return b"".join(len(raw).to_bytes(4, "little") + raw for raw in raws)
        plain = [NAN if value is None and datatype in ("FP64", "FP32") else value for value in values]
        with np.errstate(over="ignore"):
            return np.array(plain, dtype=DTYPES[datatype]).tobytes()
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


@st.composite
def choices(draw: st.DrawFn) -> dict[str, st.SearchStrategy[Any]]:
    """Draw what each column draws from: most requests are good, some have an odd column."""
    odd = draw(st.sampled_from([None, None, None, *ODD]))
    return {name: ODD[name] if name == odd else values for name, values in GOOD.items()}


@st.composite
def requests(draw: st.DrawFn) -> Body:
    """Draw a V2 request, good or not: JSON, or with some of the tensors binary."""
    rows = draw(st.integers(1, 3))
    inputs, tail = [], b""
    for name, values in draw(choices()).items():
        datatype = draw(st.sampled_from(KINDS[name]))
        if datatype == "FP64" and name == "autopay":
            values = st.sampled_from([0, 1, 0.0, 1.0, NAN, None])
        data = draw(st.lists(values, min_size=rows, max_size=rows))
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [rows]}
        raw = pack(data, datatype) if draw(st.booleans()) else None
        if raw is None:
            data = [None if isinstance(value, float) and not np.isfinite(value) else value for value in data]
            shaped = draw(st.booleans())
            tensor |= {"data": [[one] for one in data], "shape": [rows, 1]} if shaped else {"data": data}
        else:
            tensor["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        inputs.append(tensor)
    text = json.dumps({"inputs": inputs}).encode()
    return text + tail, len(text) if tail else None


INSTANCES = choices().flatmap(lambda made: st.lists(st.fixed_dictionaries(made), min_size=1, max_size=3))


class Shelf:
    """A store that holds one bundle."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def download_directory(self, uri: str, directory: Path) -> Path:
        return Path(shutil.copytree(self._directory, directory, dirs_exist_ok=True))


@pytest.fixture(scope="module")
def uri(bundle: Bundle) -> str:
    return f"s3://tenure/bundles/{bundle.digest}"


@pytest.fixture(scope="module")
def rescorer(bundle: Bundle) -> Rescorer:
    return Rescorer(Shelf(bundle.directory))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> Scorer:
    return Scorer(bundle)


@pytest.fixture(scope="module")
def own_decoder(bundle: Bundle) -> Decoder:
    return Decoder(bundle.contract, bundle.featuriser, max_rows=50)


def log(body: bytes) -> list[dict[str, Any]]:
    """Return the features of each row after a way through the ledger."""
    request = read_body(Event("e", "request", "telco", "abc", 0, body), "client")
    return [json.loads(encode_json(row)) for row in request.features]  # type: ignore[union-attr]


def check(rescorer: Rescorer, uri: str, answered: np.ndarray, *bodies: bytes) -> None:
    for body in bodies:
        np.testing.assert_allclose(rescorer.score(uri, log(body)), answered, rtol=0, atol=1e-6)


def make_body(datatypes: dict[str, str], **changes: Any) -> Body:
    """Make a JSON request of two rows; `changes` are (datatype, data) by name."""
    row = {"plan": "gold", "city": "Bern", "months": 3, "calls": 2, "charge": 9.5, "credit": 1.0}
    row |= {"active": True, "autopay": False}
    inputs = []
    for name, value in row.items():
        datatype, data = changes.get(name, (datatypes[name], [value] * 2))
        inputs.append({"name": name, "datatype": datatype, "shape": [2], "data": data})
    return json.dumps({"inputs": inputs}).encode(), None


RAW = {"city": ("BYTES", ["", "Bern"]), "autopay": ("FP64", [1.0, None]), "calls": ("FP64", [4.0, None])}


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(requests())
def test_v2(own_decoder: Decoder, scorer: Scorer, rescorer: Rescorer, uri: str, request_body: Body) -> None:
    body, length = request_body
    try:
        query = own_decoder.read(parse_request(body, length))
        answered = scorer.score_columns(query.columns)
    except (RequestError, RowError):
        event("refused")
        return
    event("answered")
    check(rescorer, uri, answered, body, render_query(query, own_decoder.datatypes))


@settings(deadline=None, max_examples=300)
@given(INSTANCES)
@example(
    [
        {
            "plan": "gold",
            "city": "",
            "months": 3,
            "calls": 2.0,
            "charge": 9,
            "credit": None,
            "active": True,
            "autopay": None,
        }
    ]
)
def test_v1(
    own_decoder: Decoder, scorer: Scorer, rescorer: Rescorer, uri: str, instances: list[dict[str, Any]]
) -> None:
    document = [
        {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in instances
    ]
    body = json.dumps({"instances": document}).encode()
    try:
        query = own_decoder.read_instances(msgspec.json.decode(body))
        answered = scorer.score_columns(query.columns)
    except (RequestError, RowError, msgspec.DecodeError):
        event("refused")
        return
    event("answered")
    check(rescorer, uri, answered, body, own_decoder.clean_instances(body))


def test_what_the_agent_logs_otherwise_than_the_predictor(
    own_decoder: Decoder, scorer: Scorer, rescorer: Rescorer, uri: str, datatypes: dict[str, str]
) -> None:
    body, _ = make_body(datatypes, **RAW)
    query = own_decoder.read(parse_request(body))
    assert query.altered
    rows, clean = log(body), log(render_query(query, own_decoder.datatypes))
    assert rows != clean
    check(rescorer, uri, scorer.score_columns(query.columns), body)
