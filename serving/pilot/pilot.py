"""The pilot's loop: read every InferenceService of ours, put its route right, carry out what was decided."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from threading import Event
from typing import Any, Protocol

from clients import names, split
from clients.errors import ClientError, ConflictError
from serving.pilot.errors import PilotError
from serving.pilot.flight import find_mirrors
from serving.pilot.journal import (
    LIMIT,
    drop_recorded,
    read_last,
    read_unrecorded,
    share_out,
    write_transition,
)
from serving.pilot.metrics import Metrics
from serving.pilot.navigator import TROUBLE, Navigator
from serving.pilot.registry import Recorder, is_serving
from serving.pilot.route import (
    GATEWAY,
    covers,
    is_in_effect,
    is_leg,
    is_proven,
    list_canaries,
    plan_route,
)
from serving.pilot.server import Health
from serving.pilot.transition import Decision, decide

logger = logging.getLogger("tenure.pilot")

REMIND_SECONDS = 60.0
"""How often a trouble that lasts is logged again."""


class Resources(Protocol):
    """The part of `clients.services.Collection` that the pilot needs."""

    def list(self) -> list[dict[str, Any]]:
        """Return all resources of the namespace."""

    def create(self, document: dict[str, Any]) -> dict[str, Any]:
        """Create a resource."""

    def replace(self, document: dict[str, Any]) -> dict[str, Any]:
        """Write a resource; raises ConflictError when someone was faster."""

    def delete(self, name: str) -> None:
        """Delete a resource."""


class Pilot:
    """Reconciles the routes of all InferenceServices that carry the project label.

    It holds no state that matters: everything is read anew in each pass, so it may be killed at any moment.
    A pass that fails is logged and tried again.

    Args:
        services: The InferenceServices.
        routes: The HTTPRoutes.
        recorder: Writes to the model registry.
        domain: The gateway's domain.
        gateway: The Gateway that routes attach to, as NAMESPACE/NAME.
        settle_seconds: How long a route must have been accepted before what follows from it is done. It
            covers the gateway's own delay between accepting a route and every worker following it.
        clock: Monotonic seconds.
        navigator: Judges canaries; without one the pilot only carries out what is asked for.
        metrics: What is published; None publishes nothing.
    """

    def __init__(
        self,
        services: Resources,
        routes: Resources,
        recorder: Recorder,
        domain: str,
        settle_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        navigator: Navigator | None = None,
        metrics: Metrics | None = None,
        gateway: str = GATEWAY,
    ) -> None:
        self._services = services
        self._routes = routes
        self._recorder = recorder
        self._domain = domain
        self._gateway = gateway
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._navigator = navigator
        self._metrics = metrics
        self._troubles: dict[tuple[str, str], tuple[str, float]] = {}
        self._in_effect_since: dict[tuple[str, str], tuple[int, float]] = {}

    def run(self, stop: Event, interval_seconds: float = 0.5, health: Health | None = None) -> None:
        """Reconcile until `stop` is set, pausing `interval_seconds` between passes; tell `health` of each."""
        while not stop.is_set():
            succeeded = True
            try:
                self.reconcile()
            except ClientError as error:
                succeeded = False
                logger.warning("will try again: %s", error)
            if self._metrics is not None:
                self._metrics.passes.labels("succeeded" if succeeded else "failed").inc()
            if health is not None:
                health.note(succeeded)
            stop.wait(interval_seconds)

    def reconcile(self) -> None:
        """Make one pass over all InferenceServices.

        Raises:
            ClientError: When the cluster does not answer at all; a failure of one service spares the others.
        """
        services = [service for service in self._services.list() if _is_ours(service)]
        # KServe's own routes carry the labels of their InferenceService too, but they have an owner.
        routes = {
            _key(route): route
            for route in self._routes.list()
            if _is_ours(route) and not route["metadata"].get("ownerReferences")
        }
        if self._navigator is not None:
            self._navigator.start_pass()
        for service in services:
            try:
                self._reconcile_service(service, routes.pop(_find_key(service), None))
            except ConflictError as error:
                logger.info("%s changed meanwhile: %s", "/".join(_key(service)), error)
            except ClientError as error:
                self._warn(_key(service), error)
        present = {service["metadata"]["name"] for service in services}
        if self._navigator is not None:
            self._navigator.end_pass(present)
        if self._metrics is not None:
            self._metrics.keep(present)
        for key in routes:
            self._routes.delete(key[1])
            logger.info("%s: removed the route of a deleted service", "/".join(key))

    def _reconcile_service(self, service: Mapping[str, Any], route: dict[str, Any] | None) -> None:
        now = datetime.now(UTC)
        service = self._navigate(service, route, now)
        decision = decide(service, route, now)
        written = self._write_shares(service, decision, now)
        if written is not None:
            service, decision = written, decide(written, route, now)
        leg = plan_route(
            service,
            decision.weights,
            self._domain,
            self._find_mirrors(service, decision),
            gateway=self._gateway,
            before=route,
        )
        if self._put_route(leg.route, route) and leg.last and decision.then is not None:
            self._carry_out(decision)
        else:
            self._record(service)

    def _navigate(
        self, service: Mapping[str, Any], route: Mapping[str, Any] | None, now: datetime
    ) -> Mapping[str, Any]:
        """Judge the canary; return the InferenceService as it is afterwards."""
        if self._navigator is None:
            return service
        before = read_last(service)
        try:
            then = self._navigator.navigate(service, route, now)
        except (*TROUBLE, PilotError) as error:
            self._warn(_key(service), error)
            return service
        if then is None:
            return service
        written = self._services.replace(then)
        last = read_last(written)
        if last is not None and last != before:
            logger.info("%s: %s: %s", "/".join(_key(written)), last["outcome"], last.get("reason", ""))
            self._count(last["outcome"])
        return written

    def _write_shares(
        self, service: Mapping[str, Any], decision: Decision, now: datetime
    ) -> dict[str, Any] | None:
        """Write new shares down before the route gets them; return what was written, if that was needed."""
        shares = share_out(service, decision.weights) if is_proven(service) else {}
        if self._metrics is not None:
            self._metrics.show_weights(service["metadata"]["name"], shares)
        last = read_last(service)
        if not is_serving(service) or (last is not None and last.get("shares") == shares):
            return None
        if len(read_unrecorded(service)) >= LIMIT:
            return None
        outcome, reason = "serving", "the shares of the InferenceService"
        if decision.outcome in ("promoted", "rolled_back", "replaced"):
            outcome, reason = "moving", f"on the way to {decision.outcome.replace('_', ' ')}"
        elif list_canaries(service):
            outcome = "shares"
        then = copy.deepcopy(dict(service))
        write_transition(then["metadata"].setdefault("annotations", {}), outcome, now, shares, reason=reason)
        written = self._services.replace(then)
        self._count(outcome)
        return written

    def _find_mirrors(self, service: Mapping[str, Any], decision: Decision) -> dict[str, int]:
        if decision.outcome is not None:
            return {}
        try:
            return find_mirrors(service)
        except PilotError as error:
            self._warn(_key(service), error)
            return {}

    def _record(self, service: Mapping[str, Any]) -> None:
        """Record what waits for it, and take it off the list."""
        recorded = self._recorder.record(service)
        name = service["metadata"]["name"]
        if self._metrics is not None:
            self._metrics.unrecorded.labels(name).set(len(read_unrecorded(service)) - len(recorded))
        if recorded:
            then = copy.deepcopy(dict(service))
            drop_recorded(then["metadata"]["annotations"], recorded, "/".join(_key(service)))
            self._services.replace(then)

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.transitions.labels(outcome).inc()

    def _warn(self, key: tuple[str, str], error: Exception) -> None:
        """Count a trouble, and log it, the same one once a minute."""
        if self._metrics is not None:
            self._metrics.failures.labels(key[1]).inc()
        text, now = str(error), self._clock()
        known, since = self._troubles.get(key, ("", now))
        if text != known or now - since >= REMIND_SECONDS:
            self._troubles[key] = (text, now)
            logger.warning("%s: will try again: %s", "/".join(key), text)

    def _put_route(self, wanted: dict[str, Any], route: dict[str, Any] | None) -> bool:
        """Write the route if it differs; tell whether it has been in effect for long enough."""
        key = _key(wanted)
        if route is None:
            self._routes.create(wanted)
            logger.info("%s: created the route", "/".join(key))
            return False
        settled = self._is_settled(route)
        if covers(route["spec"], wanted["spec"]):
            return settled
        # The gateway must have followed one leg before the next one begins.
        if settled or not is_leg(route):
            self._routes.replace({**route, "spec": wanted["spec"]})
            logger.info("%s: weights %s", "/".join(key), _describe(wanted))
        return False

    def _is_settled(self, route: Mapping[str, Any]) -> bool:
        """Whether the gateway has had a route for long enough for every worker to follow it."""
        key = _key(route)
        if not is_in_effect(route):
            self._in_effect_since.pop(key, None)
            return False
        generation, now = route["metadata"].get("generation", 0), self._clock()
        known, since = self._in_effect_since.get(key, (None, now))
        if known != generation:
            since = now
        self._in_effect_since[key] = (generation, since)
        return now - since >= self._settle_seconds

    def _carry_out(self, decision: Decision) -> None:
        assert decision.then is not None  # noqa: S101
        written = self._services.replace(decision.then)
        logger.info("%s: %s %s", "/".join(_key(written)), decision.outcome, decision.digest or "")
        self._count(str(decision.outcome))


def _key(resource: Mapping[str, Any]) -> tuple[str, str]:
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def _find_key(service: Mapping[str, Any]) -> tuple[str, str]:
    """Return the key of a service's route."""
    return service["metadata"]["namespace"], names.route_name(service["metadata"]["name"])


def _is_ours(resource: Mapping[str, Any]) -> bool:
    return names.PROJECT_LABEL in (resource["metadata"].get("labels") or {})


def _describe(route: Mapping[str, Any]) -> str:
    weights = split.read_weights(route)
    total = sum(weights.values())
    return ", ".join(f"{name} {100 * weight / total:.4g} %" for name, weight in weights.items())
