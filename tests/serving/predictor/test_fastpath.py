from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serving.predictor.engine import Engine
from serving.predictor.fastpath import FastPath
from serving.predictor.metrics import Metrics
from serving.predictor.settings import Settings
from serving.predictor.tensors import DATATYPES, unpack
from tenure.bundle import Bundle
from tenure.scorer import Scorer

Rows = list[dict[str, Any]]
MakeBody = Callable[..., dict[str, Any]]
Answer = tuple[int, dict[str, str], bytes]
LIMIT = 100_000

# The fixtures are immutable: every example may share them.
shared = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, Scorer(bundle), Settings(max_rows=300), Metrics("test", CollectorRegistry()))


@pytest.fixture(scope="module")
def ask(engine: Engine) -> Callable[..., Answer]:
    """Return a function that sends one request to the route; whatever is behind it echoes."""

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": message.get("body", b"")})

    route = FastPath(echo, engine, "m", LIMIT)

    def run(body: bytes, path: str = "/v2/models/m/infer", *chunks: bytes, **headers: str) -> Answer:
        parts = [body, *chunks]
        messages = [
            {"type": "http.request", "body": part, "more_body": place < len(parts) - 1}
            for place, part in enumerate(parts)
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        asyncio.run(route({"type": "http", "method": "POST", "path": path, "headers": raw}, receive, send))
        start, answer = sent
        assert {key.decode(): value.decode() for key, value in start["headers"]}.get(
            "content-length", str(len(answer["body"]))
        ) == str(len(answer["body"]))
        return (
            start["status"],
            {key.decode(): value.decode() for key, value in start["headers"]},
            answer["body"],
        )

    return run


def outputs_of(body: bytes) -> dict[str, list[Any]]:
    return {entry["name"]: entry["data"] for entry in json.loads(body)["outputs"]}


@pytest.mark.parametrize("count", [1, 2, 64, 65, 200])
def test_answers_what_the_bundle_says(
    ask: Callable[..., Answer],
    make_body: MakeBody,
    rows: Rows,
    score: Callable[[Rows], np.ndarray],
    bundle: Bundle,
    count: int,
) -> None:
    status, headers, body = ask(json.dumps(make_body(rows[:count], id="q")).encode())
    assert (status, headers["content-type"]) == (200, "application/json")
    document = json.loads(body)
    assert (document["id"], document["model_name"]) == ("q", "m")
    assert document["model_version"] == bundle.version
    outputs = outputs_of(body)
    expected = score(rows[:count])
    np.testing.assert_array_equal(outputs["churn_probability"], expected)
    assert outputs["churn"] == (expected >= bundle.threshold).tolist()
    assert set(outputs) == {"churn_probability", "churn"}


def test_rows_score_alike_alone_and_together(
    ask: Callable[..., Answer], make_body: MakeBody, rows: Rows
) -> None:
    together = outputs_of(ask(json.dumps(make_body(rows[:20])).encode())[2])["churn_probability"]
    alone = [
        outputs_of(ask(json.dumps(make_body([row])).encode())[2])["churn_probability"][0] for row in rows[:20]
    ]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-7)


def test_gives_reasons(ask: Callable[..., Answer], make_body: MakeBody, rows: Rows) -> None:
    _, _, body = ask(json.dumps(make_body(rows[:2], parameters={"reasons": True})).encode())
    for text in outputs_of(body)["reasons"]:
        reasons = json.loads(text)
        weights = [abs(reason["contribution"]) for reason in reasons]
        assert 1 <= len(reasons) <= 5
        assert weights == sorted(weights, reverse=True)
        assert {reason["feature"] for reason in reasons} <= set(rows[0])


@pytest.mark.parametrize("count", [1, 3, 8])
def test_gives_as_many_reasons_as_asked_for(
    ask: Callable[..., Answer], make_body: MakeBody, rows: Rows, bundle: Bundle, count: int
) -> None:
    sent = json.dumps(make_body(rows[:2], parameters={"reasons": count})).encode()
    columns = {name: [row[name] for row in rows[:2]] for name in rows[0]}
    expected = Scorer(bundle).explain(bundle.featuriser.transform(columns), count)
    assert all(len(reasons) <= count for reasons in expected)
    assert [
        [(reason["feature"], reason["contribution"]) for reason in json.loads(text)]
        for text in outputs_of(ask(sent)[2])["reasons"]
    ] == expected


