"""Judging each canary in every pass, and saying what its InferenceService should become."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from clients import names
from clients.errors import ClientError
from serving.pilot.comparison import Match
from serving.pilot.evidence import Collector
from serving.pilot.flight import (
    Flight,
    Proven,
    act,
    begin,
    find_proven,
    is_paused,
    read_flight,
    write_flight,
)
from serving.pilot.metrics import Metrics
from serving.pilot.page import Backend, Statistics
from serving.pilot.route import is_ready, list_clusters
from tenure.errors import ProjectError
from tenure.judgement import Evidence, judge
from tenure.project import Project, parse_project

logger = logging.getLogger("tenure.pilot")

Document = dict[str, Any]

SAVE_SECONDS = 2.0
"""How often the newest judgement is written where a person sees it, while nothing follows from it."""

LOST_SECONDS = 30.0
"""How long answers must be missing in the ledger before somebody is told; the sink may be a little late."""

LOST_ANSWERS, LOST_SHARE = 50, 0.05
"""More than both must be missing."""

_ASKED = (names.ROLLBACK, names.SUPERSEDE, names.PROMOTE, names.REVERTING)


class Statistician(Protocol):
    """The part of `serving.pilot.gateway.Gateway` that the navigator needs."""

    def read(self) -> Statistics:
        """Read the gateway's counters."""


class Alarm(Protocol):
    """The part of `clients.notification.Notifier` that the pilot needs."""

    def notify(self, kind: Any, title: str, body: str) -> bool:
        """Tell people; never raises for a dead channel."""


class Shelf(Protocol):
    """The part of `clients.store.Store` that the navigator needs."""

    def get_bytes(self, uri: str) -> bytes:
        """Return an object's bytes."""


@dataclass
class _Course:
    """What this process knows of one service's canary beyond what the InferenceService says."""

    flight: Flight
    saved_at: float
    saved: tuple[Any, ...] = ()
    lost_since: float | None = None
    told: bool = False


