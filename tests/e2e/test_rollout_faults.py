"""Canaries that must never meet a customer: altered or missing bundles. The stable model serves everybody."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients import names
from tenure.project import load_project

CAUSES = {  # file, byte, what is said of it
    "graph": ("model.onnx", 1000, "model.onnx: its SHA-256 is not the manifest's"),
    "table": ("featuriser.json", 20, "featuriser.json: its SHA-256 is not the manifest's"),
    "manifest": ("manifest.json", 40, "its SHA-256 is not the manifest's"),
}


REMOVED = "The canary entry was removed; the stable model was not touched."


def flip(data: bytes, place: int) -> bytes:
    """Return the bytes with one bit of one of them changed."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def put_altered(stage: Any, file: str, place: int) -> str:
    """Store `new` under another digest with one byte of one file changed; returns the URI."""
    digest = hashlib.sha256(f"{file}{place}".encode()).hexdigest()
    for path in stage.new.directory.iterdir():
        data = path.read_bytes()
        stage.store.put_bytes(
            flip(data, place) if path.name == file else data, f"{stage.uri(digest)}/{path.name}"
        )
    return str(stage.uri(digest))


def put_copy(stage: Any) -> str:
    """Store `new` beside itself, where nobody has fetched it from yet; returns the URI."""
    uri = f"s3://{stage.settings.s3_bucket}/copies/{stage.new.digest}"
    stage.store.upload_directory(stage.new.directory, uri)
    return uri


def add_canary(stage: Any, uri: str, percent: int) -> str:
    entry = stage.build_entry(uri, percent)
    stage.services.inference.patch(stage.name, {"spec": {"canary": [entry]}})
    return str(entry["predictor"]["name"])


def read_failure(stage: Any, canary: str) -> str:
    """Return what the status says of a canary's failed load; empty while it says nothing."""
    for status in stage.read().get("status", {}).get("canaryStatuses", ()):
        if status["name"] == canary and not status["ready"]:
            failure = status["modelStatus"].get("lastFailureInfo", {})
            if status["modelStatus"]["states"]["targetModelState"] == "FailedToLoad":
                return str(failure["message"])
    return ""


def check_stable_alone(stage: Any, before: dict[str, Any], pid: int) -> None:
    """Nothing about the stable predictor may have changed, nor its process."""
    after = stage.read()
    assert after["spec"]["predictor"] == before["spec"]["predictor"]
    assert stage.condition("PredictorReady")["status"] == "True"
    assert stage.find_pid() == pid
    assert stage.find_program().restarts == 0


@pytest.mark.parametrize("cause", CAUSES)
def test_a_flipped_byte_never_meets_a_customer(stage: Any, cause: str) -> None:
    stage.set_up()
    file, place, said = CAUSES[cause]
    uri = put_altered(stage, file, place)
    before, pid = stage.read(), stage.find_pid()
    with stage.load(rate=300) as load:
        canary = add_canary(stage, uri, 50)
        message = stage.wait_until(lambda: read_failure(stage, canary), 30)
        condition = stage.condition("CanaryPredictorReady")
        load.pass_by(300)
        weights = stage.read_weights()
        stage.services.inference.patch(stage.name, {"spec": {"canary": None}})
        stage.wait_for_weights({})
    report = load.stop()
    assert not report.failures, report.explain()
    assert set(report.count()) == {stage.old.version}
    assert said in message  # the server's last words
    assert condition["status"] == "False"
    assert condition["reason"] in ("CrashLoopBackOff", "ModelLoadFailed")
    assert message in condition["message"]
    assert weights[names.service_name(stage.name, canary)] == 0
    check_stable_alone(stage, before, pid)


def test_a_bundle_that_is_not_there_never_meets_a_customer(stage: Any) -> None:
    stage.set_up()
    uri = stage.uri("ab" * 32)
    before, pid = stage.read(), stage.find_pid()
    with stage.load(rate=300) as load:
        canary = add_canary(stage, uri, 50)
        message = stage.wait_until(lambda: read_failure(stage, canary), 30)
        condition = stage.condition("CanaryPredictorReady")
        load.pass_by(300)
        assert stage.read_weights()[names.service_name(stage.name, canary)] == 0
        stage.services.inference.patch(stage.name, {"spec": {"canary": None}})
        stage.wait_for_weights({})
    report = load.stop()
    assert not report.failures, report.explain()
    assert set(report.count()) == {stage.old.version}
    assert f"{uri} holds nothing" in message
    assert (condition["status"], condition["reason"]) == ("False", "ModelLoadFailed")
    check_stable_alone(stage, before, pid)


def test_a_rollout_while_the_store_is_down_waits_for_it(stage: Any) -> None:
    """Its bundle is stored, but nobody can fetch it: it is told so, and goes on once the store is back."""
    stage.set_up()
    uri = put_copy(stage)
    before, pid = stage.read(), stage.find_pid()
    with stage.load(rate=100) as load:
        stage.supervisor.stop("store")
        canary = add_canary(stage, uri, 50)
        message = stage.wait_until(lambda: read_failure(stage, canary), 120)
        condition = stage.condition("CanaryPredictorReady")
        load.pass_by(100)
        assert stage.read_weights()[names.service_name(stage.name, canary)] == 0
        check_stable_alone(stage, before, pid)
        stage.embedded("up")
        stage.wait_for_weights({canary: 50}, 120)
        load.pass_by(100)
        stage.services.inference.patch(stage.name, {"spec": {"canary": None}})
        stage.wait_for_weights({})
    report = load.stop()
    assert not report.failures, report.explain()
    assert set(report.count()) == {stage.old.version, stage.new.version}
    assert f"{uri} cannot be fetched: the object store does not answer" in message
    assert (condition["status"], condition["reason"]) == ("False", "ModelLoadFailed")
    check_stable_alone(stage, before, pid)


