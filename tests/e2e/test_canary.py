"""The pilot on a whole platform: a harmless canary is stepped and promoted, a harmful one is taken back."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clients import names


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
    stage.prove()
    with stage.load(rate=300) as load:
        stage.wait_until(lambda: is_promoted(stage), 90)
        load.pass_by(200)
    report = load.stop()
    assert not report.failures, report.explain()
    last = stage.read_transition()
    assert (last["outcome"], last["shares"]) == ("promoted", {stage.new.version: 100})
    assert last["reason"].startswith("no harm found")
    assert {one["name"] for one in last["evidence"]["signals"]} >= {"errors", "latency"}


def test_slow_canary_is_taken_back_with_its_evidence(stage: Any) -> None:
    stage.set_up(percent=20)
    pid = stage.find_pid(stage.canary)
    stage.prove(min_requests=100_000)
    with stage.load(rate=200) as load, hinder(pid):
        stage.wait_until(lambda: not stage.read()["spec"].get("canary"), 90)
    report = load.stop()
    assert not report.failures, report.explain()
    last = stage.read_transition()
    assert (last["outcome"], last["shares"]) == ("rolled_back", {stage.old.version: 100})
    harms = {one["name"] for one in last["evidence"]["signals"] if one["harm"]}
    assert harms & {"latency", "errors"}
    assert harms <= {"latency", "errors"}


def test_dark_launch_is_judged_before_any_customer_is_served(stage: Any) -> None:
    stage.set_up(percent=0)
    stage.prove(mirror_percent=50, mirror_requests=300, promotion="manual")
    with stage.load(rate=300) as load:
        stage.wait_until(lambda: stage.read_transition().get("outcome") == "advanced", 90)
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
    stage.prove(difference=0.0)
    before, after = stage.old.version, stage.new.version
    with stage.load(rate=150) as load:
        stage.wait_until(lambda: is_promoted(stage), 120)
        load.pass_by(200)
    report = load.stop()
    assert not report.failures, report.explain()
    last = stage.read_transition()
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
