"""What the judge of a canary relies on: Envoy's counters tell of every failure that the fallback hides."""

from __future__ import annotations

import asyncio
import collections
import itertools
from typing import Any

import httpx
import pytest

from embedded.gateway import Endpoint, Routing, Service

from .conftest import Counts, Envoy, Servers, wait_until

HOST = "telco-default.tenure.example.com"
STABLE = "default/telco-predictor/http"
CANARY = "default/telco-green-predictor/http"
PAIR = "default/telco-green-predictor+telco-predictor/http"


def make_routing(
    stable: Endpoint, *canaries: Endpoint, weight: int = 50, mirror: int | None = None
) -> Routing:
    services = [
        Service("default", "telco-predictor", "telco", True, (stable,)),
        Service("default", "telco-green-predictor", "telco", False, canaries),
    ]
    rule: dict[str, Any] = {
        "backendRefs": [
            {"name": "telco-green-predictor", "port": 80, "weight": weight},
            {"name": "telco-predictor", "port": 80, "weight": 100 - weight},
        ]
    }
    if mirror is not None:
        backend = {"name": "telco-green-predictor", "port": 80}
        rule["filters"] = [
            {"type": "RequestMirror", "requestMirror": {"backendRef": backend, "percent": mirror}}
        ]
    route = {
        "metadata": {"name": "telco", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": [HOST],
            "rules": [rule],
        },
    }
    return Routing({(service.namespace, service.name): service for service in services}, [route])


def ask(envoy: Envoy, number: int) -> collections.Counter[tuple[int, str]]:
    """Send requests from eight clients; count the answers by status and who gave them."""
    seen: collections.Counter[tuple[int, str]] = collections.Counter()

    async def work(client: httpx.AsyncClient) -> None:
        for _ in range(number // 8):
            url = f"{envoy.url}/v2/models/telco/infer"
            answer = await client.post(url, content=b"{}", headers={"host": HOST})
            seen[answer.status_code, answer.json()["model_version"]] += 1

    async def run() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            await asyncio.gather(*(work(client) for _ in range(8)))

    asyncio.run(run())
    return seen


def count_meant(counts: Counts) -> int:
    """Return how many requests were meant for the canary, whoever answered them."""
    return sum(counts.get("upstream_rq_completed", name) for name in (CANARY, PAIR))


def count_failures(counts: Counts) -> int:
    """Return how many of them it failed: those that never came to it, and those that it was tried with."""
    untried = count_meant(counts) - counts.get("upstream_rq_total", CANARY)
    failed = counts.get("endpoint_rq_error", CANARY)
    return untried + failed - counts.get("upstream_rq_pending_failure_eject", CANARY)


def test_a_good_canary_fails_nothing(envoy: Envoy, servers: Servers):
    envoy.gateway.publish(make_routing(servers.start("v1"), servers.start("v2")))
    seen = ask(envoy, 400)
    counts = envoy.count()
    assert count_meant(counts) == seen[200, "v2"]
    assert counts.get("upstream_rq_completed", STABLE) == seen[200, "v1"]
    assert count_failures(counts) == counts.get("upstream_rq_xx", STABLE, "5") == 0


@pytest.mark.parametrize("status", [400, 500, 503])
def test_its_own_errors_reach_clients_and_are_counted(envoy: Envoy, servers: Servers, status: int):
    envoy.gateway.publish(make_routing(servers.start("v1"), servers.start("v2", manner=str(status))))
    seen = ask(envoy, 400)
    counts = envoy.count()
    assert counts.get("upstream_rq_xx", PAIR, str(status // 100)) == seen[status, "v2"] == count_meant(counts)
    assert count_failures(counts) == (seen[status, "v2"] if status >= 500 else 0)
    assert seen[status, "v2"] > 100


def test_a_canary_that_stable_stands_in_for_fails_all_that_was_meant_for_it(envoy: Envoy, servers: Servers):
    envoy.gateway.publish(make_routing(servers.start("v1"), servers.start("v2", manner="reset")))
    seen = ask(envoy, 400)
    assert seen[200, "v1"] > 380
    counts = envoy.count()
    assert count_meant(counts) > 100
    assert count_failures(counts) == count_meant(counts)
    assert counts.get("upstream_rq_xx", STABLE, "5") == 0


def test_a_killed_canary_fails_all_that_was_meant_for_it_since(envoy: Envoy, servers: Servers):
    envoy.gateway.publish(make_routing(servers.start("v1"), servers.start("v2")))
    before = ask(envoy, 160)[200, "v2"]
    servers.processes["v2"].kill()
    assert ask(envoy, 400) == {(200, "v1"): 400}
    counts = envoy.count()
    assert count_failures(counts) == count_meant(counts) - before > 100


def test_a_mirrored_canary_without_weight_is_counted_and_nobody_waits_for_it(envoy: Envoy, servers: Servers):
    stable, canary = servers.start("v1"), servers.start("v2", manner="slow")
    envoy.gateway.publish(make_routing(stable, canary, weight=0, mirror=25))
    assert ask(envoy, 800) == {(200, "v1"): 800}
    # 800 draws at 25 %: five standard deviations are 61.
    wait_until(lambda: 139 <= count_meant(envoy.count()) <= 261, "the copies")
    wait_until(
        lambda: envoy.count().get("upstream_rq_time_count", CANARY) == count_meant(envoy.count()), "times"
    )
    counts = envoy.count()
    assert count_failures(counts) == 0
    assert counts.get("upstream_rq_time_bucket", CANARY, "40") == 0
    assert counts.get("upstream_rq_time_bucket", STABLE, "40") > 400
    met = count_meant(counts)
    servers.processes["v2"].kill()
    assert ask(envoy, 400) == {(200, "v1"): 400}
    wait_until(lambda: count_meant(envoy.count()) > met, "copies for nobody")
    counts = envoy.count()
    assert count_failures(counts) == count_meant(counts) - met


def test_durations_are_told_soon_and_in_fine_steps(envoy: Envoy, servers: Servers):
    envoy.gateway.publish(make_routing(servers.start("v1"), servers.start("v2", manner="slow")))
    seen = ask(envoy, 160)
    wait_until(lambda: envoy.count().get("upstream_rq_time_count", PAIR) == seen[200, "v2"], "times", 3)
    bounds = [float(bound) for bound in envoy.count().list_bounds("upstream_rq_time_bucket", PAIR)]
    finite = sorted(bound for bound in bounds if 2 < bound <= 10_000)
    assert all(above / below <= 1.67 for below, above in itertools.pairwise(finite))


def test_counters_of_clusters_go_on_when_a_process_joins_and_those_of_processes_do_not(
    envoy: Envoy, servers: Servers
):
    stable, canary = servers.start("v1"), servers.start("v2")
    envoy.gateway.publish(make_routing(stable, canary))
    first = ask(envoy, 160)[200, "v2"]
    envoy.gateway.publish(make_routing(stable, canary, servers.start("v3")))
    seen = ask(envoy, 160)
    counts = envoy.count()
    second = seen[200, "v2"] + seen[200, "v3"]
    assert counts.get("upstream_rq_total", CANARY) == count_meant(counts) == first + second
    assert counts.get("endpoint_rq_total", CANARY) == second
