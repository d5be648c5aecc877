"""The pilot's route on Envoy Gateway: it changes without losing a request, and its counters are the truth."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients import names
from clients.services import Services
from serving.pilot.gateway import Gateway
from serving.pilot.page import Backend
from serving.pilot.route import is_in_effect, list_clusters, plan_route
from serving.pilot.tally import CANARY, STABLE, count, to_traffic
from tenure.judgement import Progress, Traffic

KUBECTL = Path(sys.executable).with_name("kubectl")
NAME, VARIANT = "route", "b1"
STABLE_SERVICE = names.service_name(NAME, None)
CANARY_SERVICE = names.service_name(NAME, VARIANT)
SERVER = Path(__file__).with_name("answering.py").read_text(encoding="utf-8")


def make_server(name: str, mode: str, image: str) -> list[dict[str, Any]]:
    """Return the Deployment and Service of a server, as KServe would make them for a variant."""
    labels = {"app": name}
    container = {
        "name": "server",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", SERVER, name, mode],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    ports = [
        {"name": "http1", "port": 80, "targetPort": 8080},
        {"name": "grpc", "port": 8081, "targetPort": 8081, "appProtocol": "kubernetes.io/h2c"},
    ]
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": ports},
        },
    ]


@dataclass
class Stage:
    """A route with two servers behind it, and what is asked of it."""

    cluster: Any
    platform: Any
    services: Services
    gateway: Gateway
    namespace: str
    poll: Callable[..., Any]
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def service(self) -> dict[str, Any]:
        """Return what the pilot would read."""
        return {
            "metadata": {
                "name": NAME,
                "namespace": self.namespace,
                "labels": {names.PROJECT_LABEL: NAME},
            },
            "spec": {"predictor": {"model": {}}, "canary": [{"predictor": {"name": VARIANT}}]},
        }

    def start(self, name: str, mode: str) -> None:
        """Start a server and wait until it is ready."""
        runtime = self.cluster.get("-n", self.platform.inside.namespace, "servingruntime", "tenure")
        image = runtime["spec"]["containers"][0]["image"]
        self.cluster.apply(*make_server(name, mode, image), namespace=self.namespace)
        self.cluster.run("-n", self.namespace, "rollout", "status", f"deployment/{name}", "--timeout=120s")

    def go(self, percent: int, mirror: int = 0) -> None:
        """Bring the canary's share to a value, as the pilot does: leg by leg."""
        inside = self.platform.inside
        while True:
            before = self.services.routes.find(names.route_name(NAME))
            leg = plan_route(
                self.service,
                {VARIANT: percent},
                inside.ingress_domain,
                {VARIANT: mirror} if mirror else None,
                gateway=inside.gateway,
                before=before,
            )
            if before is None:
                self.services.routes.create(leg.route)
            else:
                self.services.routes.replace({**before, "spec": leg.route["spec"]})
            self.poll(lambda: is_in_effect(self.read_route()), 60, "the route's acceptance")
            threading.Event().wait(0.5)  # as long as the pilot lets a leg settle
            if leg.last:
                return

    def read_route(self) -> dict[str, Any]:
        return self.services.routes.get(names.route_name(NAME))

    def ask(self, client: httpx.Client, **headers: str) -> str:
        """Ask once; return who answered, or what went wrong."""
        host = names.hostname(NAME, self.namespace, self.platform.inside.ingress_domain)
        try:
            answer = client.post(
                f"{self.platform.gateway_url}/v2/models/{NAME}/infer",
                json={},
                headers={"host": host, "ce-id": "forged", **headers},
            )
        except httpx.HTTPError as error:
            return type(error).__name__
        assert answer.headers.get("x-event", "none") == "none"
        return f"{answer.status_code} {answer.headers.get('x-name', '')}".strip()

    def ask_all(self, number: int, **headers: str) -> Counter[str]:
        """Ask many times, eight at once."""
        with ThreadPoolExecutor(8) as pool, httpx.Client(timeout=20, trust_env=False) as client:
            return Counter(pool.map(lambda _: self.ask(client, **headers), range(number)))

    def read(self) -> tuple[Backend, Backend]:
        """Read the counters of both, as the navigator does."""
        statistics, clusters = self.gateway.read(), list_clusters(self.read_route())
        return (
            statistics.find(self.namespace, CANARY_SERVICE, clusters),
            statistics.find(self.namespace, STABLE_SERVICE, clusters),
        )


