"""Several workers on the same ports, as real processes."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest

Rows = list[dict[str, Any]]
MakeBody = Callable[..., dict[str, Any]]
Start = Callable[..., Any]
SECONDS = 60


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def list_workers(server: Any) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def listens(process: psutil.Process, port: int) -> bool:
    return any(
        entry.pid == process.pid and entry.laddr.port == port and entry.status == psutil.CONN_LISTEN
        for entry in psutil.net_connections()
    )


def start_two(start: Start) -> Any:
    server = start(TENURE_WORKERS="2")
    server.wait_until_ready()
    wait_for(lambda: all(listens(worker, server.grpc_port) for worker in list_workers(server)))
    wait_for(lambda: all(listens(worker, server.http_port) for worker in list_workers(server)))
    assert len(list_workers(server)) == 2
    return server


def read_metrics(server: Any) -> dict[str, float]:
    with httpx.Client(trust_env=False, timeout=20) as client:
        text = client.get(f"http://127.0.0.1:{server.http_port}/metrics").text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def ask(server: Any, name: str, body: dict[str, Any]) -> httpx.Response:
    """Ask over a connection of its own: the kernel gives it to one of the workers."""
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.post(f"http://127.0.0.1:{server.http_port}/v2/models/{name}/infer", json=body)


@pytest.fixture(scope="module")
def server(start: Start) -> Any:
    return start_two(start)


def test_both_answer_and_count_together(
    server: Any, model_name: str, make_body: MakeBody, rows: Rows, score: Callable[[Rows], np.ndarray]
) -> None:
    before = read_metrics(server)
    times = {worker.pid: worker.cpu_times().user for worker in list_workers(server)}
    for number in range(60):
        sent = rows[number : number + 2]
        answer = ask(server, model_name, make_body(sent))
        assert answer.json()["outputs"][0]["data"] == score(sent).tolist()
    assert ask(server, model_name, {"inputs": []}).status_code == 400
    assert len(times) == 2
    after = read_metrics(server)

    def grown(start: str, *labels: str) -> float:
        names = [name for name in after if name.startswith(start) and all(label in name for label in labels)]
        assert names
        return sum(after[name] - before.get(name, 0) for name in names)

    assert grown("churn_predictions_total") == 120
    assert grown("churn_score_count") == 120
    assert grown("churn_requests_total", 'protocol="v2"', 'status="ok"') == 60
    assert grown("churn_requests_total", 'protocol="v2"', 'status="refused"') == 1
    assert grown("churn_request_seconds_count", 'protocol="v2"') == 61
    assert after["process_start_time_seconds"] == pytest.approx(
        psutil.Process(server.process.pid).create_time(), abs=2
    )
    assert not any("request_predict_seconds" in name for name in after)


def test_grpc_answers_from_both(server: Any) -> None:
    for _ in range(10):
        with grpc.insecure_channel(
            f"127.0.0.1:{server.grpc_port}", [("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            assert call(b"", timeout=20) == b"\x08\x01"


def test_one_that_dies_is_replaced(server: Any, model_name: str, make_body: MakeBody, rows: Rows) -> None:
    before = read_metrics(server)
    first, second = list_workers(server)
    first.kill()

    def find_new() -> bool:
        pids = {worker.pid for worker in list_workers(server)}
        return len(pids) == 2 and first.pid not in pids

    wait_for(find_new)
    assert ask(server, model_name, make_body(rows[:1])).status_code == 200  # by the other one
    new = next(worker for worker in list_workers(server) if worker.pid != second.pid)
    wait_for(lambda: listens(new, server.http_port))
    second.kill()
    wait_for(lambda: second.pid not in {worker.pid for worker in list_workers(server)})
    assert ask(server, model_name, make_body(rows[:1])).status_code == 200  # by the new one
    name = next(name for name in before if name.startswith("churn_score_count"))
    assert read_metrics(server)[name] == before[name] + 2
    wait_for(lambda: len(list_workers(server)) == 2)
    assert "is started again" in server.log.read_text()


def test_all_end_together(start: Start) -> None:
    server = start_two(start)
    workers = list_workers(server)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(SECONDS) == 0
    assert not any(psutil.pid_exists(worker.pid) for worker in workers)


def test_none_stays_without_its_keeper(start: Start) -> None:
    server = start_two(start)
    workers = list_workers(server)
    server.process.kill()
    server.process.wait(SECONDS)
    _, alive = psutil.wait_procs(workers, SECONDS)
    assert not alive


def test_does_not_start_where_somebody_listens(start: Start, server: Any) -> None:
    for flags in ([f"--http_port={server.http_port}"], [f"--grpc_port={server.grpc_port}"]):
        other = start(*flags, TENURE_WORKERS="2")
        assert other.process.wait(SECONDS) == 1
        assert "cannot listen on" in other.log.read_text()


def test_does_not_start_without_a_bundle(start: Start, tmp_path: Any) -> None:
    server = start(model_dir=tmp_path, TENURE_WORKERS="2")
    assert server.process.wait(SECONDS) == 1
    assert "the bundle cannot be served" in server.log.read_text()


def test_listens_only_when_all_are_ready(start: Start) -> None:
    server = start(TENURE_WORKERS="2")
    workers = wait_for(lambda: len(found := list_workers(server)) == 2 and found)
    os.kill(workers[1].pid, signal.SIGSTOP)
    try:
        wait_for(lambda: any("onnxruntime" in entry.path for entry in workers[0].memory_maps()))
        time.sleep(1)  # the first has loaded all that it needs
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", server.http_port)) != 0
    finally:
        os.kill(workers[1].pid, signal.SIGCONT)
    server.wait_until_ready()
