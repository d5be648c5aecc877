"""The faults that `tenure simulate` plays on a canary: the pilot takes it back, and no client notices.

The gateway hides what the canary fails, so only its counters tell.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from embedded.program import ALIVE

SECONDS = 12
"""How long the simulation runs; it takes some three to see the harm."""


ROLLOUT = {"min_requests": 100_000, "tolerance": {"errors": 0.02, "latency": 0.4}}
"""Nothing but harm can end it soon."""


def is_taken_back(stage: Any) -> bool:
    return not stage.read()["spec"].get("canary")


def read_harms(stage: Any) -> dict[str, dict[str, Any]]:
    """Return the signals that the canary was taken back for."""
    last = stage.read_transition()
    assert (last["outcome"], last["shares"]) == ("rolled_back", {stage.old.version: 100})
    return {one["name"]: one for one in last["evidence"]["signals"] if one["harm"]}


def play(stage: Any, scenario: str) -> dict[str, dict[str, Any]]:
    """Play a scenario until the canary is gone; returns the signals that it was taken back for."""
    stage.set_up(percent=20)
    stage.prove(**ROLLOUT)
    words = ["--rate", "120", "--duration", str(SECONDS), "--seed", "7", "--no-labels", "--json"]
    # It ends with an error if a client failed.
    summary = json.loads(stage.tenure("simulate", "--scenario", scenario, *words).stdout)
    assert (summary["sent"], summary["failed"]) == (120 * SECONDS, 0)
    stage.wait_until(lambda: is_taken_back(stage), 30)
    return read_harms(stage)


def test_slow_canary_of_the_simulation_is_taken_back(stage: Any) -> None:
    harms = play(stage, "slow-canary")
    # Where nearly nothing is answered in time, requests time out as well.
    assert "latency" in harms
    assert set(harms) <= {"latency", "errors"}


def test_failing_canary_of_the_simulation_is_taken_back(stage: Any) -> None:
    assert set(play(stage, "failing-canary")) == {"errors"}


@contextmanager
def kill_again_and_again(stage: Any) -> Iterator[list[int]]:
    """Kill the canary's process whenever it has served for a second; yields the ids of those killed."""
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(1.0):
            alive = [
                state.pid
                for name, state in stage.list_programs().items()
                if stage.canary in name and state.pid is not None and state.state in ALIVE
            ]
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def test_canary_killed_again_and_again_is_seen_by_the_gateways_counters_alone(stage: Any) -> None:
    stage.set_up(percent=20)
    stage.prove(**ROLLOUT)
    with stage.load(rate=100) as load:
        with kill_again_and_again(stage) as killed:
            stage.wait_until(lambda: is_taken_back(stage), 60)
        load.pass_by(100)
    report = load.stop()
    assert not report.failures, report.explain()
    assert killed
    assert set(read_harms(stage)) == {"errors"}
