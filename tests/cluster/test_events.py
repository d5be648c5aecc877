"""Every answer becomes a row, by KServe's agent (REST) or the predictor (gRPC), whatever pods go."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from clients import names
from clients.inference import DATATYPES, build_request
from clients.ledger.reader import Ledger
from clients.services import Services
from clients.store import Store
from components.variant import UNPROVEN, build_service
from tenure.bundle import Bundle
from tenure.scorer import Scorer

HERE = Path(__file__).parent
NAMESPACE = "tenure"
RATE = 40
"""Requests per second; two cores may have to do for everything."""


@pytest.fixture(scope="module")
def service(platform: Any, bundles: Sequence[Bundle], make_project: Any, poll: Any) -> Iterator[Bundle]:
    """An InferenceService of two model servers with a logger, as a roll-out makes it; its bundle."""
    bundle, settings = bundles[0], platform.settings
    project = make_project(rollout={"replicas": 2})
    rollout = project.rollout.model_copy(update={"namespace": settings.namespace})
    uri = names.bundle_uri(settings.s3_bucket, bundle.digest)
    Store.connect(settings).upload_directory(bundle.directory, uri)
    document = build_service(rollout, project.name, uri, platform.inside.detector_url, settings.model_account)
    del document["metadata"]["annotations"][UNPROVEN]
    services = Services.connect(settings)
    if services.inference.find(rollout.service) is not None:
        services.inference.delete(rollout.service)
        poll(lambda: services.routes.find(names.route_name(rollout.service)) is None, 120, "the route's end")
    services.inference.create(document)
    poll(
        lambda: (
            len(ready_pods(platform.cluster, f"serving.kserve.io/inferenceservice={rollout.service}")) == 2
        ),
        240,
        "two model servers",
    )
    request = build_request(bundle.probe()[:1], bundle.contract)
    poll(lambda: ask(platform, rollout.service, request).status_code == 200, 120, "an answer by the route")
    yield bundle
    services.inference.delete(rollout.service)
    poll(lambda: services.routes.find(names.route_name(rollout.service)) is None, 120, "the route's end")


def ready_pods(cluster: Any, selector: str) -> list[str]:
    """Return the names of the pods that are ready and stay."""
    return [
        pod["metadata"]["name"]
        for pod in cluster.list_pods(NAMESPACE, selector)
        if any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in pod["status"].get("conditions", ())
        )
    ]


def ask(platform: Any, name: str, request: dict[str, Any], **headers: str) -> httpx.Response:
    host = names.hostname(name, NAMESPACE, platform.settings.ingress_domain)
    return httpx.post(
        f"{platform.gateway_url}/v2/models/{name}/infer",
        json=request,
        headers={"host": host, **headers},
        trust_env=False,
        timeout=10,
    )


def test_every_protocol_becomes_rows(
    platform: Any, ledger: Ledger, service: Bundle, make_project: Any, poll: Any
) -> None:
    """REST comes by the real agent, gRPC by the predictor: both as one row a prediction, in PostgreSQL."""
    name = make_project().rollout.service
    run, probe = secrets.token_hex(4), service.probe()  # the ledger remembers those of earlier runs
    for number in range(20):
        request = build_request(
            probe[:2], service.contract, customer_ids=[f"{run}-rest-{number}-{row}" for row in (0, 1)]
        )
        answer = ask(platform, name, request)
        assert answer.status_code == 200, (number, answer.text, answer.headers)
    instances = [
        {**row, service.contract.id.name: f"{run}-v1-{index}"} for index, row in enumerate(probe[:3])
    ]
    host = names.hostname(name, NAMESPACE, platform.settings.ingress_domain)
    answer = httpx.post(
        f"{platform.gateway_url}/v1/models/{name}:predict",
        json={"instances": instances},
        headers={"host": host},
        trust_env=False,
        timeout=10,
    )
    assert answer.status_code == 200, answer.text
    full = [row for row in probe if None not in row.values()][:2]
    columns = {key: [row[key] for row in full] for key in full[0]}
    columns[service.contract.id.name] = [f"{run}-grpc-0", f"{run}-grpc-1"]
    datatypes = {column.name: DATATYPES[column.type] for column in service.contract.features}
    order = {
        "address": urlsplit(platform.gateway_url).netloc,
        "authority": host,
        "model": name,
        "datatypes": datatypes,
        "jobs": [{"kind": "raw", "columns": columns}],
    }
    script = HERE.parent / "serving" / "predictor" / "triton_grpc.py"
    answered = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(order).encode(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert answered.returncode == 0, answered.stderr.decode()
    wanted = {f"{run}-rest-{number}-{row}": 1 for number in range(20) for row in (0, 1)}
    wanted |= {f"{run}-v1-{index}": 1 for index in range(3)} | {f"{run}-grpc-{index}": 1 for index in (0, 1)}

    def seen() -> dict[str, int]:
        ids = ledger.read_predictions(name)["customer_id"].dropna()
        return {customer: count for customer, count in Counter(ids).items() if customer in wanted}

    poll(lambda: len(seen()) == len(wanted), 60, "a row for each prediction")
    assert seen() == wanted
    rows = ledger.read_predictions(name)
    mine = rows[rows["customer_id"].isin(wanted)]
    assert set(mine["version"]) == {service.version}
    columns = {column.name: [row[column.name] for row in probe[:2]] for column in service.contract.features}
    scores = mine.set_index("customer_id")["score"]
    expected = Scorer(service).score_columns(columns)
    assert scores[f"{run}-rest-0-0"] == pytest.approx(expected[0], abs=1e-6)
    assert scores[f"{run}-rest-0-1"] == pytest.approx(expected[1], abs=1e-6)


# Posts an outcome that never was, as a transition too, and a batch of no events; prints what it was answered.
FORGER = """
import json, sys, urllib.error, urllib.request
label = {"service": sys.argv[2], "customer_id": sys.argv[3], "outcome": "Yes"}
label["true_at"] = "2026-01-01T00:00:00Z"
for path, rows in (("/labels", [label]), ("/transitions", [label]), ("/events", [])):
    kind = {"content-type": "application/cloudevents-batch+json" if path == "/events" else "application/json"}
    request = urllib.request.Request(sys.argv[1] + path, json.dumps(rows).encode(), kind)
    try:
        print(path, urllib.request.urlopen(request, timeout=10).status)
    except urllib.error.HTTPError as error:
        print(path, error.code)
