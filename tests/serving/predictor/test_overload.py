"""Too much at a time, through the gateway: who is only busy is not taken for dead."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded.gateway import Endpoint, Gateway, Routing, Service
from embedded.ports import find_free_port

Rows = list[dict[str, Any]]
HOST = "telco-default.tenure.example.com"
LIMIT = 4


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[Gateway, str, str]]:
    """A running Envoy, its address, and that of its counters."""
    port, admin_port = find_free_port(), find_free_port()
    gateway = Gateway(tmp_path / "envoy", port, admin_port)
    gateway.prepare()
    log = tmp_path / "envoy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(gateway.command(), stdout=output, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while (problem := gateway.describe_problem()) is not None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, problem
        time.sleep(0.02)
    yield gateway, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}/stats"
    process.terminate()
    process.wait(20)
    gateway.close()


def make_routing(model: str, stable: list[Any], canary: list[Any]) -> Routing:
    def serve(name: str, servers: list[Any]) -> Service:
        endpoints = tuple(Endpoint(server.http_port, server.grpc_port) for server in servers)
        return Service("default", name, model, name == "stable", endpoints)

    services = {("default", name): serve(name, of) for name, of in (("stable", stable), ("canary", canary))}
    weights = {"canary": 50, "stable": 50} if canary else {"stable": 100}
    backends = [{"name": name, "port": 80, "weight": weight} for name, weight in weights.items()]
    route = {
        "metadata": {"name": "telco", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": [HOST],
            "rules": [{"backendRefs": backends}],
        },
    }
    return Routing(services, [route])


@pytest.mark.parametrize("canaries", [0, 1])
def test_a_burst_is_answered_or_refused_and_leaves_nothing_behind(
    start: Callable[..., Any],
    gateway: tuple[Gateway, str, str],
    make_body: Callable[..., Any],
    rows: Rows,
    model_name: str,
    canaries: int,
) -> None:
    servers = [start(f"--max_concurrent={LIMIT}") for _ in range(2)]
    for server in servers:
        server.wait_until_ready()
        # Loads XGBoost: later this would be a pause, not a burst.
        assert server.infer(make_body(rows[:1], parameters={"reasons": True})).status_code == 200
    running, address, stats = gateway
    running.publish(make_routing(model_name, servers[canaries:], servers[:canaries]))
    long, short = make_body(rows, parameters={"reasons": True}), make_body(rows[:1])
    places = 2 * LIMIT
    url, headers = f"{address}/v2/models/{model_name}/infer", {"host": HOST}

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        limits = httpx.Limits(max_connections=2 * places)
        async with httpx.AsyncClient(trust_env=False, timeout=60, limits=limits, headers=headers) as client:

            async def work() -> list[httpx.Response]:
                return [await client.post(url, json=long) for _ in range(15)]

            worked = await asyncio.gather(*(work() for _ in range(2 * places)))
            burst = [answer for answers in worked for answer in answers]
            await asyncio.sleep(1)
            return burst, [await client.post(url, json=short) for _ in range(40)]

    burst, after = asyncio.run(run())
    refused = [answer for answer in burst if answer.status_code == 503]
    assert {answer.status_code for answer in burst} == {200, 503}
    assert len(refused) > 3 * len(servers), "enough to take a process for dead"
    # It is the predictors who say so, each to the end: not the gateway for want of them.
    counted = httpx.get(stats, params={"filter": "ejections_enforced_total"}, trust_env=False).text
    assert {line.rpartition(": ")[2] for line in counted.splitlines()} == {"0"}
    assert {answer.headers.get("retry-after") for answer in refused} == {"1"}
    assert {answer.status_code for answer in after} == {200}