def test_answers_in_binary(
    ask: Callable[..., Answer], make_body: MakeBody, rows: Rows, bundle: Bundle
) -> None:
    wanted = [
        {"name": "churn", "parameters": {"binary_data": True}},
        {"name": "churn_probability"},
        {"name": "reasons", "parameters": {"binary_data": True}},
    ]
    _, headers, body = ask(json.dumps(make_body(rows[:3], outputs=wanted)).encode())
    assert headers["content-type"] == "application/octet-stream"
    length = int(headers["inference-header-content-length"])
    first, second, third = json.loads(body[:length])["outputs"]
    assert len(second["data"]) == 3
    assert "data" not in first
    size = first["parameters"]["binary_data_size"]
    churn = unpack("churn", "BOOL", body[length : length + size])
    assert list(churn) == [probability >= bundle.threshold for probability in second["data"]]
    texts = unpack("reasons", "BYTES", body[length + size :])
    assert len(texts) == 3
    assert len(body) == length + size + third["parameters"]["binary_data_size"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"months": -1}, "months: row 1: -1 is below the minimum 0"),
        ({"months": 500}, "months: row 1: 500 is beyond the training range"),
        ({"months": 1.5}, "months: row 1: 1.5 is not a whole number"),
        ({"months": True}, "months: row 1: True is of type bool"),
        ({"months": None}, "months: row 1: is missing"),
        ({"plan": "iron"}, "plan: row 1: 'iron' is not one of 'silver', 'gold'"),
        ({"plan": None}, "plan: row 1: is missing"),
        ({"plan": 5}, "plan: row 1: 5 is of type int, expected a string"),
        ({"plan": ["gold"]}, "plan: row 1: ['gold'] is of type list"),
        ({"city": {}}, "city: row 1: {} is of type dict"),
        ({"charge": "12"}, "charge: row 1: '12' is of type str, expected a number"),
        ({"charge": 1e300}, "charge: row 1: 1e+300 is too large"),
        ({"charge": 10**400}, "charge: row 1: 1000"),
        ({"active": 1}, "active: row 1: 1 is of type int, expected true or false"),
    ],
)
def test_names_tensor_and_row_of_impossible_values(
    ask: Callable[..., Answer], make_body: MakeBody, rows: Rows, change: dict[str, Any], message: str
) -> None:
    status, headers, body = ask(json.dumps(make_body([rows[0], {**rows[1], **change}])).encode())
    assert (status, headers["content-type"]) == (400, "application/json")
    assert json.loads(body)["error"].startswith(message)


def test_scores_what_training_never_saw_unless_the_contract_forbids(
    ask: Callable[..., Answer], make_body: MakeBody, rows: Rows, score: Callable[[Rows], np.ndarray]
) -> None:
    unseen = [{**rows[0], "city": "Atlantis", "charge": 1e6, "credit": -1e9, "calls": 10**6}]
    status, _, body = ask(json.dumps(make_body(unseen)).encode())
    assert status == 200
    assert outputs_of(body)["churn_probability"] == score(unseen).tolist()


def test_tells_unknown_models_and_versions(ask: Callable[..., Answer], bundle: Bundle) -> None:
    assert ask(b"{", "/v2/models/x/infer")[0] == 404
    status, _, body = ask(b"{", "/v2/models/m/versions/2/infer")
    assert status == 404
    assert bundle.version in json.loads(body)["error"]
    assert ask(b"{", f"/v2/models/m/versions/{bundle.version}/infer")[0] == 400


def test_bounds_every_body(ask: Callable[..., Answer]) -> None:
    whole = b" " * LIMIT
    for path in ("/v2/models/m/infer", "/v1/models/m:predict"):
        assert b"more than 100000 bytes" in ask(whole + b" ", path)[2]
        assert b"more than 100000 bytes" in ask(whole, path, b" ")[2]
        assert b"more than 100000 bytes" in ask(b"", path, b"", content_length=str(LIMIT + 1))[2]
        assert b"more than 100000 bytes" not in ask(whole, path)[2]


def test_passes_other_requests_on_with_their_body(ask: Callable[..., Answer]) -> None:
    assert ask(b"ab", "/v1/models/m:predict", b"c", b"")[::2] == (299, b"abc")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_encoding": "gzip"}, 415),
        ({"content_encoding": "identity"}, 200),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/xml"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 200),
        ({"content_type": "Application/JSON; charset=utf-8"}, 200),
        ({"content_type": "application/vnd.api+json"}, 200),
        ({"inference_header_content_length": "-1"}, 400),
        ({"inference_header_content_length": "5000000"}, 400),
        ({"inference_header_content_length": "x"}, 400),
        ({"inference_header_content_length": "9" * 5000}, 400),
    ],
)
def test_refuses_bodies_in_other_forms(
    ask: Callable[..., Answer], make_body: MakeBody, rows: Rows, headers: dict[str, str], status: int
) -> None:
    assert ask(json.dumps(make_body(rows[:1])).encode(), **headers)[0] == status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
VALUES = (
    JSON
    | st.sampled_from(["gold", "silver", "Bern", "", True, None, 0, 1, -1, 12, 1.5, 10**30, -(2**63), 1e308])
    | st.integers(0, 80)
)


