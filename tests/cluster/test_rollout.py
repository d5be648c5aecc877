"""A roll-out on KServe by the pilot that is installed: what customers meet meanwhile, over REST and gRPC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from clients import names
from clients.inference import DATATYPES, InferenceClient
from clients.services import Services
from clients.store import Store
from components.shelf import store_bundle, store_project
from components.variant import build_canary, build_service
from tenure.bundle import Bundle
from tenure.canary import Rollout

ROOT = Path(__file__).parents[2]
NAME = "cluster-rollout"
BROKEN = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200)
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.answer(500)
    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


@dataclass
class Stage:
    """An InferenceService in Tenure's own namespace, and what is asked of it."""

    services: Services
    store: Store
    platform: Any
    bundles: Sequence[Bundle]
    poll: Callable[..., Any]
    rollout: Rollout

    @property
    def host(self) -> str:
        return names.hostname(NAME, self.platform.inside.namespace, self.platform.inside.ingress_domain)

    def put(self, bundle: Bundle) -> str:
        """Store a bundle; returns its address."""
        uri = names.bundle_uri(self.store.bucket, bundle.digest)
        store_bundle(self.store, bundle, uri)
        return uri

    def read(self) -> dict[str, Any]:
        return self.services.inference.get(NAME)

    def mark(self, **marks: str) -> None:
        annotations = {f"tenure.dev/{name.replace('_', '-')}": text for name, text in marks.items()}
        self.services.inference.patch(NAME, {"metadata": {"annotations": annotations}})

    def set_canary(self, entry: dict[str, Any]) -> None:
        self.services.inference.patch(NAME, {"spec": {"canary": [entry]}})

    def ask(self, client: InferenceClient, variant: str | None = None) -> str:
        """Return the version that answers."""
        bundle = self.bundles[0]
        return client.predict(NAME, bundle.probe()[:2], bundle.contract, variant=variant).version

    def wait_for_version(self, bundle: Bundle, variant: str) -> None:
        """Wait until a variant answers through the gateway."""
        with InferenceClient(self.platform.gateway_url, self.host) as client:

            def look() -> bool:
                try:
                    return self.ask(client, variant) == bundle.version
                except Exception as error:
                    if type(error).__module__ != "clients.errors":
                        raise
                    return False

            self.poll(look, 180, f"an answer of {variant}")

    def is_over(self) -> bool:
        return "canary" not in self.read()["spec"]


@pytest.fixture
def stage(
    cluster: Any, platform: Any, bundles: Sequence[Bundle], poll: Callable[..., Any], make_project: Any
) -> Iterator[Stage]:
    settings = platform.settings.model_copy(update={"kubeconfig": cluster.kubeconfig})
    services, store = Services.connect(settings), Store.connect(settings)
    project = make_project(rollout={"service": NAME, "min_requests": 100, "steps": [20, 50]})
    rollout = project.rollout.model_copy(update={"namespace": settings.namespace})
    stage = Stage(services, store, platform, bundles, poll, rollout)
    account = platform.inside.model_account
    first = build_service(rollout, project.name, stage.put(bundles[0]), account=account)
    first["metadata"]["annotations"] = {
        names.DEPLOYMENT_MODE: "Standard",
        names.PROJECT_URI: store_project(store, project),
    }
    services.inference.create(first)
    try:
        stage.wait_for_version(bundles[0], names.STABLE)
        yield stage
    finally:
        services.inference.delete(NAME)
        poll(lambda: services.inference.find(NAME) is None, 60, "the service's end")
        poll(lambda: services.routes.find(names.route_name(NAME)) is None, 60, "the route's end")
        # Else the next test's Service, of the same name, would find these pods, which end in the midst of it.
        label = f"serving.kserve.io/inferenceservice={NAME}"
        pods = ("-n", settings.namespace, "pods", "-l", label)
        poll(lambda: not cluster.get(*pods)["items"], 120, "the end of the model servers")


