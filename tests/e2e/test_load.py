"""Changing who serves, under steady load: no request fails, none is answered wrongly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

from e2e_load import poll

from clients import names

# How long a changed weight may take to reach every worker of the gateway, beyond the route's acceptance.
SETTLE = 0.3


def check_share(report: Any, version: str, percent: int, start: float, end: float) -> None:
    """The share must lie within five standard deviations of what the weight asks for."""
    share, answers = report.share(version, start, end)
    wanted = percent / 100
    slack = 5 * math.sqrt(wanted * (1 - wanted) / answers) + 1 / answers
    assert abs(share - wanted) <= slack, f"{share:.3f} of {answers} answers at {percent} %"


def test_shares_follow_the_weights(stage: Any, record_property: Callable[..., None]) -> None:
    stage.set_up(percent=0)
    windows = []
    with stage.load(rate=600) as load:
        for percent in (10, 50, 90, 25, 0):
            stage.set_percent(percent)
            # A window is counted from what was asked after the weights had settled.
            settled = time.monotonic() + SETTLE
            load.pass_by(int(600 * SETTLE) + 700)
            windows.append((percent, settled, time.monotonic()))
    report = load.stop()
    assert not report.failures, report.explain()
    for percent, start, end in windows:
        check_share(report, stage.new.version, percent, start, end)
    shares = {percent: round(report.share(stage.new.version, *times)[0], 3) for percent, *times in windows}
    record_property("requests", len(report.answers))
    record_property("shares", shares)


def test_customers_keep_their_side_while_the_canary_grows(stage: Any) -> None:
    customers = 400
    stage.set_up(percent=0)
    windows = []
    with stage.load(rate=600, customers=customers) as load:
        for percent in (5, 10, 25, 50):
            stage.set_percent(percent)
            settled = time.monotonic() + SETTLE
            # A generator that was held up catches up: so many requests need not take so long.
            poll(lambda until=settled: time.monotonic() >= until, what="the pause")
            load.pass_by(3 * customers + 30)
            windows.append((percent, settled, time.monotonic()))
    report = load.stop()
    assert not report.failures, report.explain()
    histories = report.histories()
    assert len(histories) == customers
    on_canary: set[int] = set()
    for percent, start, end in windows:
        sides = {
            customer: {version for at, version in history if start <= at < end}
            for customer, history in histories.items()
        }
        torn = {customer: histories[customer] for customer, versions in sides.items() if len(versions) != 1}
        assert not torn, f"at {percent} % ({start} to {end}), these met both or none: {torn}"
        now = {customer for customer, versions in sides.items() if versions == {stage.new.version}}
        assert on_canary <= now, f"customers {on_canary - now} left the canary when it grew to {percent} %"
        on_canary = now
        share = percent / 100
        slack = 5 * math.sqrt(share * (1 - share) / customers)
        assert abs(len(now) / customers - share) <= slack, f"{len(now)} of {customers} at {percent} %"


def test_promotion_restarts_nothing_and_loses_nothing(
    stage: Any, record_property: Callable[..., None]
) -> None:
    stage.set_up(percent=20)
    pid = stage.find_pid(stage.canary)
    old = names.service_name(stage.name, stage.stable) + "-"
    with stage.load(rate=400) as load:
        load.pass_by(200)
        asked = time.monotonic()
        stage.tenure("rollout", "promote")
        carried_out = time.monotonic()
        stage.wait_for_weights({})
        # The old model's process has gone while the load went on.
        stage.wait_until(lambda: not any(name.startswith(old) for name in stage.list_programs()))
        load.pass_by(200)
        after = time.monotonic()
        load.pass_by(400)
    report = load.stop()
    assert not report.failures, report.explain()
    assert set(report.count(start=after)) == {stage.new.version}
    assert stage.find_pid(stage.canary) == pid
    assert stage.find_program(stage.canary).restarts == 0
    service = stage.read()
    assert service["spec"]["predictor"]["name"] == stage.canary
    assert service["spec"]["predictor"]["model"]["storageUri"] == stage.uri(stage.new.digest)
    assert not service["spec"].get("canary")
    assert carried_out - asked < 15
    record_property("requests", len(report.answers))


def test_rolling_a_promoted_version_back_loses_nothing(stage: Any) -> None:
    if names.PREVIOUS not in stage.annotations():
        stage.set_up(percent=20)
        stage.tenure("rollout", "promote")
    with stage.load(rate=400) as load:
        load.pass_by(200)
        stage.tenure("rollout", "rollback")
        stage.wait_for_weights({})
        load.pass_by(200)
        after = time.monotonic()
        load.pass_by(400)
    report = load.stop()
    assert not report.failures, report.explain()
    assert set(report.count(start=after)) == {stage.old.version}
    assert stage.read()["spec"]["predictor"]["model"]["storageUri"] == stage.uri(stage.old.digest)
    transition = json.loads(stage.annotations()[names.TRANSITION])
    assert (transition["outcome"], transition["digest"]) == ("rolled_back", stage.old.digest)


def test_rolling_a_canary_back_loses_nothing(stage: Any) -> None:
    stage.set_up(percent=50)
    pid = stage.find_pid()
    with stage.load(rate=400) as load:
        load.pass_by(200)
        stage.tenure("rollout", "rollback")
        stage.wait_for_weights({})
        load.pass_by(200)
        after = time.monotonic()
        load.pass_by(400)
    report = load.stop()
    assert not report.failures, report.explain()
    assert stage.new.version in report.count()
    assert set(report.count(start=after)) == {stage.old.version}
    assert stage.find_pid() == pid
    assert not stage.read()["spec"].get("canary")


def test_taking_a_canary_away_by_hand_loses_nothing(stage: Any) -> None:
    """In one step, with every customer on it: nobody told the pilot before."""
    stage.set_up(percent=100)
    with stage.load(rate=400) as load:
        load.pass_by(200)
        stage.services.inference.patch(stage.name, {"spec": {"canary": None}})
        stage.wait_for_weights({})
        load.pass_by(800)
    report = load.stop()
    assert not report.failures, report.explain()
