"""The pilot on a whole platform: a harmless canary is stepped and promoted, a harmful one is taken back."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clients import names
from tenure.canonical import dump_canonical
from tenure.project import load_project


def prove(stage: Any, difference: float | None = None, **rollout: Any) -> None:
    """Say what a roll-out says of its canary once it has proven it."""
    settings = {"steps": [20, 50], "min_requests": 300, "tolerance": {"errors": 0.05, "latency": 0.4}}
    project = load_project(stage.write_project(rollout={**settings, **rollout}))
    data = dump_canonical(project.model_dump(mode="json"))
    uri = names.project_uri(stage.settings.s3_bucket, hashlib.sha256(data).hexdigest())
    stage.store.put_bytes(data, uri)
    proven = json.dumps({"digest": stage.new.digest, "difference": difference})
    marks = {names.PROJECT_URI: uri, names.PROVEN: proven}
    stage.services.inference.patch(stage.name, {"metadata": {"annotations": marks}})


def read_last(stage: Any) -> dict[str, Any]:
    return dict(json.loads(stage.annotations().get(names.TRANSITION, "{}")))


def is_promoted(stage: Any) -> bool:
    return stage.uri(stage.new.digest) == stage.read()["spec"]["predictor"]["model"]["storageUri"]


@contextmanager
def hinder(pid: int) -> Iterator[None]:
    """Have a process stand still for most of the time."""
    stop = threading.Event()

    def halt() -> None:
        while not stop.is_set():
            os.kill(pid, signal.SIGSTOP)
            stop.wait(0.3)
            os.kill(pid, signal.SIGCONT)
            stop.wait(0.05)

    thread = threading.Thread(target=halt)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_harmless_canary_is_promoted_without_anybody(stage: Any) -> None:
    stage.set_up(percent=20)
    prove(stage)
    with stage.load(rate=300) as load:
        stage.wait_until(lambda: is_promoted(stage), 90)
        load.pass_by(200)
    report = load.stop()
    assert not report.failures, report.explain()
    last = read_last(stage)
    assert (last["outcome"], last["shares"]) == ("promoted", {stage.new.version: 100})
    assert last["reason"].startswith("no harm found")
    assert {one["name"] for one in last["evidence"]["signals"]} >= {"errors", "latency"}


def test_slow_canary_is_taken_back_with_its_evidence(stage: Any) -> None:
    stage.set_up(percent=20)
    pid = stage.find_pid(stage.canary)
    prove(stage, min_requests=100_000)
    with stage.load(rate=200) as load, hinder(pid):
        stage.wait_until(lambda: not stage.read()["spec"].get("canary"), 90)
    report = load.stop()
    assert not report.failures, report.explain()
    last = read_last(stage)
    assert (last["outcome"], last["shares"]) == ("rolled_back", {stage.old.version: 100})
    harms = {one["name"] for one in last["evidence"]["signals"] if one["harm"]}
    assert harms & {"latency", "errors"}
    assert harms <= {"latency", "errors"}


def test_dark_launch_is_judged_before_any_customer_is_served(stage: Any) -> None:
    stage.set_up(percent=0)
    prove(stage, mirror_percent=50, mirror_requests=300, promotion="manual")
    with stage.load(rate=300) as load:
        stage.wait_until(lambda: read_last(stage).get("outcome") == "advanced", 90)
        dark = load.snapshot() if hasattr(load, "snapshot") else None
        load.pass_by(200)
    report = load.stop()
    assert not report.failures, report.explain()
    assert dark is None or set(dark.count()) == {stage.old.version}
    state = json.loads(stage.tenure("rollout", "status", "--json").stdout)
    assert state["flight"]["step"] >= 0
    stage.tenure("rollout", "abort")
    assert not stage.read()["spec"].get("canary")


def test_logged_scores_are_judged_and_the_ledger_tells_what_was_live(stage: Any) -> None:
    stage.set_up(percent=20)
    url = stage.settings.detector_url
    service = stage.read()
    predictors = [service["spec"]["predictor"], service["spec"]["canary"][0]["predictor"]]
    for predictor in predictors:
        version = names.digest_of(predictor["model"]["storageUri"])[:12]
        predictor["logger"] = {"mode": "all", "url": names.events_url(url, stage.name, version)}
    stage.services.inference.patch(stage.name, {"spec": service["spec"]})
    stage.wait_for_weights({stage.canary: 20})
    prove(stage, difference=0.0)
    before, after = stage.old.version, stage.new.version
    with stage.load(rate=150) as load:
        stage.wait_until(lambda: is_promoted(stage), 120)
        load.pass_by(200)
    report = load.stop()
    assert not report.failures, report.explain()
    last = read_last(stage)
    signals = {one["name"]: one for one in last["evidence"]["signals"]}
    assert set(signals) >= {"errors", "latency", "score", "mismatch"}
    assert signals["mismatch"]["estimate"] == 0
    assert signals["score"]["n"] > 300
    stage.wait_until(lambda: names.UNRECORDED not in stage.annotations(), 30)
    told = json.loads(stage.tenure("rollout", "history", "--json").stdout)
    assert [one["outcome"] for one in told][-4:] == ["shares", "advanced", "moving", "promoted"]
    advanced = told[-3]
    live = json.loads(stage.tenure("rollout", "history", "--at", advanced["at"][:19], "--json").stdout)
    assert live["shares"] in ({before: 80, after: 20}, {before: 50, after: 50})