class Traffic(threading.Thread):
    """Customers who go on asking; counts the versions that answer, and whatever goes wrong."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        self.stage = stage
        self.seen: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.stopped = threading.Event()

    def run(self) -> None:
        with InferenceClient(self.stage.platform.gateway_url, self.stage.host) as client:
            while not self.stopped.is_set():
                try:
                    self.seen[self.stage.ask(client)] += 1
                except Exception as error:
                    if type(error).__module__ != "clients.errors":
                        raise
                    self.failures[str(error)] += 1

    def __enter__(self) -> Traffic:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.join()


def make_inputs(module: Any, bundle: Bundle) -> list[Any]:
    """Return the known rows as tritonclient's tensors."""
    rows, inputs = bundle.probe()[:2], []
    for column in bundle.contract.features:
        datatype = DATATYPES[column.type]
        values = [row.get(column.name) for row in rows]
        kind = {"BYTES": np.object_, "FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_}[datatype]
        tensor = module.InferInput(column.name, [len(rows)], datatype)
        tensor.set_data_from_numpy(np.array(values, dtype=kind))
        inputs.append(tensor)
    return inputs


def test_tritonclient_asks_over_rest_and_grpc_whichever_variant_it_wants(stage: Stage):
    import tritonclient.grpc
    import tritonclient.http

    first, second = stage.bundles[:2]
    stage.set_canary(
        build_canary(stage.rollout, stage.put(second), 0, account=stage.platform.inside.model_account)
    )
    variant = names.canary_name(second.digest)
    stage.wait_for_version(second, variant)
    address = httpx.URL(stage.platform.gateway_url)
    target = f"{address.host}:{address.port or 80}"
    for bundle, asked in ((first, names.STABLE), (second, variant)):
        rest = tritonclient.http.InferenceServerClient(target)
        answer = rest.infer(
            NAME,
            make_inputs(tritonclient.http, bundle),
            headers={"host": stage.host, names.VARIANT_HEADER: asked},
        )
        assert answer.get_response()["model_version"] == bundle.version
        np.testing.assert_allclose(answer.as_numpy("churn_probability"), bundle.probe_scores()[:2], atol=1e-6)
        rest.close()
        options = [("grpc.default_authority", stage.host)]
        grpc = tritonclient.grpc.InferenceServerClient(target, channel_args=options)
        result = grpc.infer(
            NAME, make_inputs(tritonclient.grpc, bundle), headers={names.VARIANT_HEADER: asked}
        )
        assert result.get_response().model_version == bundle.version
        np.testing.assert_allclose(result.as_numpy("churn_probability"), bundle.probe_scores()[:2], atol=1e-6)
        grpc.close()


def test_a_canary_takes_over_and_makes_room_without_a_lost_request(stage: Stage):
    _, second, third = stage.bundles
    account = stage.platform.inside.model_account
    variant, newer = (names.canary_name(bundle.digest) for bundle in (second, third))
    with Traffic(stage) as traffic:
        stage.set_canary(build_canary(stage.rollout, stage.put(second), 0, account=account))
        stage.wait_for_version(second, variant)
        stage.set_canary(build_canary(stage.rollout, stage.put(second), 30, account=account))
        stage.poll(lambda: traffic.seen[second.version] > 5, 60, "answers of the canary")
        stage.mark(promote=variant)
        stage.poll(stage.is_over, 60, "the promotion")
        assert names.stable_name(stage.read()) == variant
        stage.set_canary(build_canary(stage.rollout, stage.put(third), 0, account=account))
        stage.wait_for_version(third, newer)
        stage.set_canary(build_canary(stage.rollout, stage.put(third), 50, account=account))
        stage.poll(lambda: traffic.seen[third.version] > 5, 60, "answers of the newer one")
        stage.mark(supersede=newer)
        stage.poll(stage.is_over, 60, "room for another")
        before = traffic.seen[second.version]
        stage.poll(lambda: traffic.seen[second.version] > before + 20, 60, "answers of the one that stays")
    last = json.loads(stage.read()["metadata"]["annotations"][names.TRANSITION])
    assert last["outcome"] == "replaced"
    assert not traffic.failures, traffic.failures
    assert len(traffic.seen) == 3


def test_a_canary_that_fails_its_customers_is_taken_back(stage: Stage):
    second = stage.bundles[1]
    entry = build_canary(stage.rollout, stage.put(second), 20, account=stage.platform.inside.model_account)
    entry["predictor"]["model"] |= {"command": ["python", "-c", BROKEN]}
    stage.mark(proven=json.dumps({"digest": second.digest, "difference": 0.0}))
    stage.set_canary(entry)
    with Traffic(stage) as traffic:
        stage.poll(stage.is_over, 180, "the way back")
        failed, before = traffic.failures.total(), traffic.seen.total()
        stage.poll(lambda: traffic.seen.total() > before + 50, 60, "answers of the stable version")
        assert traffic.failures.total() == failed
    last = json.loads(stage.read()["metadata"]["annotations"][names.TRANSITION])
    assert (last["outcome"], last["digest"]) == ("rolled_back", second.digest)
    assert "of the canary's" in last["reason"]
    assert "requests failed" in last["reason"]
    # Its own 500, or the gateway's 503 while one of its servers is being replaced.
    assert all("(status 50" in failure for failure in traffic.failures), traffic.failures
    assert set(traffic.seen) == {stage.bundles[0].version}


def test_the_command_line_does_here_what_it_does_on_a_laptop(
    stage: Stage, cluster: Any, make_project: Any, tmp_path: Path
):
    context = cluster.run("config", "current-context").stdout.strip()
    project = make_project(rollout={"service": NAME})
    file = tmp_path / "project.yaml"
    file.write_text(yaml.safe_dump(project.model_dump(mode="json")), encoding="utf-8")
    rows, outcomes = tmp_path / "rows.json", tmp_path / "outcomes.csv"
    rows.write_text(json.dumps(stage.bundles[0].probe()[:3]), encoding="utf-8")
    outcomes.write_text("customer_id,outcome,true_at\nnobody-1,No,2026-01-31\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    environment |= {"KUBECONFIG": str(cluster.kubeconfig), "TENURE_PROJECT": str(file)}
    if "TENURE_TEST_GATEWAY_URL" in os.environ:  # where this machine reaches the gateway by itself
        environment["TENURE_GATEWAY_URL"] = stage.platform.gateway_url

    def tenure(*arguments: str) -> Any:
        command = [sys.executable, "-m", "console.main", "--context", context, *arguments, "--json"]
        answer = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert answer.returncode == 0, f"{arguments}: {answer.stdout}{answer.stderr}"
        return json.loads(answer.stdout)

    version = stage.bundles[0].version
    assert version in json.dumps(tenure("rollout", "status"))
    assert version in json.dumps(tenure("predict", str(rows)))
    assert NAME in json.dumps(tenure("status"))
    assert tenure("labels", "add", str(outcomes))
    assert tenure("rollout", "pause") is not None
    assert stage.read()["metadata"]["annotations"]["tenure.dev/pause"] == "true"
