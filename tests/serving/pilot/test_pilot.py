from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from clients import names
from clients.split import read_weights
from serving.pilot.pilot import Pilot
from serving.pilot.registry import Recorder
from serving.pilot.transition import REVERT_TIMEOUT_SECONDS, decide


class KilledError(Exception):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def fly(services, routes, versions):
    """Make passes as a new pilot process would; each pass comes a second after the one before."""
    clock = iter(range(100_000))

    def start():
        return Pilot(
            services, routes, Recorder(versions), "example.com", settle_seconds=0.5, clock=lambda: next(clock)
        )

    def fly(passes=12, pilot=None):
        pilot = pilot or start()
        for _ in range(passes):
            pilot.reconcile()
        return pilot

    fly.start = start
    return fly


def split(routes):
    return read_weights(routes.documents["churn-customers"])


def last(services):
    return json.loads(services.documents["churn"]["metadata"]["annotations"]["tenure.dev/last-transition"])


def become_ready(services):
    """What the platform does: every canary entry becomes ready."""
    for service in services.list():
        service["status"]["canaryStatuses"] = [
            {"name": entry["predictor"]["name"], "ready": True} for entry in service["spec"].get("canary", [])
        ]
        services.put(service)


def test_route_follows_the_inference_service(make, services, routes, versions, fly):
    service = make.service()
    services.create(service)
    pilot = fly()
    assert split(routes) == {"churn-predictor": 100}
    assert versions.aliases == {"champion": "1"}

    current = services.list()[0]
    name = make.canary(current, percent=20)
    services.put(current)
    fly(pilot=pilot)
    assert split(routes) == {f"churn-{name}-predictor": 20, "churn-predictor": 80}

    services.delete("churn")
    fly(pilot=pilot)
    assert routes.documents == {}


def test_a_first_model_serves_once_it_is_proven(make, services, routes, versions, fly):
    service = make.service(annotations={names.UNPROVEN: make.STABLE})
    services.create(service)
    pilot = fly()
    assert split(routes) == {}
    assert names.TRANSITION not in services.documents["churn"]["metadata"]["annotations"]
    assert versions.aliases == {}
    current = services.list()[0]
    del current["metadata"]["annotations"][names.UNPROVEN]
    services.put(current)
    fly(pilot=pilot)
    assert split(routes) == {"churn-predictor": 100}
    assert last(services)["shares"] == {make.STABLE[:12]: 100}


def test_services_of_others_are_left_alone(make, services, routes, fly):
    service = make.service()
    service["metadata"]["labels"] = {}
    services.create(service)
    fly()
    assert routes.documents == {}


def test_a_route_that_somebody_changed_is_put_right(make, services, routes, fly):
    services.create(make.service())
    pilot = fly()
    changed = routes.list()[0]
    changed["spec"]["rules"][0]["backendRefs"][0]["weight"] = 1
    routes.put(changed)
    fly(passes=1, pilot=pilot)
    assert split(routes) == {"churn-predictor": 100}


def test_promote_moves_the_route_before_the_service(make, services, routes, versions, fly):
    service = make.service()
    name = make.canary(service)
    service["metadata"]["annotations"]["tenure.dev/promote"] = name
    services.create(service)
    pilot = fly(passes=1)
    pilot.reconcile()
    assert split(routes) == {f"churn-{name}-predictor": 100, "churn-predictor": 0}
    assert "canary" in services.documents["churn"]["spec"]

    fly(pilot=pilot)
    document = services.documents["churn"]
    assert "canary" not in document["spec"]
    predictor = document["spec"]["predictor"]
    assert (predictor["name"], predictor["minReplicas"]) == (name, 2)
    assert predictor["model"]["storageUri"].endswith(make.CANARY)
    assert "name" not in predictor["model"]
    annotations = document["metadata"]["annotations"]
    assert "tenure.dev/promote" not in annotations
    assert annotations["tenure.dev/previous"].endswith(make.STABLE)
    assert last(services)["outcome"] == "promoted"
    assert split(routes) == {f"churn-{name}-predictor": 100}
    assert versions.aliases == {"champion": "2"}
    assert versions.tags["2"]["rollout"] == "promoted"


def test_service_is_not_promoted_while_the_gateway_lags(make, services, routes, fly):
    routes.gateway = False
    service = make.service()
    name = make.canary(service)
    service["metadata"]["annotations"]["tenure.dev/promote"] = name
    services.create(service)
    fly(passes=20)
    assert "canary" in services.documents["churn"]["spec"]


@pytest.mark.parametrize(
    ("ready", "asked", "reason"),
    [(False, None, "is not ready"), (True, "bffffffffff", "there is no canary bffffffffff")],
)
def test_promote_is_refused_with_a_reason(make, services, routes, fly, ready, asked, reason):
    service = make.service()
    name = make.canary(service, ready=ready)
    service["metadata"]["annotations"]["tenure.dev/promote"] = asked or name
    services.create(service)
    fly()
    assert last(services)["outcome"] == "refused"
    assert reason in last(services)["reason"]
    assert "tenure.dev/promote" not in services.documents["churn"]["metadata"]["annotations"]
    assert services.documents["churn"]["spec"]["canary"]


