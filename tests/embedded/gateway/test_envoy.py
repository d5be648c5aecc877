"""The gateway's files at work in a real Envoy."""

from __future__ import annotations

import asyncio
import collections
import os
import signal
import time
from typing import Any

import httpx
import pytest

from embedded.gateway import Endpoint, GatewayError, Routing, Service

from .conftest import Envoy, Load, Servers, wait_until

HOST = "telco-default.tenure.example.com"


def make_services(stable: Endpoint | None, canary: Endpoint | None) -> dict[tuple[str, str], Service]:
    services = [
        Service("default", "telco-predictor", "telco", True, (stable,) if stable else ()),
        Service("default", "telco-green-predictor", "telco", False, (canary,) if canary else ()),
    ]
    return {(service.namespace, service.name): service for service in services}


def make_route(canary: int, name: str = "telco", **rule: Any) -> dict[str, Any]:
    def refer(service: str, weight: int) -> dict[str, Any]:
        return {"name": service, "port": 80, "weight": weight}

    def single_out(variant: str, service: str) -> dict[str, Any]:
        header = {"name": "x-tenure-variant", "value": variant}
        return {"matches": [{"headers": [header]}], "backendRefs": [refer(service, 1)]}

    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": [f"{name}-default.tenure.example.com"],
            "rules": [
                single_out("stable", "telco-predictor"),
                single_out("green", "telco-green-predictor"),
                {
                    "backendRefs": [
                        refer("telco-green-predictor", canary),
                        refer("telco-predictor", 100 - canary),
                    ],
                    **rule,
                },
            ],
        },
    }


def ask(envoy: Envoy, path: str = "/v2/models/telco/infer", **headers: str) -> httpx.Response:
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    return httpx.get(envoy.url + path, headers={"host": HOST, **headers}, trust_env=False, timeout=10)


def count(envoy: Envoy, number: int, **headers: str) -> collections.Counter[str]:
    with httpx.Client(trust_env=False) as client:
        return count_with(client, envoy, number, **headers)


def count_with(client: httpx.Client, envoy: Envoy, number: int, **headers: str) -> collections.Counter[str]:
    seen: collections.Counter[str] = collections.Counter()
    names = {key.replace("_", "-"): value for key, value in headers.items()}
    for _ in range(number):
        response = client.get(f"{envoy.url}/v2/models/telco", headers={"host": HOST, **names})
        seen[response.json()["model_version"]] += 1
    return seen


def test_splits_by_weight_and_sticks_to_a_customer(envoy: Envoy, servers: Servers):
    stable, canary = servers.start("v1"), servers.start("v2")
    services = make_services(stable, canary)
    envoy.gateway.publish(Routing(services, [make_route(20)]))
    # 1,000 draws at 20 %: five standard deviations are 63.
    assert 137 <= count(envoy, 1000)["v2"] <= 263

    def list_canary_customers() -> set[str]:
        chosen = set()
        with httpx.Client(trust_env=False) as client:
            for number in range(300):
                seen = count_with(client, envoy, 2, x_customer_id=f"row-{number:07d}")
                assert len(seen) == 1, "a customer stays on one side"
                if "v2" in seen:
                    chosen.add(f"row-{number:07d}")
        return chosen

    before = list_canary_customers()
    assert 25 <= len(before) <= 95
    envoy.gateway.publish(Routing(services, [make_route(50)]))
    after = list_canary_customers()
    assert before <= after, "whoever had the canary keeps it when its share grows"
    assert len(after) >= 105


def test_header_singles_out_a_variant(envoy: Envoy, servers: Servers):
    services = make_services(servers.start("v1"), servers.start("v2"))
    envoy.gateway.publish(Routing(services, [make_route(0)]))
    assert count(envoy, 50) == {"v1": 50}
    assert count(envoy, 20, x_tenure_variant="green") == {"v2": 20}
    assert count(envoy, 20, x_tenure_variant="stable") == {"v1": 20}