class Navigator:
    """Judges canaries. What it keeps in memory is also in the InferenceService, or can be gathered again.

    Args:
        collector: Gathers evidence.
        gateway: The gateway's counters; None without an address: then no canary gets beyond its first step.
        store: Where projects are.
        metrics: What is published.
        alarm: Whom to tell that events are lost; None tells nobody.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        collector: Collector,
        gateway: Statistician | None,
        store: Shelf,
        metrics: Metrics,
        alarm: Alarm | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collector = collector
        self._gateway = gateway
        self._store = store
        self._metrics = metrics
        self._alarm = alarm
        self._clock = clock
        self._projects: dict[str, Project] = {}
        self._courses: dict[str, _Course] = {}
        self._statistics: Statistics | None = None

    def start_pass(self) -> None:
        """Forget the last pass's reading of the gateway."""
        self._statistics = None

    def end_pass(self, services: set[str]) -> None:
        """Forget services that are gone: all but `services`."""
        for name in set(self._courses) - services:
            self._drop(name)
        self._collector.forget(set(self._courses))

    def navigate(
        self, service: Mapping[str, Any], route: Mapping[str, Any] | None, now: datetime
    ) -> Document | None:
        """Judge the service's canary and return the InferenceService to write, or None.

        The route says which of the gateway's counters are whose.

        What a person has asked for comes first: until it is carried out, nothing is judged.

        Raises:
            clients.errors.ClientError: Store or gateway do not answer.
            serving.pilot.errors.SpecificationError: An annotation is not what the pilot writes.
            tenure.errors.ProjectError: The project in the store cannot be read by this version.
        """
        name = service["metadata"]["name"]
        marks = service["metadata"].get("annotations") or {}
        found = find_proven(service)
        if found is None or names.PROJECT_URI not in marks:
            self._drop(name)
            return None
        if any(annotation in marks for annotation in _ASKED):
            return None
        predictor, proven = found
        project = self._load_project(marks[names.PROJECT_URI])
        course = self._find_course(service, route, proven, predictor["name"], project, now)
        if course is None:
            return None
        match = _match(service, predictor, proven)
        flight, evidence, problem = self._judge(service, route, match, course.flight, project, now)
        course.flight = flight
        self._metrics.show_flight(name, flight, evidence.step_requests)
        self._watch_sink(name, match, course)
        then = None if problem else act(service, flight, evidence, project.rollout, now)
        if then is not None:
            return then
        return self._save(service, course, now)

    def _judge(
        self,
        service: Mapping[str, Any],
        route: Mapping[str, Any] | None,
        match: Match,
        flight: Flight,
        project: Project,
        now: datetime,
    ) -> tuple[Flight, Evidence, str | None]:
        """Return the flight with its newest judgement; with a problem nothing but harm may follow from it."""
        backends = self._read_backends(service, route, flight.progress.digest)
        progress, evidence, problem = self._collector.gather(match, project, flight.progress, backends, now)
        judgement = judge(project.rollout, evidence, progress, now)
        if judgement.action == "rollback":
            problem = None
        elif problem is not None:
            text = f"waits for the ledger: {problem}"
            if flight.judgement is None or flight.judgement.text != text:
                logger.warning("%s: %s", match.service, text)
            judgement = judgement.model_copy(update={"action": "wait", "text": text})
        if is_paused(service) and judgement.action != "wait":
            text = f"paused, so it only watches; else it would: {judgement.text}"
            judgement = judgement.model_copy(update={"text": text})
        return replace(flight, progress=progress, judgement=judgement), evidence, problem

    def _find_course(
        self,
        service: Mapping[str, Any],
        route: Mapping[str, Any] | None,
        proven: Proven,
        canary: str,
        project: Project,
        now: datetime,
    ) -> _Course | None:
        """Return the course that the canary is on; None while it has not begun."""
        name = service["metadata"]["name"]
        written = read_flight(service, proven.digest)
        course = self._courses.get(name)
        if course is not None and written is not None:
            known = course.flight.progress
            if (known.digest, known.since) == (proven.digest, written.progress.since):
                return course
        flight = written
        if flight is None:
            if not is_ready(service, canary):
                return None
            flight = begin(service, proven, project.rollout, now)
            if self._read_backends(service, route, proven.digest) is None and self._gateway is not None:
                return None
        course = self._courses[name] = _Course(flight, -SAVE_SECONDS + self._clock())
        return course

    def _read_backends(
        self, service: Mapping[str, Any], route: Mapping[str, Any] | None, digest: str
    ) -> tuple[Backend, Backend] | None:
        """Return the counters of canary and stable version; None while the route does not name both."""
        if self._gateway is None or route is None:
            return None
        if self._statistics is None:
            self._statistics = self._gateway.read()
        metadata = service["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        canary = names.service_name(name, names.canary_name(digest))
        stable = names.service_name(name, service["spec"]["predictor"].get("name"))
        clusters = list_clusters(route)
        if not {canary, stable} <= set(clusters.values()):
            return None
        return (
            self._statistics.find(namespace, canary, clusters),
            self._statistics.find(namespace, stable, clusters),
        )

    def _load_project(self, uri: str) -> Project:
        project = self._projects.get(uri)
        if project is None:
            try:
                project = parse_project(self._store.get_bytes(uri).decode(), where=uri)
            except UnicodeDecodeError as error:
                raise ProjectError(f"{uri}: is not UTF-8: {error}") from error
            self._projects = {**self._projects, uri: project}
        return project

    def _save(self, service: Mapping[str, Any], course: _Course, now: datetime) -> Document | None:
        """Return the InferenceService with the newest judgement, from time to time and when it is another."""
        flight = course.flight
        written = read_flight(service, flight.progress.digest)
        judgement = flight.judgement
        state = (flight.progress.slow_ms, judgement.action if judgement else None)
        due = self._clock() - course.saved_at >= SAVE_SECONDS
        if written is not None and not due and state == course.saved:
            return None
        if written is not None and (written.progress, written.judgement) == (flight.progress, judgement):
            return None
        course.saved_at, course.saved = self._clock(), state
        then = copy.deepcopy(dict(service))
        write_flight(then["metadata"].setdefault("annotations", {}), flight, now)
        return then

    def _watch_sink(self, name: str, match: Match, course: _Course) -> None:
        """Tell somebody, once for each canary, that answers do not reach the ledger."""
        lost = self._collector.count_lost(match, course.flight.progress)
        if lost is None:
            return
        self._metrics.lost.labels(name).set(lost)
        self._metrics.unscored.labels(name).set(
            self._collector.count_unscored(match, course.flight.progress) or 0
        )
        answers = sum(
            course.flight.progress.counters.get(arm, {}).get("answers", 0) for arm in ("canary", "stable")
        )
        if lost <= max(LOST_ANSWERS, LOST_SHARE * answers):
            course.lost_since = None
            return
        if course.lost_since is None:
            course.lost_since = self._clock()
        if course.told or self._clock() - course.lost_since < LOST_SECONDS:
            return
        course.told = True
        body = f"{lost} of {answers} answers since the canary {match.canary} began are not in the ledger."
        logger.error("%s: %s", name, body)
        if self._alarm is not None:
            self._alarm.notify("sink", f"{name}: predictions are not recorded", body)

    def _drop(self, name: str) -> None:
        self._courses.pop(name, None)
        self._metrics.drop_flight(name)


def _match(service: Mapping[str, Any], predictor: Mapping[str, Any], proven: Proven) -> Match:
    stable = service["spec"]["predictor"]
    uri = stable["model"]["storageUri"]
    return Match(
        service=service["metadata"]["name"],
        canary=proven.digest[:12],
        canary_uri=predictor["model"]["storageUri"],
        stable=names.digest_of(uri)[:12],
        stable_uri=uri,
        expected=proven.difference,
        logged="logger" in stable and "logger" in predictor,
    )


TROUBLE = (ClientError, ProjectError)
"""What keeps a canary from being judged now, and is tried again."""