@st.composite
def spoil(draw: st.DrawFn, body: dict[str, Any]) -> dict[str, Any]:
    """Change a good request in a few places."""
    body = json.loads(json.dumps(body))
    for _ in range(draw(st.integers(0, 3))):
        entry = draw(st.sampled_from(body["inputs"]))
        match draw(st.integers(0, 7)):
            case 0:
                entry["data"] = draw(VALUES)
            case 1 | 2 if isinstance(entry.get("data"), list) and entry["data"]:
                entry["data"][draw(st.integers(0, len(entry["data"]) - 1))] = draw(VALUES)
            case 3:
                entry["datatype"] = draw(st.sampled_from(sorted(DATATYPES)) | JSON)
            case 4:
                entry["shape"] = draw(st.lists(st.integers(-1, 3), max_size=3) | JSON)
            case 5:
                entry[draw(st.sampled_from(["name", "parameters", "data"]))] = draw(JSON)
            case 6:
                body[draw(st.sampled_from(["id", "parameters", "outputs", "inputs"]))] = draw(JSON)
                if not isinstance(body["inputs"], list) or not all(
                    isinstance(entry, dict) for entry in body["inputs"] or [0]
                ):
                    return body
            case _:
                body["inputs"].append(dict(entry))
    return body


@given(data=st.data(), count=st.integers(1, 3))
@shared
def test_spoiled_requests_are_refused_or_scored_right(
    ask: Callable[..., Answer],
    make_body: MakeBody,
    rows: Rows,
    score: Callable[[Rows], np.ndarray],
    data: st.DataObject,
    count: int,
) -> None:
    body = data.draw(spoil(make_body(rows[:count])))
    status, _, answer = ask(json.dumps(body).encode())
    assert status in (200, 400)
    if status == 400:
        assert json.loads(answer)["error"]
        return
    columns = {}
    for entry in body["inputs"]:
        values = entry["data"]
        if entry["name"] in rows[0]:
            columns[entry["name"]] = [value[0] if isinstance(value, list) else value for value in values]
    if isinstance(columns["autopay"][0], int | float):  # a nullable boolean may come as a number
        columns["autopay"] = [None if value is None else bool(value) for value in columns["autopay"]]
    sent = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for output in json.loads(answer)["outputs"]:
        if output["name"] == "churn_probability" and "data" in output:
            np.testing.assert_array_equal(output["data"], score(sent))


@given(JSON)
@shared
def test_any_json_is_refused(ask: Callable[..., Answer], document: Any) -> None:
    assert ask(json.dumps(document).encode())[0] == 400


@given(st.binary(max_size=60))
@shared
def test_any_bytes_are_refused(ask: Callable[..., Answer], body: bytes) -> None:
    assert ask(body)[0] == 400


@given(st.binary(max_size=40), st.integers(0, 60))
@shared
def test_any_binary_tail_is_refused_or_read(
    ask: Callable[..., Answer], make_body: MakeBody, rows: Rows, tail: bytes, size: int
) -> None:
    body = make_body(rows[:1])
    for entry in body["inputs"]:
        if entry["name"] == "charge":
            del entry["data"]
            entry["parameters"] = {"binary_data_size": size}
    text = json.dumps(body).encode()
    status, _, _ = ask(text + tail, inference_header_content_length=str(len(text)))
    assert status == (200 if size == len(tail) == 8 and 0 <= np.frombuffer(tail, "<f8")[0] < 3e38 else 400)


class Log:
    """Stands for the queue of events; keeps what it is told."""

    def __init__(self) -> None:
        self.inferences: list[Any] = []

    def make_id(self, given: str | None) -> str:
        return given or "made"

    def log(self, inference: Any) -> None:
        self.inferences.append(inference)


@pytest.mark.parametrize(
    ("scope", "peer", "logged"),
    [
        ("all", "127.0.0.1", True),
        ("all", "10.1.2.3", True),
        ("direct", "10.1.2.3", True),
        ("direct", "2001:db8::7", True),
        ("direct", "127.0.0.1", False),
        ("direct", "::1", False),
        ("direct", "::ffff:127.0.0.1", False),
    ],
)
def test_what_an_agent_passes_on_is_logged_by_the_agent(
    bundle: Bundle, rows: Rows, make_body: MakeBody, scope: Any, peer: str, logged: bool
) -> None:
    log: Any = Log()
    own = Settings(logger_scope=scope)
    engine = Engine(bundle, Scorer(bundle), own, Metrics("test", CollectorRegistry()), log)

    async def predict(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    route = FastPath(predict, engine, "m", LIMIT)
    bodies = {"/v2/models/m/infer": make_body(rows[:1]), "/v1/models/m:predict": {"instances": rows[:1]}}
    for path, body in bodies.items():
        request = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [(b"x-forwarded-for", b"192.0.2.1")],
            "client": (peer, 40_000),
        }
        sent: list[Any] = []

        async def receive(body: Any = body) -> Any:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        asyncio.run(route(request, receive, send))
        assert sent[0]["status"] == 200
    assert len(log.inferences) == (2 if logged else 0)
