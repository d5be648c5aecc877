"""Messages to real receivers: an HTTP server and an SMTP server of this process."""

from __future__ import annotations

import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from clients.notification import Notifier
from clients.settings import Settings


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted; /dead/... answers 500."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"json://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        alive = not self.path.startswith("/dead")
        if alive:
            self.server.messages.append(json.loads(body))
        self.send_response(200 if alive else 500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Postbox(socketserver.ThreadingTCPServer):
    """The least that an SMTP server must do; keeps the mails."""

    daemon_threads = True

    def __init__(self) -> None:
        self.mails: list[str] = []
        super().__init__(("127.0.0.1", 0), _Dialogue)


class _Dialogue(socketserver.StreamRequestHandler):
    server: Postbox

    def handle(self) -> None:
        self.wfile.write(b"220 postbox\r\n")
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            if verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    lines.append(text)
                self.server.mails.append("\n".join(lines))
            self.wfile.write(b"221 bye\r\n" if verb == "QUIT" else b"250 fine\r\n")
            if verb == "QUIT":
                return


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def postbox() -> Iterator[Postbox]:
    server = Postbox()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def connect(urls: str | None) -> Notifier:
    return Notifier.connect(
        Settings(
            _env_file=None,
            runs_url="http://127.0.0.1:9",
            s3_url="http://127.0.0.1:9",
            s3_access_key=SecretStr("a"),
            s3_secret_key=SecretStr("b"),
            tracking_url="http://127.0.0.1:9",
            gateway_url="http://127.0.0.1:9",
            notify_urls=None if urls is None else SecretStr(urls),
        )
    )


def test_message_reaches_every_channel(receiver: Receiver) -> None:
    notifier = connect(f"{receiver.address}/one\n {receiver.address}/two")
    assert notifier.notify("rollback", "telco: b12 taken back", "errors: 4 % <b>more</b>\nthan \\n stable")
    assert notifier.counts == {"sent": 2, "failed": 0}
    first, second = receiver.messages
    assert first == second
    assert (first["title"], first["type"]) == ("telco: b12 taken back", "warning")
    assert first["message"] == "errors: 4 % <b>more</b>\nthan \\n stable"


def test_mail_is_sent(postbox: Postbox) -> None:
    port = postbox.server_address[1]
    notifier = connect(f"mailto://127.0.0.1:{port}?from=tenure@example.com&to=me@example.com&mode=insecure")
    assert notifier.notify("drift", "telco drifts", "monthly_charges: PSI 0.4")
    (mail,) = postbox.mails
    assert "telco drifts" in mail
    assert "To: me@example.com" in mail


def test_dead_channel_is_counted_and_keeps_no_other_from_being_told(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3tt0k3n"
    notifier = connect(
        f"json://user:{secret}@127.0.0.1:9/{secret} {receiver.address}/dead/{secret} {receiver.address}/good"
    )
    assert not notifier.notify("sink", "events are lost", "12 of 100")
    assert notifier.counts == {"sent": 1, "failed": 2}
    assert len(receiver.messages) == 1
    assert caplog.text.count("was not told of 'events are lost' (sink, failure)") == 2
    assert secret not in caplog.text


def test_address_that_nobody_understands_is_told_by_its_place(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = connect(f"nonsense://s3cr3t {receiver.address}")
    assert "address 1 of 2" in caplog.text
    assert "s3cr3t" not in caplog.text
    assert notifier.notify("run", "failed", "why")
    assert not connect("nonsense://s3cr3t").notify("run", "failed", "why")


@pytest.mark.parametrize("urls", [None, "", "  "])
def test_without_channels_nothing_is_sent_and_that_is_said_once(
    urls: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenure.notification")
    notifier = connect(urls)
    assert not notifier.notify("gate", "no", "because")
    assert not notifier.notify("gate", "no", "because")
    assert caplog.text.count("TENURE_NOTIFY_URLS is not set") == 1
    assert notifier.counts == {"sent": 0, "failed": 0}
