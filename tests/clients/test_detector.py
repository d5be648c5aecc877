"""The detector's client against a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from clients.detector import Detector, Refusal
from clients.errors import RefusedError, SettingsError, UnreachableError
from clients.settings import Settings


class Server(ThreadingHTTPServer):
    """Answers every request alike, and remembers it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.document: dict[str, Any] = {}
        self.page = b""
        self.asked: list[tuple[str, Any]] = []
        self.authorization: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, json.loads(body)))
        self.server.authorization = self.headers["authorization"]
        answer = json.dumps(self.server.document).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.server.asked.append((self.path, None))
        answer = self.server.page or json.dumps(self.server.document).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_labels_are_posted_and_refusals_returned(server: Server) -> None:
    server.document = {"accepted": 1, "refused": [{"row": 1, "field": "outcome", "message": "is empty"}]}
    labels = [{"customer_id": "a"}, {"customer_id": "b"}]
    with Detector(server.url + "/") as detector:
        assert detector.post_labels(labels) == [Refusal(1, "outcome", "is empty")]
    assert server.asked == [("/labels", labels)]


def test_transitions_are_posted(server: Server) -> None:
    with Detector(server.url) as detector:
        detector.post_transitions([{"id": "1"}])
    assert server.asked == [("/transitions", [{"id": "1"}])]


@pytest.mark.parametrize(
    ("status", "error"), [(503, UnreachableError), (429, UnreachableError), (400, RefusedError)]
)
def test_what_is_not_kept_is_an_error(server: Server, status: int, error: type[Exception]) -> None:
    server.status = status
    with Detector(server.url) as detector, pytest.raises(error, match=str(status)):
        detector.post_transitions([{"id": "1"}])


def test_nobody_there(server: Server) -> None:
    url = server.url
    server.server_close()
    with Detector(url, timeout=2) as detector, pytest.raises(UnreachableError, match="does not answer"):
        detector.post_labels([])


def test_none_configured(store_settings: Settings) -> None:
    with pytest.raises(SettingsError, match="TENURE_DETECTOR_URL"):
        Detector.connect(store_settings.model_copy(update={"detector_url": None}))


@pytest.mark.parametrize("token", [None, "secret"])
def test_posts_carry_the_token_that_is_configured(
    server: Server, store_settings: Settings, token: str | None
) -> None:
    given = SecretStr(token) if token else None
    settings = store_settings.model_copy(update={"detector_url": server.url, "detector_token": given})
    with Detector.connect(settings) as detector:
        detector.post_transitions([{"id": "1"}])
    assert server.authorization == (f"Bearer {token}" if token else None)


def test_the_status_is_read(server: Server) -> None:
    server.document = {"sink": {}, "watcher": {"leads": True}}
    with Detector(server.url) as detector:
        assert detector.read_status() == server.document
    assert server.asked == [("/status", None)]


def test_what_is_no_detector_is_told_apart_from_one_that_cannot_say(server: Server) -> None:
    with Detector(server.url) as detector:
        server.page = b"<html>"
        with pytest.raises(RefusedError, match="is no detector"):
            detector.read_status()
        server.status = 503
        with pytest.raises(UnreachableError, match="503"):
            detector.read_status()
