from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.detector.errors import EventError
from serving.detector.event import KINDS, Event, Place, read_events, read_time

REQUEST, RESPONSE = KINDS
HERE = Place("telco", "abc")
# As KServe's agent was seen to post it.
AGENT = {
    "ce-component": "predictor",
    "ce-endpoint": "",
    "ce-id": "2aa4306c-c14b-4e53-b146-62f3066fa45c",
    "ce-inferenceservicename": "toy",
    "ce-metadata": "{}",
    "ce-namespace": "check-kserve",
    "ce-recordedtime": "2026-11-21T12:50:34.797928066Z",
    "ce-source": "http://localhost:9081/",
    "ce-specversion": "1.0",
    "ce-time": "2026-11-21T12:50:34.797282233Z",
    "ce-type": RESPONSE,
    "content-type": "application/json",
}
BATCH = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}

attributes = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1, max_size=40),
        "type": st.sampled_from([REQUEST, RESPONSE]),
        "specversion": st.just("1.0"),
        "time": st.datetimes(min_value=datetime(1971, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat),
    }
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def make_event(**changes: Any) -> dict[str, Any]:
    event = {
        "id": "e",
        "type": REQUEST,
        "specversion": "1.0",
        "time": "2026-01-01T00:00:00Z",
        "data": {"a": 1},
    }
    return {**event, **changes}


def test_agents_headers_are_read() -> None:
    events, misfits = read_events(AGENT, b'{"a": 1}', HERE)
    moment = datetime(2026, 11, 21, 12, 50, 34, 797282, tzinfo=UTC)
    time = round(moment.timestamp() * 1e6)
    assert events == [Event(AGENT["ce-id"], "response", "telco", "abc", time, b'{"a": 1}')]
    assert misfits == []


def test_without_an_address_the_event_names_service_and_version() -> None:
    (event,), _ = read_events({**AGENT, "ce-version": "v7"}, b"{}", Place())
    assert (event.service, event.version) == ("toy", "v7")
    events, (misfit,) = read_events(AGENT, b"{}", Place())
    assert not events
    assert "/events/SERVICE/VERSION" in misfit.reason


@pytest.mark.parametrize("missing", ["ce-id", "ce-type", "ce-specversion"])
def test_post_without_the_headers_is_no_event(missing: str) -> None:
    headers = {name: value for name, value in AGENT.items() if name != missing}
    events, (misfit,) = read_events(headers, b"body", HERE)
    assert not events
    assert missing in misfit.reason
    assert misfit.body == b"body"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"type": "org.kubeflow.serving.inference.surprise"}, "surprise"),
        ({"specversion": "0.3"}, "0.3"),
        ({"time": "yesterday"}, "yesterday"),
        ({"data_base64": "!!"}, "base64"),
        ({"id": 7}, "id"),
    ],
)
def test_misfit_of_a_batch_leaves_the_others(changes: dict[str, Any], part: str) -> None:
    batch = [make_event(id="first"), make_event(**changes), make_event(id="last")]
    events, (misfit,) = read_events(BATCH, json.dumps(batch).encode(), HERE)
    assert [event.id for event in events] == ["first", "last"]
    assert part in misfit.reason
    assert misfit.body


@pytest.mark.parametrize("body", [b"", b"{}", b"7", b"[", b"\xff", b"[" * 100_000])
def test_broken_batch_is_one_misfit(body: bytes) -> None:
    events, (misfit,) = read_events(BATCH, body, HERE)
    assert not events
    assert misfit.body == body


@given(st.lists(st.tuples(attributes, values), max_size=5))
def test_batches_and_single_events_say_the_same(pieces: list[tuple[dict[str, Any], Any]]) -> None:
    batch = [{**own, "data": data} for own, data in pieces]
    events, misfits = read_events(BATCH, json.dumps(batch).encode(), HERE)
    assert not misfits
    assert [json.loads(event.body) for event in events] == [data for _, data in pieces]
    structured = {"content-type": "application/cloudevents+json"}
    for own, event, piece in zip(pieces, events, batch, strict=True):
        (alone,), _ = read_events(structured, json.dumps(piece).encode(), HERE)
        assert alone == event
        headers = {f"ce-{name}": value for name, value in own[0].items()}
        (binary,), _ = read_events(headers, event.body, HERE)
        assert binary == event


@given(st.binary())
def test_any_bytes_come_through_base64(body: bytes) -> None:
    event = make_event(data_base64=base64.b64encode(body).decode())
    del event["data"]
    (read,), _ = read_events(BATCH, json.dumps([event]).encode(), HERE)
    assert read.body == body


@given(
    st.dictionaries(st.sampled_from([*AGENT, "ce-version"]), st.text(max_size=60)),
    st.binary(max_size=300),
)
def test_whatever_comes_is_an_event_or_kept(headers: dict[str, str], body: bytes) -> None:
    events, misfits = read_events(headers, body, Place())
    assert events or misfits or body.strip() == b"[]"


@given(st.datetimes(min_value=datetime(1970, 1, 1)), st.integers(0, 999))
def test_nanoseconds_are_cut_off(moment: datetime, nanoseconds: int) -> None:
    text = f"{moment.isoformat(timespec='microseconds')}{nanoseconds:03d}Z"
    seconds = int((moment.replace(microsecond=0) - datetime(1970, 1, 1)).total_seconds())
    assert read_time(text) == seconds * 1_000_000 + moment.microsecond


@pytest.mark.parametrize("text", ["", "now", "2026-13-01T00:00:00Z", "9999-12-31T23:59:59-23:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(EventError, match="is not like"):
        read_time(text)