@pytest.fixture
def stage(cluster: Any, platform: Any, namespace: str, poll: Callable[..., Any]) -> Iterator[Stage]:
    parent = platform.inside.gateway.partition("/")[2]
    (pod, *_) = cluster.list_pods(
        "envoy-gateway-system", f"gateway.envoyproxy.io/owning-gateway-name={parent}"
    )
    command = [str(KUBECTL), "--kubeconfig", str(cluster.kubeconfig), "-n", "envoy-gateway-system"]
    command += ["port-forward", f"pod/{pod['metadata']['name']}", ":19001"]
    settings = platform.inside.model_copy(update={"kubeconfig": cluster.kubeconfig, "namespace": namespace})
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        gateway = None
        try:
            assert forward.stdout is not None
            found = re.search(r":(\d+) ->", forward.stdout.readline())
            assert found is not None
            gateway = Gateway(f"http://127.0.0.1:{found[1]}/stats/prometheus", namespace)
            stage = Stage(cluster, platform, Services.connect(settings), gateway, namespace, poll)
            stage.start(STABLE_SERVICE, "ok")
            yield stage
        finally:
            if gateway is not None:
                gateway.close()
            forward.terminate()


def test_no_request_is_lost_on_all_the_ways_that_a_share_goes(stage: Stage, poll: Callable[..., Any]):
    stage.start(CANARY_SERVICE, "ok")
    stage.go(0)
    stopped = threading.Event()
    with httpx.Client(timeout=20, trust_env=False) as client:
        poll(lambda: stage.ask(client) == f"200 {STABLE_SERVICE}", 60, "an answer")

        def ask_on() -> Counter[str]:
            seen: Counter[str] = Counter()
            while not stopped.is_set():
                seen[stage.ask(client)] += 1
            return seen

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask_on) for _ in range(3)]
            try:
                for percent in (20, 60, 100, 40, 0, 100, 0, 5, 0):
                    stage.go(percent)
            finally:
                stopped.set()
            seen = sum((one.result() for one in asking), Counter())
    assert set(seen) == {f"200 {STABLE_SERVICE}", f"200 {CANARY_SERVICE}"}
    assert seen.total() > 100


@pytest.mark.parametrize("mode", ["ok", "500", "503", "reset"])
def test_what_a_canary_fails_is_counted_to_the_request(stage: Stage, mode: str, poll: Callable[..., Any]):
    stage.start(CANARY_SERVICE, mode)
    stage.go(0)
    now = datetime.now(UTC)
    progress = Progress(canary="c", digest="c" * 64, step=0, began=now, since=now, counters={})
    progress = count(progress, *stage.read())
    stage.go(50)
    seen = stage.ask_all(200)
    stable = seen.pop(f"200 {STABLE_SERVICE}")
    canary = seen.total()
    assert min(stable, canary) > 50

    def read() -> tuple[Traffic, Traffic]:
        counted = count(progress, *stage.read()).counters
        return to_traffic(CANARY, counted[CANARY]), to_traffic(STABLE, counted[STABLE])

    poll(lambda: read()[0].requests == canary, 20, "the counters")
    mine, theirs = read()
    assert (mine.requests, mine.errors) == (canary, 0 if mode == "ok" else canary)
    assert (theirs.requests, theirs.errors) == (stable, 0)
    if mode == "ok":
        assert seen == {f"200 {CANARY_SERVICE}": canary}
        asked = stage.ask_all(20, **{names.VARIANT_HEADER: VARIANT})
        assert asked == {f"200 {CANARY_SERVICE}": 20}


def test_copies_are_counted_and_nobody_waits_for_them(stage: Stage, poll: Callable[..., Any]):
    stage.start(CANARY_SERVICE, "500")
    stage.go(0, mirror=50)
    now = datetime.now(UTC)
    progress = Progress(canary="c", digest="c" * 64, step=-1, began=now, since=now, counters={})
    progress = count(progress, *stage.read())
    assert stage.ask_all(200) == {f"200 {STABLE_SERVICE}": 200}
    poll(lambda: count(progress, *stage.read()).counters[CANARY]["meant"] > 60, 20, "the copies")
    mine = to_traffic(CANARY, count(progress, *stage.read()).counters[CANARY])
    assert mine.requests == mine.errors < 140
    logged = stage.cluster.logs(stage.namespace, f"deployment/{CANARY_SERVICE}")
    assert "POST none" in logged
    assert "forged" not in logged
