"""What `/metrics` says about the pilot."""

from __future__ import annotations

from math import isfinite
from typing import Final

from prometheus_client import Counter, Gauge
from prometheus_client.registry import REGISTRY, CollectorRegistry

from serving.pilot.flight import Flight

OUTCOMES: Final = (
    *("serving", "shares", "moving", "advanced", "stopped"),
    *("promoted", "rolled_back", "reverting", "failed", "refused"),
)
"""What a transition may say."""


class Metrics:
    """The pilot's metrics.

    Exposed: `pilot_passes_total{outcome}`; `pilot_step{service,canary}` (-1: dark launch);
    `pilot_weight{service,version}` in percent; `pilot_evidence{service,canary,signal,bound}` (`estimate`,
    `low`, `high`, `tolerance`); `pilot_requests{service,canary}` in this step;
    `pilot_transitions_total{outcome}`; `pilot_failures_total{service}`: passes in which something of this
    service could not be done; `pilot_unrecorded{service}`; `pilot_lost_events{service}`: answers
    since the canary's beginning that the ledger does not hold; `pilot_unscored_rows{service}`: rows of the
    ledger that the canary's bundle does not take as they were logged, and that are not compared therefore.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.passes = Counter("pilot_passes", "Passes over all services", ["outcome"], registry=registry)
        self.transitions = Counter("pilot_transitions", "Transitions written", ["outcome"], registry=registry)
        # A series that begins with its first event has no increase that an alert could see.
        for outcome in ("succeeded", "failed"):
            self.passes.labels(outcome)
        for outcome in OUTCOMES:
            self.transitions.labels(outcome)
        self.failures = Counter(
            "pilot_failures", "Passes in which a service had trouble", ["service"], registry=registry
        )
        self.unrecorded = Gauge(
            "pilot_unrecorded", "Transitions that wait to be recorded", ["service"], registry=registry
        )
        self.lost = Gauge(
            "pilot_lost_events", "Answers that the ledger does not hold", ["service"], registry=registry
        )
        self.unscored = Gauge(
            "pilot_unscored_rows", "Logged rows that cannot be scored again", ["service"], registry=registry
        )
        self._step = Gauge("pilot_step", "Step of the canary", ["service", "canary"], registry=registry)
        self._weight = Gauge("pilot_weight", "Percent of requests", ["service", "version"], registry=registry)
        self._requests = Gauge(
            "pilot_requests", "Answers of the canary in this step", ["service", "canary"], registry=registry
        )
        self._evidence = Gauge(
            "pilot_evidence",
            "How much worse the canary is",
            ["service", "canary", "signal", "bound"],
            registry=registry,
        )
        self._weights: dict[str, set[str]] = {}
        self._flights: dict[str, tuple[str, set[str]]] = {}

    def show_weights(self, service: str, shares: dict[str, int]) -> None:
        """Publish the shares by version; versions that are gone disappear."""
        for version in self._weights.get(service, set()) - set(shares):
            self._weight.remove(service, version)
        self._weights[service] = set(shares)
        for version, share in shares.items():
            self._weight.labels(service, version).set(share)

    def keep(self, services: set[str]) -> None:
        """Take away what was published of services that are gone: nobody waits for an answer of theirs."""
        for service in set(self._weights) - services:
            self.show_weights(service, {})
            del self._weights[service]
            self.drop_flight(service)
            for series in (self.unrecorded, self.failures):
                series.remove_by_labels({"service": service})

    def show_flight(self, service: str, flight: Flight, requests: int) -> None:
        """Publish a canary's step and signals."""
        canary = flight.progress.canary
        known = self._flights.get(service)
        if known is not None and known[0] != canary:
            self.drop_flight(service)
        self._step.labels(service, canary).set(flight.progress.step)
        self._requests.labels(service, canary).set(requests)
        signals = flight.judgement.signals if flight.judgement is not None else ()
        self._flights[service] = (canary, {signal.name for signal in signals})
        for signal in signals:
            for bound in ("estimate", "low", "high", "tolerance"):
                value = float(getattr(signal, bound))
                if isfinite(value):
                    self._evidence.labels(service, canary, signal.name, bound).set(value)

    def drop_flight(self, service: str) -> None:
        """Take away what was published of a canary that is none any more."""
        known = self._flights.pop(service, None)
        if known is None:
            return
        canary, _ = known
        self._step.remove(service, canary)
        self._requests.remove(service, canary)
        self._evidence.remove_by_labels({"service": service, "canary": canary})
        self.lost.remove_by_labels({"service": service})
        self.unscored.remove_by_labels({"service": service})
