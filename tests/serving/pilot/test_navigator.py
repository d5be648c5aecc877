"""Whole rollouts in memory: customers ask, the gateway counts, the pilot steps, promotes or takes back."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from clients import names
from serving.pilot.tally import CANARY, to_traffic


class KilledError(Exception):
    """Stands for SIGKILL: nothing catches it."""


def test_harmless_canary_is_stepped_and_promoted(world):
    world = world()
    assert world.go(400, until=world.is_promoted)
    world.go(5)
    assert world.outcomes == ["shares", "advanced", "moving", "promoted"]
    shares = [transition["shares"] for _, transition in world.posted]
    stable, canary = world.make.STABLE[:12], world.make.CANARY[:12]
    assert shares == [{stable: 80, canary: 20}, {stable: 50, canary: 50}, {canary: 100}, {canary: 100}]
    promoted = world.posted[-1][1]
    assert promoted["reason"].startswith("no harm found")
    assert {signal["name"] for signal in promoted["evidence"]["signals"]} >= {"errors", "latency", "score"}
    assert not {names.ROLLOUT, names.PROVEN, names.UNRECORDED} & set(world.marks)
    assert world.versions.tags["2"]["rollout"] == "promoted"
    assert world.versions.aliases["champion"] == "2"
    assert [reason for _, reason, _ in world.events] == ["Shares", "Advanced", "Moving", "Promoted"]
    assert world.alarms == []


@pytest.mark.parametrize(
    ("fault", "signal"),
    [
        ({"errors": {"canary": 0.3, "stable": 0.0}}, "errors"),
        ({"slow": {"canary": 0.9, "stable": 0.1}}, "latency"),
        ({"bias": 0.01}, "mismatch"),
        ({"shift": 0.3}, "score"),
    ],
)
def test_harm_is_taken_back_with_its_evidence(world, fault, signal):
    world = world(min_requests=100_000)
    for name, value in fault.items():
        setattr(world, name, value)
    assert world.go(200, until=world.is_over)
    world.go(5)
    assert world.outcomes == ["shares", "stopped", "rolled_back"]
    assert world.posted[1][1]["shares"] == {world.make.STABLE[:12]: 100}
    taken = world.posted[-1][1]
    harms = [one["name"] for one in taken["evidence"]["signals"] if one["harm"]]
    assert harms == [signal]
    assert taken["reason"].startswith("take it back")
    assert world.split() == ({"churn-predictor": 100}, 0)
    assert not world.is_promoted()
    (alarm,) = world.alarms
    assert alarm[0] == "rollback"
    assert "take it back" in alarm[2]
    assert world.versions.tags["2"]["rollout"] == "rolled_back"
    assert "evidence" in " ".join(world.versions.tags["2"])


def test_traffic_is_taken_away_before_the_entry_is(world):
    world = world()
    world.errors["canary"] = 0.5
    assert world.go(200, until=lambda: names.ROLLBACK in world.marks)
    assert world.percent == 0
    assert world.go(4, until=world.is_over)


def test_manual_promotion_waits_for_a_person(world):
    world = world(promotion="manual")
    world.go(3)
    assert world.go(400, until=lambda: world.flight["judgement"]["action"] == "hold")
    world.go(10)
    assert (world.percent, world.is_promoted()) == (50, False)
    document = world.services.list()[0]
    document["metadata"]["annotations"][names.PROMOTE] = world.name
    world.services.put(document)
    world.go(12)
    assert world.is_promoted()
    assert world.posted[-1][1]["reason"] == "a person asked for it"


def test_paused_pilot_only_watches(world):
    world = world()
    document = world.services.list()[0]
    document["metadata"]["annotations"][names.PAUSE] = "true"
    world.services.put(document)
    world.errors["canary"] = 0.5
    world.go(12)
    assert world.percent == 20
    assert "paused" in world.flight["judgement"]["text"]
    assert world.outcomes[0] == "shares"


def test_dark_launch_copies_requests_before_any_customer_is_served(world):
    world = world(mirror_percent=50, mirror_requests=300)
    assert world.go(10, until=lambda: world.split()[1] == 50)
    assert world.split()[0][f"churn-{world.name}-predictor"] == 0
    assert world.flight["progress"]["step"] == -1
    assert world.go(200, until=lambda: world.percent == 20)
    world.go(3)
    assert world.split() == ({f"churn-{world.name}-predictor": 20, "churn-predictor": 80}, 0)
    assert world.go(400, until=world.is_promoted)


def test_harm_in_the_dark_ends_before_any_customer_is_served(world):
    world = world(mirror_percent=50)
    world.bias = 0.01
    assert world.go(100, until=world.is_over)
    world.go(3)
    assert world.split() == ({"churn-predictor": 100}, 0)
    assert all(transition["shares"] == {world.make.STABLE[:12]: 100} for _, transition in world.posted)


@pytest.mark.parametrize("what", ["gateway", "ledger"])
def test_without_evidence_nothing_is_stepped(world, what):
    world = world()
    world.go(3)
    world.outage = what
    world.go(40)
    assert world.percent == 20
    world.outage = None
    assert world.go(400, until=world.is_promoted)


def test_harm_is_seen_without_the_ledger(world):
    world = world()
    world.outage = "ledger"
    world.errors["canary"] = 0.5
    assert world.go(200, until=world.is_over)


def test_no_step_before_the_last_one_is_recorded_but_harm_does_not_wait(world):
    world = world()
    world.sink_down = True
    world.go(40)
    assert world.percent == 20
    assert json.loads(world.marks[names.UNRECORDED])
    world.errors["canary"] = 0.5
    assert world.go(300, until=world.is_over)
    world.sink_down = False
    world.go(90)
    assert world.outcomes == ["shares", "stopped", "rolled_back"]
    assert names.UNRECORDED not in world.marks
    assert len(world.alarms) == 1


def test_deadline_with_too_little_traffic_does_what_the_project_says(world):
    world = world(deadline_minutes=0.0001, on_deadline="rollback")
    assert world.go(20, requests=0, until=world.is_over)
    assert "deadline" in world.posted[-1][1]["reason"]


def test_canary_that_nobody_has_proven_is_left_alone(world):
    world = world()
    document = world.services.list()[0]
    del document["metadata"]["annotations"][names.PROVEN]
    world.services.put(document)
    world.errors["canary"] = 0.5
    world.go(60)
    assert world.percent == 20
    assert names.ROLLOUT not in world.marks


def test_restarted_gateway_loses_no_evidence_and_makes_none_up(world):
    world = world(promotion="manual")
    world.go(20)
    before = world.flight["progress"]["counters"]["canary"]
    for counts in world.counted.values():
        counts.update(requests=0, errors=0, slow=0)
    world.go(10)
    after = world.flight["progress"]["counters"]["canary"]
    assert before["meant"] < after["meant"] < before["meant"] + 200 * 12
    assert to_traffic(CANARY, after).errors == 0


def test_lost_events_are_told_once(world):
    world = world(promotion="manual")
    world.go(10)
    ask = world.ask

    def lose(requests):
        known = len(world.rows)
        ask(requests)
        del world.rows[known:]

    world.ask = lose
    world.go(80)
    assert [kind for kind, _, _ in world.alarms] == ["sink"]


@pytest.mark.parametrize("fate", ["promoted", "rolled_back", "dark"])
def test_pilot_killed_before_and_after_any_write_comes_to_the_same_end(world, fate):
    world = world(**({"mirror_percent": 50, "mirror_requests": 200} if fate == "dark" else {}))
    if fate == "rolled_back":
        world.errors["canary"] = 0.5
    # Not every second write: one that always comes after another would never be made.
    fates = np.random.default_rng(5)

    def kill():
        if fates.random() < 0.5:
            raise KilledError

    for shelf in (world.services, world.routes):
        shelf.on_write = kill
    over = world.is_over if fate == "rolled_back" else world.is_promoted
    for _ in range(3000):
        try:
            world.go(1)
        except KilledError:
            world.restart()
        if over():
            break
    else:
        pytest.fail("never came to an end")
    for shelf in (world.services, world.routes):
        shelf.on_write = lambda: None
    world.go(80)
    assert names.UNRECORDED not in world.marks
    unique = list(dict(world.posted).values())
    expected = {
        "promoted": ["shares", "advanced", "moving", "promoted"],
        "rolled_back": ["shares", "stopped", "rolled_back"],
        "dark": ["shares", "advanced", "advanced", "moving", "promoted"],
    }[fate]
    assert [one["outcome"] for one in unique] == expected
    assert datetime.fromisoformat(unique[-1]["at"]) <= datetime.now(UTC)
