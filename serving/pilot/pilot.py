"""The pilot's loop: read every InferenceService of ours, put its route right, carry out what was decided."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from threading import Event
from typing import Any, Protocol

from clients import names
from clients.errors import ClientError, ConflictError
from serving.pilot.registry import Recorder
from serving.pilot.route import build_route, covers, is_in_effect
from serving.pilot.transition import Decision, decide

logger = logging.getLogger("tenure.pilot")


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
        settle_seconds: How long a route must have been accepted before what follows from it is done. It
            covers the gateway's own delay between accepting a route and every worker following it.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        services: Resources,
        routes: Resources,
        recorder: Recorder,
        domain: str,
        settle_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._routes = routes
        self._recorder = recorder
        self._domain = domain
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._in_effect_since: dict[tuple[str, str], tuple[int, float]] = {}

    def run(self, stop: Event, interval_seconds: float = 0.5) -> None:
        """Reconcile until `stop` is set, pausing `interval_seconds` between passes."""
        while not stop.is_set():
            try:
                self.reconcile()
            except ClientError as error:
                logger.warning("will try again: %s", error)
            stop.wait(interval_seconds)

    def reconcile(self) -> None:
        """Make one pass over all InferenceServices.

        Raises:
            ClientError: When the cluster does not answer at all; a failure of one service spares the others.
        """
        services = [service for service in self._services.list() if _is_ours(service)]
        routes = {_key(route): route for route in self._routes.list() if _is_ours(route)}
        for service in services:
            try:
                self._reconcile_service(service, routes.pop(_key(service), None))
            except ConflictError as error:
                logger.info("%s changed meanwhile: %s", "/".join(_key(service)), error)
            except ClientError as error:
                logger.warning("%s: will try again: %s", "/".join(_key(service)), error)
        for key in routes:
            self._routes.delete(key[1])
            logger.info("%s: removed the route of a deleted service", "/".join(key))

    def _reconcile_service(self, service: Mapping[str, Any], route: dict[str, Any] | None) -> None:
        decision = decide(service, route, datetime.now(UTC))
        wanted = build_route(service, decision.weights, self._domain)
        if self._put_route(wanted, route) and decision.then is not None:
            self._carry_out(decision)
        else:
            self._recorder.record(service)

    def _put_route(self, wanted: dict[str, Any], route: dict[str, Any] | None) -> bool:
        """Write the route if it differs; tell whether it has been in effect for long enough."""
        key = _key(wanted)
        if route is None:
            self._routes.create(wanted)
            logger.info("%s: created the route", "/".join(key))
            return False
        if not covers(route["spec"], wanted["spec"]):
            self._routes.replace({**route, "spec": wanted["spec"]})
            logger.info("%s: weights %s", "/".join(key), _describe(wanted))
            return False
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


def _key(resource: Mapping[str, Any]) -> tuple[str, str]:
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def _is_ours(resource: Mapping[str, Any]) -> bool:
    return names.PROJECT_LABEL in (resource["metadata"].get("labels") or {})


def _describe(route: Mapping[str, Any]) -> str:
    backends = route["spec"]["rules"][-1]["backendRefs"]
    return ", ".join(f"{backend['name']} {backend['weight']} %" for backend in backends)
