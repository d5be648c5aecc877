"""An API server of Kubeflow Pipelines that plays what one has answered, for tests of what talks to it.

The documents have the shape that the v2beta1 API of release 2.17 gives them: snake case, times as RFC 3339,
enumerations by name, empty fields left out, errors as `google.rpc.Status` with the text twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BASE = "/apis/v2beta1"
EXPERIMENT = {
    "experiment_id": "4a5b8d1e-7a65-4f0e-9c1f-2a8f6f3f1a11",
    "display_name": "telco",
    "created_at": "2026-11-21T12:00:00Z",
    "namespace": "team",
    "storage_state": "AVAILABLE",
    "last_run_created_at": "1970-01-01T00:00:00Z",
}
PIPELINE = {
    "pipeline_id": "1d4c2c0b-5f05-4a2b-8d55-91b2b7b0a111",
    "display_name": "tenure-training",
    "name": "tenure-training",
    "created_at": "2026-11-21T12:00:00Z",
}
VERSION = {
    "pipeline_id": PIPELINE["pipeline_id"],
    "pipeline_version_id": "9f5c7b55-0c55-4b7f-8a53-93b2cfd0a222",
    "display_name": "0123456789ab",
    "name": "0123456789ab",
    "created_at": "2026-11-21T12:00:00Z",
}
RUN = {
    "experiment_id": EXPERIMENT["experiment_id"],
    "run_id": "0a2a6c0e-8e9d-4a0c-9f35-3f3d2c1b0333",
    "display_name": "telco drift 1",
    "storage_state": "AVAILABLE",
    "pipeline_version_reference": {
        "pipeline_id": PIPELINE["pipeline_id"],
        "pipeline_version_id": VERSION["pipeline_version_id"],
    },
    "runtime_config": {"parameters": {"project": "{}"}},
    "service_account": "tenure-pipeline",
    "created_at": "2026-11-21T12:00:01Z",
    "scheduled_at": "2026-11-21T12:00:01Z",
    "finished_at": "1970-01-01T00:00:00Z",
    "state": "RUNNING",
    "run_details": {
        "task_details": [
            {
                "run_id": "0a2a6c0e-8e9d-4a0c-9f35-3f3d2c1b0333",
                "task_id": "tenure-training-abcde",
                "display_name": "tenure-training-abcde",
                "create_time": "2026-11-21T12:00:01Z",
                "start_time": "2026-11-21T12:00:01Z",
                "end_time": "1970-01-01T00:00:00Z",
                "state": "RUNNING",
                "child_tasks": [{"pod_name": "tenure-training-abcde-1111"}],
            },
            {
                "run_id": "0a2a6c0e-8e9d-4a0c-9f35-3f3d2c1b0333",
                "task_id": "tenure-training-abcde-1111",
                "display_name": "root",
                "create_time": "2026-11-21T12:00:01Z",
                "start_time": "2026-11-21T12:00:11Z",
                "end_time": "1970-01-01T00:00:00Z",
                "state": "RUNNING",
                "parent_task_id": "tenure-training-abcde",
                "child_tasks": [{"pod_name": "tenure-training-abcde-2222"}],
            },
            {
                "run_id": "0a2a6c0e-8e9d-4a0c-9f35-3f3d2c1b0333",
                "task_id": "tenure-training-abcde-2222",
                "display_name": "ingest-driver",
                "create_time": "2026-11-21T12:00:11Z",
                "start_time": "2026-11-21T12:00:12Z",
                "end_time": "2026-11-21T12:00:16Z",
                "executor_detail": {},
                "state": "SUCCEEDED",
                "child_tasks": [{"pod_name": "tenure-training-abcde-3333"}],
            },
            {
                "run_id": "0a2a6c0e-8e9d-4a0c-9f35-3f3d2c1b0333",
                "task_id": "tenure-training-abcde-3333",
                "display_name": "ingest",
                "create_time": "2026-11-21T12:00:16Z",
                "start_time": "2026-11-21T12:00:17Z",
                "end_time": "1970-01-01T00:00:00Z",
                "state": "RUNNING",
                "child_tasks": [{"pod_name": "tenure-training-abcde-4444"}],
            },
        ]
    },
    "state_history": [{"update_time": "2026-11-21T12:00:02Z", "state": "RUNNING"}],
}
RECURRING = {
    "recurring_run_id": "77a3d1a0-1111-4c8f-a3f0-6b2dfc0a0444",
    "display_name": "telco",
    "pipeline_version_reference": RUN["pipeline_version_reference"],
    "runtime_config": {"parameters": {"project": "{}"}},
    "service_account": "tenure-pipeline",
    "max_concurrency": "1",
    "trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}},
    "mode": "ENABLE",
    "created_at": "2026-11-21T12:00:00Z",
    "updated_at": "2026-11-21T12:00:00Z",
    "status": "ENABLED",
    "no_catchup": True,
    "namespace": "team",
    "experiment_id": EXPERIMENT["experiment_id"],
}


def make_error(code: int, text: str) -> dict[str, Any]:
    """Return the body of an error: the gRPC code and the text, once more in the details."""
    detail = {
        "@type": "type.googleapis.com/google.rpc.Status",
        "code": code,
        "message": text.split(": ")[-1],
    }
    return {"error": text, "code": code, "message": text, "details": [detail]}


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    query: dict[str, list[str]]
    token: str | None
    headers: dict[str, str]
    body: Any


@dataclass
class Recording:
    """What is answered, by method and path; what was asked."""

    url: str = ""
    multi_user: bool = True
    answers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def answer(self, method: str, path: str, document: Any, status: int = 200) -> None:
        self.answers[method, BASE + path] = status, document

    def find(self, call: Call) -> tuple[int, Any]:
        if call.path == f"{BASE}/healthz" and (call.method, call.path) not in self.answers:
            return 200, {"multi_user": self.multi_user, "tag_name": "2.17.0", "pipeline_store": "database"}
        missing = make_error(5, f"{call.method} {call.path}: not recorded")
        return self.answers.get((call.method, call.path), (404, missing))

    def asked(self, method: str, path: str) -> list[Call]:
        return [call for call in self.calls if (call.method, call.path) == (method, BASE + path)]


def record_everything(recording: Recording) -> None:
    """Let every call succeed that starting and following runs makes."""
    pipeline = f"/pipelines/{PIPELINE['pipeline_id']}"
    recording.answer("GET", "/experiments", {"experiments": [EXPERIMENT], "total_size": 1})
    recording.answer("GET", "/pipelines", {"pipelines": [PIPELINE], "total_size": 1})
    recording.answer("GET", f"{pipeline}/versions", {"pipeline_versions": [VERSION], "total_size": 1})
    recording.answer("POST", "/runs", RUN)
    recording.answer("GET", "/runs", {"runs": [RUN], "total_size": 1})
    recording.answer("GET", f"/runs/{RUN['run_id']}", RUN)
    recording.answer("POST", f"/runs/{RUN['run_id']}:terminate", {})
    recording.answer("POST", "/recurringruns", RECURRING)
    recording.answer("GET", "/recurringruns", {"recurringRuns": [RECURRING], "total_size": 1})


@contextmanager
def play() -> Iterator[Recording]:
    """Serve a recording on a free port."""
    recording = Recording()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            is_json = "json" in self.headers.get("content-type", "")
            call = Call(
                self.command,
                parts.path,
                parse_qs(parts.query, keep_blank_values=True),
                self.headers.get("authorization"),
                dict(self.headers.items()),
                json.loads(data) if data and is_json else data,
            )
            recording.calls.append(call)
            status, document = recording.find(call)
            body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
            self.send_response(status)
            kind = "text/plain" if isinstance(document, str) else "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = respond  # noqa: N815 - the names that it looks for

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    recording.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield recording
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