def test_pause_freezes_the_shares_and_refuses_to_promote(make, services, routes, fly):
    service = make.service()
    name = make.canary(service, percent=10)
    services.create(service)
    pilot = fly()
    current = services.list()[0]
    current["metadata"]["annotations"]["tenure.dev/pause"] = "true"
    current["spec"]["canary"][0]["trafficPercent"] = 50
    services.put(current)
    fly(pilot=pilot)
    assert split(routes)[f"churn-{name}-predictor"] == 10

    current = services.list()[0]
    current["metadata"]["annotations"]["tenure.dev/promote"] = name
    services.put(current)
    fly(pilot=pilot)
    assert "paused" in last(services)["reason"]

    current = services.list()[0]
    del current["metadata"]["annotations"]["tenure.dev/pause"]
    services.put(current)
    fly(pilot=pilot)
    assert split(routes)[f"churn-{name}-predictor"] == 50


def test_rollback_takes_a_canary_away_even_when_paused(make, services, routes, versions, fly):
    versions.aliases = {"champion": "1", "challenger": "2"}
    service = make.service(annotations={"tenure.dev/pause": "true"})
    name = make.canary(service)
    service["metadata"]["annotations"]["tenure.dev/rollback"] = name
    services.create(service)
    fly()
    document = services.documents["churn"]
    assert "canary" not in document["spec"]
    assert document["spec"]["predictor"]["model"]["storageUri"].endswith(make.STABLE)
    assert split(routes) == {"churn-predictor": 100}
    assert versions.aliases == {"champion": "1"}
    assert versions.tags["2"]["rollout"] == "rolled_back"


def test_rollback_of_a_promoted_version_brings_the_previous_bundle_back(
    make, services, routes, versions, fly
):
    service = make.service(annotations={"tenure.dev/previous": f"s3://tenure/bundles/{make.CANARY}"})
    service["metadata"]["annotations"]["tenure.dev/rollback"] = "stable"
    services.create(service)
    pilot = fly()
    entry = services.documents["churn"]["spec"]["canary"][0]
    assert (entry["trafficPercent"], entry["predictor"]["minReplicas"]) == (0, 2)
    assert split(routes)["churn-predictor"] == 100
    assert last(services)["outcome"] == "reverting"

    become_ready(services)
    fly(pilot=pilot)
    document = services.documents["churn"]
    assert "canary" not in document["spec"]
    assert document["spec"]["predictor"]["model"]["storageUri"].endswith(make.CANARY)
    assert document["metadata"]["annotations"]["tenure.dev/previous"].endswith(make.STABLE)
    assert last(services)["outcome"] == "rolled_back"
    assert versions.aliases["champion"] == "2"
    assert versions.tags["1"]["rollout"] == "rolled_back"
    assert versions.tags["2"]["rollout"] == "restored"


def test_rollback_gives_up_on_a_bundle_that_never_becomes_ready(make):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    service = make.service()
    name = make.canary(service, percent=0, ready=False)
    state = json.dumps({"canary": name, "since": now.isoformat()})
    service["metadata"]["annotations"]["tenure.dev/reverting"] = state
    assert decide(service, None, now + timedelta(seconds=REVERT_TIMEOUT_SECONDS - 1)).then is None
    decision = decide(service, None, now + timedelta(seconds=REVERT_TIMEOUT_SECONDS))
    assert decision.outcome == "failed"
    assert "canary" not in decision.then["spec"]


def test_rollback_of_the_first_version_is_refused(make, services, routes, fly):
    services.create(make.service(annotations={"tenure.dev/rollback": "stable"}))
    fly()
    assert "first version" in last(services)["reason"]


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_pilot_killed_before_any_write_goes_on_to_the_same_end(make, services, routes, versions, fly, action):
    service = make.service()
    name = make.canary(service)
    service["metadata"]["annotations"][f"tenure.dev/{action}"] = name
    services.create(service)

    def kill():
        raise KilledError

    for _ in range(10):
        for shelf in (services, routes):
            shelf.on_write = kill
            pilot = fly.start()
            for _ in range(3):
                try:
                    pilot.reconcile()
                except KilledError:
                    break
            shelf.on_write = lambda: None
            fly(passes=1)
    fly()
    document = services.documents["churn"]
    assert "canary" not in document["spec"]
    expected = make.CANARY if action == "promote" else make.STABLE
    assert document["spec"]["predictor"]["model"]["storageUri"].endswith(expected)
    assert set(split(routes).values()) == {100}


def test_a_first_model_that_never_answered_is_not_called_champion(make, services, routes, versions, fly):
    service = make.service()
    service["status"]["conditions"] = [{"type": "PredictorReady", "status": "False"}]
    services.create(service)
    pilot = fly()
    assert versions.aliases == {}
    current = services.list()[0]
    current["status"]["conditions"] = [{"type": "PredictorReady", "status": "True"}]
    services.put(current)
    fly(pilot=pilot)
    assert versions.aliases == {"champion": "1"}