class Spoiler(ThreadingHTTPServer):
    """A way to the object store that spoils a bundle as soon as its writer has read all of it back.

    Whoever writes through it sees only what they wrote; whoever fetches it later does not.
    """

    daemon_threads = True

    def __init__(self, store: str, spoil: Callable[[str], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Way)
        self.store = store
        self.spoil = spoil
        self.unread: set[str] = set()
        self.spoiled: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Way(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Spoiler

    def _pass_on(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        with httpx.Client(base_url=self.server.store, trust_env=False, timeout=30) as client:
            # The Host header is signed: it goes on as it came.
            request = client.build_request(
                self.command, self.path, content=data, headers=list(self.headers.items())
            )
            answer = client.send(request, stream=True)
            body = b"".join(answer.iter_raw())
        path = self.path.partition("?")[0]
        if self.command == "PUT" and "/bundles/" in path:
            self.server.unread.add(path)
        elif self.command == "GET" and path in self.server.unread:
            self.server.unread.remove(path)
            if not self.server.unread:
                folder = path.rpartition("/")[0]
                self.server.spoil(f"s3:/{folder}")
                self.server.spoiled.append(folder)
        self.send_response(answer.status_code)
        for name, value in answer.headers.multi_items():
            if name not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = answer.headers.get("content-length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("content-length", length)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815 - http.server looks for them

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def spoil_uploads(stage: Any, spoil: Callable[[str], None]) -> Iterator[Spoiler]:
    """Have runs that start now reach the object store by a `Spoiler`."""
    env_file: Path = stage.home / "env"
    text = env_file.read_text(encoding="utf-8")
    with Spoiler(stage.settings.s3_url, spoil) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert stage.settings.s3_url in text
            env_file.write_text(text.replace(stage.settings.s3_url, server.url), encoding="utf-8")
            yield server
        finally:
            env_file.write_text(text, encoding="utf-8")
            server.shutdown()
            thread.join()


def corrupt(stage: Any, uri: str) -> None:
    file = f"{uri}/model.onnx"
    stage.store.put_bytes(flip(stage.store.get_bytes(file), 5000), file)


def vanish(stage: Any, uri: str) -> None:
    for stored in stage.store.list(uri):
        stage.store.delete(stored.uri)


def test_a_run_whose_upload_is_spoiled_fails_and_takes_its_canary_away(stage: Any) -> None:
    """The pipeline's own roll-out: the bundle is whole when it is verified, and not when it is fetched."""
    stage.set_up()
    before, pid = stage.read(), stage.find_pid()
    file = stage.write_project(
        rollout={"ready_timeout_seconds": 8, "steps": [50]}, gate={"margin": 0.2, "slice_margin": 0.5}
    )
    with stage.load(rate=100) as load, spoil_uploads(stage, lambda uri: corrupt(stage, uri)) as server:
        answer = stage.tenure("run", "--json", "-p", str(file), check=False)
        load.pass_by(100)
    report = load.stop()
    run = json.loads(answer.stdout)
    assert answer.returncode == 1
    assert run["state"] == "FAILED"
    assert len(set(server.spoiled)) == 1, run  # each attempt stores it anew, and meets the same
    steps = {step["name"]: step for step in run["steps"]}
    assert steps["gate"]["state"] == "SUCCEEDED"
    assert steps["rollout"]["state"] == "FAILED"
    # The cause, and what was done about it.
    assert "model.onnx: its SHA-256 is not the manifest's" in run["error"], run["error"]
    assert REMOVED in run["error"]
    assert not stage.read()["spec"].get("canary")
    assert not report.failures, report.explain()
    assert set(report.count()) == {stage.old.version}
    check_stable_alone(stage, before, pid)
    stage.wait_until(lambda: len(stage.list_programs()) == 1, 30)


def test_a_rollout_whose_upload_vanishes_takes_its_canary_away(stage: Any, platform: Any) -> None:
    """The component alone: the canary never becomes ready, for there is nothing to be fetched."""
    stage.set_up()
    before, pid = stage.read(), stage.find_pid()
    file = stage.write_project(rollout={"ready_timeout_seconds": 8})
    client = platform.tracking.client
    run_id = client.create_run(client.create_experiment("vanishing")).info.run_id
    vanish(stage, stage.uri(stage.new.digest))
    call = "import sys; from components.rollout import run; run(*sys.argv[1:])"
    arguments = [load_project(file).model_dump_json(), str(stage.new.directory), run_id, f"{file}.md"]
    with (
        stage.load(rate=100) as load,
        Spoiler(stage.settings.s3_url, lambda uri: vanish(stage, uri)) as server,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            answer = platform.run(
                sys.executable, "-c", call, *arguments, check=False, TENURE_S3_URL=server.url
            )
        finally:
            server.shutdown()
            thread.join()
    stage.upload()
    report = load.stop()
    assert answer.returncode != 0
    assert len(server.spoiled) == 1, answer.stderr
    assert f"{stage.uri(stage.new.digest)} holds nothing" in answer.stderr, answer.stderr
    assert REMOVED in answer.stderr
    assert not stage.read()["spec"].get("canary")
    assert not report.failures, report.explain()
    assert set(report.count()) == {stage.old.version}
    check_stable_alone(stage, before, pid)