"""


def test_a_model_server_can_post_events_but_no_outcomes(
    platform: Any, ledger: Ledger, service: Bundle, make_project: Any
) -> None:
    """From the pod of one, as somebody would who had taken it over."""
    name, customer = make_project().rollout.service, f"forged-{secrets.token_hex(4)}"
    pod = ready_pods(platform.cluster, f"serving.kserve.io/inferenceservice={name}")[0]
    python = ("exec", pod, "-c", "kserve-container", "--", "python", "-c", FORGER)
    said = platform.cluster.run("-n", NAMESPACE, *python, platform.inside.detector_url, name, customer)
    assert said.stdout.split() == ["/labels", "401", "/transitions", "401", "/events", "200"]
    assert customer not in set(ledger.read_labels(name)["customer_id"])
    environment = platform.cluster.run("-n", NAMESPACE, "exec", pod, "-c", "kserve-container", "--", "env")
    assert "TENURE_DETECTOR_TOKEN" not in environment.stdout


@contextmanager
def load(platform: Any, bundle: Bundle, name: str, folder: Path, start_load: Any) -> Iterator[Any]:
    """Ask steadily through the gateway; every answer is compared with the bundle's own."""
    rows = bundle.probe()
    columns = {column.name: [row[column.name] for row in rows] for column in bundle.contract.features}
    address = urlsplit(platform.gateway_url)
    plan = {
        "host": address.hostname,
        "port": address.port,
        "name": names.hostname(name, NAMESPACE, platform.settings.ingress_domain),
        "path": f"/v2/models/{name}/infer",
        "bodies": [build_request([row], bundle.contract) for row in rows],
        "expected": {bundle.version: Scorer(bundle).score_columns(columns).tolist()},
        "connections": 4,
        "rate": RATE,
        "customers": 0,
        "mark": "",
    }
    file = folder / "plan.json"
    file.write_text(json.dumps(plan), encoding="utf-8")
    with start_load(file, RATE) as running:
        yield running


@pytest.mark.parametrize(
    ("selector", "ready"),
    [
        ("app.kubernetes.io/name=tenure-detector", 2),
        ("app.kubernetes.io/name=tenure-pilot", 1),
        ("serving.kserve.io/inferenceservice=cluster-churn", 2),
    ],
    ids=["detector", "pilot", "predictor"],
)
def test_a_pod_that_is_told_to_go_costs_nothing(
    platform: Any,
    ledger: Ledger,
    service: Bundle,
    make_project: Any,
    poll: Any,
    start_load: Any,
    tmp_path: Path,
    selector: str,
    ready: int,
) -> None:
    """Under load each pod goes once, as in an upgrade: no request fails, and every answer has its row."""
    name = make_project().rollout.service
    before = ledger.count_predictions(name)
    with load(platform, service, name, tmp_path, start_load) as running:
        running.pass_by(RATE * 2)
        for pod in ready_pods(platform.cluster, selector):
            platform.cluster.run("-n", NAMESPACE, "delete", "pod", pod, seconds=180)
            poll(
                lambda: len(ready_pods(platform.cluster, selector)) == ready, 240, f"{selector}: {ready} pods"
            )
        running.pass_by(RATE * 2)
    report = running.stop()
    assert not report.failures, report.explain()
    wanted = before + len(report.answers)
    poll(
        lambda: ledger.count_predictions(name) >= wanted,
        90,
        f"a row for each of {len(report.answers)} answers",
    )
    assert ledger.count_predictions(name) == wanted


def test_a_killed_detector_loses_at_most_what_it_had_not_acknowledged(
    platform: Any,
    ledger: Ledger,
    service: Bundle,
    make_project: Any,
    poll: Any,
    start_load: Any,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """KServe's agent posts an event once: what the killed process held is gone, and no more."""
    selector = "app.kubernetes.io/name=tenure-detector"
    name = make_project().rollout.service
    before = ledger.count_predictions(name)
    with load(platform, service, name, tmp_path, start_load) as running:
        running.pass_by(RATE * 2)
        for pod in ready_pods(platform.cluster, selector):
            platform.cluster.run(
                "-n", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force", seconds=180
            )
            poll(lambda: len(ready_pods(platform.cluster, selector)) == 2, 240, "two detectors")
        running.pass_by(RATE * 2)
    report = running.stop()
    assert not report.failures, report.explain()
    answered = len(report.answers)
    seen = [before]

    def settled() -> bool:
        """Whether nothing came since the last look, after nearly everything has."""
        seen.append(ledger.count_predictions(name))
        return seen[-1] == seen[-2] and seen[-1] - before >= answered * 0.9

    poll(settled, 90, "the rows of what was acknowledged")
    lost = answered - (seen[-1] - before)
    record_property("lost", lost)
    print(f"two detectors killed under {RATE} requests/s: {lost} of {answered} answers have no row")  # noqa: T201
    assert 0 <= lost <= answered * 0.1
