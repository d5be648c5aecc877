"""A server that answers as it is told: its name, and `ok`, a status, or `reset`. Runs in a pod by itself."""

from __future__ import annotations

import socket
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, MODE = sys.argv[1], sys.argv[2]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        sys.stderr.write(f"POST {self.headers.get('ce-id', 'none')}\n")
        if MODE == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        else:
            self.answer(int(MODE) if MODE.isdigit() else 200)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("x-name", NAME)
        self.send_header("x-event", self.headers.get("ce-id", "none"))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""


ThreadingHTTPServer(("", 8080), Handler).serve_forever()
