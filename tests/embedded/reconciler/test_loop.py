"""InferenceServices become processes, and no request notices."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from clients.store import Store
from embedded.kubernetes.resources import EVENTS, HTTP_ROUTES, INFERENCE_SERVICES

from .conftest import HOST, Platform, make_service, wait_until


class Traffic:
    """Requests from a few threads until it ends; answers by version, and failures."""

    def __init__(self, platform: Platform) -> None:
        self._url = f"http://127.0.0.1:{platform.home.state.ports.gateway}/v2/models/telco/infer"
        self.seen: Counter[str] = Counter()
        self.failures: list[str] = []
        self._ended = threading.Event()

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            while not self._ended.is_set():
                try:
                    response = client.post(self._url, json={}, headers={"host": HOST})
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                if response.status_code == 200:
                    self.seen[response.json()["model_version"]] += 1
                else:
                    self.failures.append(f"{response.status_code} {response.text}")

    @contextmanager
    def flow(self, workers: int = 4) -> Iterator[Traffic]:
        threads = [threading.Thread(target=self.run) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(30)

    def wait(self, version: str, number: int = 50) -> None:
        """Wait for that many more answers of a version."""
        before = self.seen[version]
        wait_until(
            lambda: self.seen[version] >= before + number, f"answers of {version}: {self.failures[:3]}"
        )


def test_a_service_comes_up_reports_and_goes(platform: Platform):
    platform.apply(make_service("v1", minReplicas=2, logger={"mode": "all", "url": "http://127.0.0.1:9/e/1"}))
    platform.wait_true("Ready")
    answer = platform.ask()
    assert answer["model_name"] == "telco"
    assert answer["model_version"] == "v1"
    assert answer["logger"] == "http://127.0.0.1:9/e/1"
    assert len({platform.ask()["pid"] for _ in range(20)}) == 2, "minReplicas are processes"
    status = platform.get_status()
    assert status["url"] == f"http://{HOST}"
    assert status["modelStatus"] == {
        "transitionStatus": "UpToDate",
        "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
        "copies": {"totalCopies": 2, "failedCopies": 0},
    }
    assert status["components"]["predictor"]["url"].startswith("http://127.0.0.1:")
    reasons = {event["reason"] for event in platform.storage.list_all(EVENTS.key)[0]}
    assert {"Ready", "PredictorReady", "IngressReady"} <= reasons
    platform.registry.delete(INFERENCE_SERVICES, "default", "telco")
    wait_until(lambda: platform.list_programs() == [], "the processes to end")
    assert platform.ask_version() is None
    assert platform.storage.read_notes("replicas") == {}


def test_canary_promotion_and_rollback_lose_nothing_and_restart_nothing(platform: Platform):
    platform.apply(make_service("v1"))
    platform.wait_true("Ready")
    platform.route(stable=100)
    with Traffic(platform).flow() as traffic:
        traffic.wait("v1")
        platform.apply(make_service("v1", "v2", percent=20))
        platform.wait_true("CanaryPredictorReady")
        assert platform.get_status()["canaryStatuses"][0]["ready"] is True
        assert platform.get_status()["canaryStatuses"][0]["trafficPercent"] == 20
        pids = {name: state.pid for name, state in platform.supervisor.list().items()}
        for weight in (20, 50, 5, 80, 100):
            platform.route(green=weight, stable=100 - weight)
            traffic.wait("v2", 20)
        # Promotion, in the pilot's order: the route first, then the name.
        platform.route(green=100)
        promoted = make_service("v2", name="green")
        platform.apply(promoted)
        platform.wait_true("Ready")
        wait_until(lambda: len(platform.list_programs()) == 1, "the old stable to end")
        name = platform.list_programs()[0]
        assert platform.supervisor.list()[name].pid == pids[name], "the canary's process is kept"
        traffic.wait("v2")
        # A new canary, rolled back.
        body = make_service("v2", "v3", name="green")
        body["spec"]["canary"][0]["predictor"]["name"] = "blue"
        platform.apply(body)
        platform.wait_true("CanaryPredictorReady")
        platform.route(blue=50, green=50)
        traffic.wait("v3")
        platform.route(green=100)
        platform.apply(promoted)
        wait_until(lambda: len(platform.list_programs()) == 1, "the canary to end")
        traffic.wait("v2")
    assert traffic.failures == []


def test_changed_model_is_replaced_without_a_gap(platform: Platform):
    platform.apply(make_service("v1"))
    platform.wait_true("Ready")
    with Traffic(platform).flow() as traffic:
        traffic.wait("v1")
        platform.apply(make_service("v2"))
        traffic.wait("v2")
        wait_until(lambda: len(platform.list_programs()) == 1, "the old process to end")
        traffic.wait("v2")
    assert traffic.failures == []


def test_broken_and_stuck_canaries_leave_the_stable_model_alone(platform: Platform):
    platform.apply(make_service("v1"))
    platform.wait_true("Ready")
    platform.route(green=50, stable=50)
    with Traffic(platform).flow() as traffic:
        platform.apply(make_service("v1", "broken"))
        condition = wait_until(
            lambda: (
                (found := platform.get_condition("CanaryPredictorReady")).get("reason") == "CrashLoopBackOff"
                and found
            ),
            "the status to say so",
        )
        assert "BundleError: model.txt was altered" in condition["message"]
        assert "tenure logs" in condition["message"]
        model = platform.get_status()["canaryStatuses"][0]["modelStatus"]
        assert model["transitionStatus"] == "BlockedByFailedLoad"
        platform.apply(make_service("v1", "stuck"))
        wait_until(
            lambda: (
                platform.get_status()["canaryStatuses"][0]["modelStatus"]["states"]["targetModelState"]
                == "Loading"
            ),
            "the stuck one to be loading",
        )
        platform.apply(make_service("v1", "nowhere"))
        wait_until(
            lambda: platform.get_condition("CanaryPredictorReady").get("reason") == "ModelLoadFailed",
            "the missing model to be reported",
        )
        assert "holds nothing" in platform.get_condition("CanaryPredictorReady")["message"]
        traffic.wait("v1")
        assert platform.is_true("Ready")
        platform.apply(make_service("v1"))
        wait_until(lambda: len(platform.list_programs()) == 1, "the canary to end")
    assert traffic.failures == []
    assert set(traffic.seen) == {"v1"}


def test_killed_canary_falls_back_and_returns(platform: Platform):
    platform.apply(make_service("v1", "v2"))
    platform.wait_true("Ready")
    platform.wait_true("CanaryPredictorReady")
    platform.route(green=50, stable=50)
    with Traffic(platform).flow() as traffic:
        traffic.wait("v2")
        (name,) = [name for name in platform.list_programs() if "green" in name]
        for _ in range(3):
            state = platform.supervisor.list()[name]
            assert state.pid is not None
            os.kill(state.pid, signal.SIGKILL)
            wait_until(
                lambda old=state.pid: platform.supervisor.list()[name].pid not in (None, old), "the restart"
            )
            traffic.wait("v2")
        wait_until(lambda: platform.is_true("CanaryPredictorReady"), "the canary to be ready again")
    assert traffic.failures == []
    assert "restarted 3 times" in platform.get_condition("CanaryPredictorReady")["message"]


def test_restarted_reconciler_adopts_what_runs(platform: Platform):
    platform.apply(make_service("v1", "v2"))
    platform.wait_true("Ready")
    platform.wait_true("CanaryPredictorReady")
    platform.route(green=50, stable=50)
    pids = {name: state.pid for name, state in platform.supervisor.list().items()}
    with Traffic(platform).flow() as traffic:
        traffic.wait("v2")
        platform.stop()
        traffic.wait("v2")
        platform.start()
        reconciler = platform.reconciler
        assert reconciler is not None
        platform.route(green=10, stable=90)
        traffic.wait("v2")
        wait_until(lambda: reconciler.problem is None and platform.is_true("Ready"), "the reconciler")
        # While it was away, the canary was removed.
        platform.stop()
        platform.route(stable=100)
        platform.apply(make_service("v1"))
        platform.start()
        wait_until(lambda: len(platform.list_programs()) == 1, "the canary to end")
    assert traffic.failures == []
    (name,) = platform.list_programs()
    assert platform.supervisor.list()[name].pid == pids[name]


def test_lost_supervisord_starts_everything_again(platform: Platform):
    platform.apply(make_service("v1"))
    platform.wait_true("Ready")
    pid = platform.supervisor.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: platform.reconciler is not None and platform.reconciler.problem, "the problem to be seen"
    )
    wait_until(lambda: not platform.supervisor.is_running() and platform.supervisor.launch(), "supervisord")
    wait_until(lambda: platform.ask_version() == "v1", "the model to answer again")
    platform.wait_true("Ready")


def test_a_better_upload_at_the_same_address_is_noticed(platform: Platform, store: Store, monkeypatch):
    monkeypatch.setattr("embedded.reconciler.loop._RECHECK_SECONDS", 0.5)
    uri = "s3://tenure/tiny/mended/model.txt"
    store.put_bytes(b"broken", uri)
    platform.apply(make_service("mended"))
    wait_until(lambda: platform.get_condition("Ready").get("reason") == "CrashLoopBackOff", "the crash loop")
    store.put_bytes(b"whole", uri)
    wait_until(lambda: platform.ask_version() == "whole", "the better model to answer")


def test_routes_tell_their_status(platform: Platform):
    platform.apply(make_service("v1"))
    platform.route(green=50, stable=50)

    def read() -> dict[str, str]:
        body = platform.storage.get(HTTP_ROUTES.key, "default", "telco") or {}
        parents = (body.get("status") or {}).get("parents", [])
        return {entry["type"]: entry["reason"] for parent in parents for entry in parent["conditions"]}

    wait_until(
        lambda: read() == {"Accepted": "Accepted", "ResolvedRefs": "BackendNotFound"}, "the missing canary"
    )
    platform.apply(make_service("v1", "v2"))
    wait_until(lambda: read().get("ResolvedRefs") == "ResolvedRefs", "the canary to be found")
