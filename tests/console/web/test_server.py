"""The page's addresses: who is answered, with which headers, and what is never served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from console.web.guard import HEADERS, read_name


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1:8080",
        "10.1.2.3",
        "[::1]:8080",
        "console.example.com",
        "console.example.com.:80",
    ],
)
def test_known_names_and_addresses_are_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8080",
        "localhost@evil.example",
        "evil.example/localhost",
        "",
        "localhost:port",
        "[::1",
        "console.example.com evil.example",
    ],
)
def test_a_strangers_name_is_refused_whatever_it_asks_for(client: httpx.Client, host: str) -> None:
    for path in ("/", "/board", "/healthz", "/metrics", "/static/page.css"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code in (400, 421)
        assert "telco" not in answer.text


@given(st.text(max_size=60))
@example("%A")
@example("[fe80::1%EN0]")
def test_no_host_header_is_too_odd(host: str) -> None:
    name = read_name(host)
    assert name is None or name.lower() == name


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_only_reads(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/board", "/healthz", "/metrics", "/static/page.js", "/nothing"])
def test_every_answer_has_the_headers(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "access-control-allow-origin" not in answer.headers
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_it_is_ready_once_it_has_something_to_say(client: httpx.Client, stage: Any) -> None:
    stage.fail()
    client.get("/")
    assert client.get("/readyz").status_code == 200, "what cannot be read is what the page then says"


def test_it_is_not_ready_before(client: httpx.Client, sources: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.services, "refresh", lambda: None)
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_only_reports_that_the_ledger_knows_are_served(client: httpx.Client, stage: Any) -> None:
    stage.report("<h1>Drift</h1>")
    stage.reports["f" * 32] = "somebody else's"
    client.get("/")
    known = next(iter(stage.reports))
    answer = client.get(f"/reports/{known}")
    assert answer.text == "<h1>Drift</h1>"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    for other in ("f" * 32, "0" * 32, "..%2f..%2fetc", known.upper()):
        assert client.get(f"/reports/{other}").status_code == 404


def test_nothing_outside_is_named(client: httpx.Client) -> None:
    for path in ("/", "/static/page.css", "/static/page.js"):
        text = client.get(path).text
        for word in ('src="http', "@import", "url(http", "//cdn", "style="):
            assert word not in text


def test_metrics_say_which_source_answers(client: httpx.Client, stage: Any) -> None:
    stage.ledger = stage.ledger
    client.get("/")
    text = client.get("/metrics").text
    for name in ("InferenceServices", "ledger", "detector", "runs"):
        assert f'tenure_console_source_up{{source="{name}"}} 1.0' in text