def test_hosts_paths_and_the_explaining_404(envoy: Envoy, servers: Servers):
    services = make_services(servers.start("v1"), servers.start("v2"))
    other = make_route(100, name="other")
    other["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    other["spec"]["rules"] = [{"backendRefs": [{"name": "other-predictor", "port": 80}]}]
    services["default", "other-predictor"] = Service(
        "default", "other-predictor", "other", True, (servers.start("o1"),)
    )
    envoy.gateway.publish(Routing(services, [make_route(0)]))
    assert ask(envoy, host=f"{HOST}:{envoy.port}").json() == {"model_version": "v1"}
    assert ask(envoy, "/anything", host="127.0.0.1").status_code == 200, "the only route takes everything"

    envoy.gateway.publish(Routing(services, [make_route(0), other]))
    for path, version in {
        "/v2/models/telco/infer": "v1",
        "/v1/models/telco:predict": "v1",
        "/v2/models/other/ready": "o1",
        "/v1/models/other": "o1",
    }.items():
        assert ask(envoy, path, host="127.0.0.1").json() == {"model_version": version}
    assert ask(envoy, "/x", host="other-default.tenure.example.com").json() == {"model_version": "o1"}
    lost = ask(envoy, "/v2/models/telcoo/infer", host="127.0.0.1")
    assert lost.status_code == 404
    assert lost.headers["content-type"] == "application/json"
    assert lost.json()["routes"]["default/other"]["paths"] == ["/v2/models/other"]


def test_path_rules_headers_and_mirror(envoy: Envoy, servers: Servers):
    services = make_services(servers.start("v1"), servers.start("v2"))
    mirrored = make_route(
        0,
        filters=[
            {
                "type": "RequestMirror",
                "requestMirror": {"backendRef": {"name": "telco-green-predictor", "port": 80}},
            }
        ],
    )
    mirrored["spec"]["rules"].append(
        {
            "matches": [{"path": {"type": "PathPrefix", "value": "/green"}}],
            "backendRefs": [{"name": "telco-green-predictor", "port": 80}],
        }
    )
    mirrored["spec"]["rules"].append(
        {
            "matches": [{"path": {"type": "Exact", "value": "/green/stable"}}],
            "backendRefs": [{"name": "telco-predictor", "port": 80}],
        }
    )
    envoy.gateway.publish(Routing(services, [mirrored]))
    assert ask(envoy, "/green").json() == {"model_version": "v2"}
    assert ask(envoy, "/green/x").json() == {"model_version": "v2"}
    assert ask(envoy, "/greens").json() == {"model_version": "v1"}
    assert ask(envoy, "/green/stable").json() == {"model_version": "v1"}
    before = count_requests(envoy, "telco-green-predictor")
    assert count(envoy, 30) == {"v1": 30}
    wait_until(lambda: count_requests(envoy, "telco-green-predictor") >= before + 30, "the mirrored requests")


def test_removed_headers_come_neither_to_a_backend_nor_to_a_mirror(envoy: Envoy, servers: Servers):
    services = make_services(servers.start("v1", manner="record"), servers.start("v2", manner="record"))
    strip = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Ce-Id"]}}
    copy = {"backendRef": {"name": "telco-green-predictor", "port": 80}, "percent": 100}
    route = make_route(0, filters=[strip, {"type": "RequestMirror", "requestMirror": copy}])
    for rule in route["spec"]["rules"][:2]:
        rule["filters"] = [strip]
    envoy.gateway.publish(Routing(services, [route]))

    def read(mark: str) -> dict[str, str]:
        lines = [line for line in servers.record.read_text().splitlines() if f"x-mark: {mark}|" in line]
        return {line.split()[0]: line for line in lines}

    for mark, headers in (("split", {}), ("asked", {"x_tenure_variant": "green"})):
        assert ask(envoy, ce_id="mine", x_mark=mark, ce_type="kept", **headers).status_code == 200
    wait_until(lambda: set(read("split")) == {"v1", "v2"}, "the copy")
    assert set(read("asked")) == {"v2"}
    for line in (*read("split").values(), *read("asked").values()):
        assert "ce-type: kept" in line
        assert "ce-id" not in line.lower()


def count_requests(envoy: Envoy, service: str) -> int:
    text = envoy.get_stats(f"^cluster.default/{service}/http.upstream_rq_total$")
    return int(text.split(":")[1])


def test_a_service_without_processes_answers_503_or_falls_back(envoy: Envoy, servers: Servers):
    services = make_services(servers.start("v1"), None)
    envoy.gateway.publish(Routing(services, [make_route(50)]))
    assert count(envoy, 100) == {"v1": 100}
    assert ask(envoy, x_tenure_variant="green").status_code == 503, "a single backend has no fallback"
    unknown = make_route(50, name="nobody")
    unknown["spec"]["rules"] = [{"backendRefs": [{"name": "nobody-predictor", "port": 80}]}]
    envoy.gateway.publish(Routing(services, [make_route(50), unknown]))
    assert ask(envoy, host="nobody-default.tenure.example.com").status_code == 503


def test_publishing_the_same_changes_nothing(envoy: Envoy, servers: Servers):
    routing = Routing(make_services(servers.start("v1"), servers.start("v2")), [make_route(20)])
    assert envoy.gateway.publish(routing)
    assert not envoy.gateway.publish(routing)


def test_a_route_that_envoy_refuses_keeps_the_last_good_one(envoy: Envoy, servers: Servers, monkeypatch):
    services = make_services(servers.start("v1"), servers.start("v2"))
    envoy.gateway.publish(Routing(services, [make_route(0)]))
    monkeypatch.setattr("embedded.gateway.publisher._APPLY_SECONDS", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr("embedded.gateway.hosts.REQUEST_SECONDS", "soon")
        with pytest.raises(GatewayError, match="last good"):
            envoy.gateway.publish(Routing(services, [make_route(0)]))
    assert envoy.gateway.describe_problem() is not None
    assert count(envoy, 10) == {"v1": 10}
    envoy.gateway.publish(Routing(services, [make_route(100)]))
    assert envoy.gateway.describe_problem() is None
    assert count(envoy, 10) == {"v2": 10}


def test_restarted_envoy_goes_on_with_the_same_routes(envoy: Envoy, servers: Servers):
    services = make_services(servers.start("v1"), servers.start("v2"))
    envoy.gateway.publish(Routing(services, [make_route(100)]))
    envoy.stop()
    envoy.gateway.publish(Routing(services, [make_route(0)]))
    assert envoy.gateway.describe_problem() is not None
    envoy.start()
    assert count(envoy, 20) == {"v1": 20}


def test_no_request_is_lost_over_weights_replacement_and_a_killed_canary(envoy: Envoy, servers: Servers):
    stable, canary = servers.start("v1"), servers.start("v2")
    envoy.gateway.publish(Routing(make_services(stable, canary), [make_route(0)]))
    took = []

    async def run() -> Load:
        async with Load(f"{envoy.url}/v2/models/telco/infer", HOST) as load:
            for step in range(20):
                weight = (10, 50, 90, 0, 100)[step % 5]
                start = time.monotonic()
                await asyncio.to_thread(
                    envoy.gateway.publish, Routing(make_services(stable, canary), [make_route(weight)])
                )
                took.append(time.monotonic() - start)
                seen = load.total
                while load.total < seen + 100:
                    await asyncio.sleep(0.005)
            # Another process in the stable one's place: in first, then out, then gone.
            newer = await asyncio.to_thread(servers.start, "v3")
            await asyncio.to_thread(
                envoy.gateway.publish, Routing(make_services(newer, canary), [make_route(50)])
            )
            await asyncio.sleep(0.5)
            servers.processes["v1"].terminate()
            seen = load.total
            while load.total < seen + 500:
                await asyncio.sleep(0.005)
            assert not load.failures, "before the canary is killed"
            os.kill(servers.processes["v2"].pid, signal.SIGKILL)
            seen = load.total
            while load.total < seen + 1500:
                await asyncio.sleep(0.005)
            return load

    load = asyncio.run(run())
    print(f"{load.total} requests, {load.seen}, slowest change {max(took) * 1000:.0f} ms")  # noqa: T201
    assert load.failures == []
    assert set(load.seen) == {"v1", "v2", "v3"}
    assert sorted(took)[len(took) // 2] < 0.1
