"""What the gateway counts for each backend, read from Envoy's page for Prometheus.

A canary's failures are seen although no client sees them. What Envoy charges to the name that the route
chose (a Service, or a Service with its stand-in) says how many requests were meant for a canary; what it
charges to the Service that was really tried says how many reached it. The rest it failed, and those that
its own processes count as errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import httpx

from clients.errors import RefusedError, UnreachableError
from tenure.judgement import Progress, Traffic

Counters = dict[str, dict[str, int]]
"""What may restart (a process, a cluster) -> counter -> value, which only grows until then."""

CANARY, STABLE = "canary", "stable"
"""The arms, as keys of `Progress.counters` for their sums; `ARM:NAME` has the last reading of a part."""

SLOWEST = 0.2
"""The share of the stable version's answers that count as slow."""

TIMED = 100
"""Answers of the stable version that it takes to say what is slow."""

_LINE = re.compile(r"^envoy_cluster_(\w+)\{([^}]*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_INFINITY = float("inf")


@dataclass
class Backend:
    """The counters of one Service, over its protocols and processes.

    Attributes:
        meant: Requests that the route meant for the Service and that are over, by cluster.
        tried: Requests sent to one of its processes, by cluster; a refused connection is none.
        refused: Requests that no connection could be had for, by cluster.
        failures: Requests that failed (5xx, reset, refused, timed out), by process.
        server_errors: Answers with a 5xx to what was meant for it, by cluster.
        client_errors: Answers with a 4xx, by cluster.
        answers: Answers with a 2xx, by cluster.
        times: Answers no slower than a bound in ms, by cluster and bound; `inf` has all.
    """

    meant: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    server_errors: dict[str, int] = field(default_factory=dict)
    client_errors: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    times: dict[str, dict[float, int]] = field(default_factory=dict)

    def find_slow_ms(self) -> float | None:
        """Return the bound that comes closest to setting apart the slowest fifth.

        None below `TIMED` answers.
        """
        bounds: dict[float, int] = {}
        for cluster in self.times.values():
            for bound, count in cluster.items():
                bounds[bound] = bounds.get(bound, 0) + count
        total = bounds.pop(_INFINITY, 0)
        if total < TIMED or not bounds:
            return None
        return min(bounds, key=lambda bound: (abs(1 - bounds[bound] / total - SLOWEST), bound))

    def count_raw(self, slow_ms: float | None) -> Counters:
        """Return the counters as they are, each by the name of what may restart it."""
        raw: Counters = {process: {"failed": count} for process, count in self.failures.items()}
        parts = {
            "meant": self.meant,
            "tried": self.tried,
            "refused": self.refused,
            "server_errors": self.server_errors,
            "client_errors": self.client_errors,
            "answers": self.answers,
        }
        for cluster in {*self.times, *(cluster for counts in parts.values() for cluster in counts)}:
            raw[cluster] = {name: counts.get(cluster, 0) for name, counts in parts.items()}
            times = self.times.get(cluster)
            if times and slow_ms is not None:
                total = times.get(_INFINITY, 0)
                raw[cluster] |= {"timed": total, "slow": total - times.get(slow_ms, total)}
        return raw


@dataclass(frozen=True)
class Statistics:
    """One reading of the gateway's page, by (namespace, Service)."""

    backends: dict[tuple[str, str], Backend]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a page; what is not about a Service of an InferenceService is skipped."""
        backends: dict[tuple[str, str], Backend] = {}
        for line in text.splitlines():
            match = _LINE.match(line)
            if match is None:
                continue
            metric, labels = match[1], dict(_LABEL.findall(match[2]))
            cluster = labels.get("envoy_cluster_name", "")
            parts = cluster.split("/")
            if len(parts) != 3:
                continue
            # By NAMESPACE/SERVICE+FALLBACK/PROTOCOL requests come to a SERVICE that has a stand-in.
            key = (parts[0], parts[1].partition("+")[0])
            _add(backends.setdefault(key, Backend()), metric, cluster, labels, match[3])
        return cls(backends)

    def find(self, namespace: str, service: str) -> Backend:
        """Return the counters of a Service; all zero for one that the gateway does not know."""
        return self.backends.get((namespace, service), Backend())


def _add(backend: Backend, metric: str, cluster: str, labels: dict[str, str], value: str) -> None:
    paired = "+" in cluster
    if metric == "endpoint_rq_error":
        backend.failures[f"{cluster}@{labels.get('envoy_endpoint_address', '')}"] = int(float(value))
    elif metric == "upstream_rq_completed":
        backend.meant[cluster] = int(float(value))
    elif metric == "upstream_rq_total" and not paired:
        backend.tried[cluster] = int(float(value))
    elif metric == "upstream_rq_pending_failure_eject" and not paired:
        backend.refused[cluster] = int(float(value))
    elif metric == "upstream_rq_xx":
        kinds = {"2": backend.answers, "4": backend.client_errors, "5": backend.server_errors}
        counts = kinds.get(labels.get("envoy_response_code_class", ""))
        if counts is not None:
            counts[cluster] = int(float(value))
    elif metric == "upstream_rq_time_bucket":
        backend.times.setdefault(cluster, {})[float(labels["le"])] = int(float(value))


class Gateway:
    """The gateway's statistics page.

    Args:
        url: Where it is, e.g. `http://127.0.0.1:9901/stats/prometheus`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        # The gateway is this machine's or this cluster's: a proxy from the environment cannot reach it.
        self._http = httpx.Client(timeout=5.0, trust_env=False)

    def read(self) -> Statistics:
        """Read the page.

        Raises:
            UnreachableError: It does not answer.
            RefusedError: It answers with an error, or with something else.
        """
        try:
            answer = self._http.get(self._url, params={"filter": _FILTER})
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"{self._url}: no answer ({error}). Is TENURE_GATEWAY_STATS_URL right?"
            ) from error
        if answer.status_code != 200:
            raise RefusedError(
                f"{self._url}: status {answer.status_code}. Is TENURE_GATEWAY_STATS_URL Envoy's page for "
                "Prometheus?"
            )
        try:
            return Statistics.parse(answer.text)
        except ValueError as error:
            raise RefusedError(f"{self._url}: is not Envoy's page for Prometheus: {error}") from error


# Envoy filters by its own names, before they become Prometheus's.
_FILTER = r"^cluster\..*(upstream_rq_([245]xx|time|completed|total|pending_failure_eject)|\.rq_error)$"


def add_up(before: Counters, raw: Counters) -> tuple[Counters, dict[str, int]]:
    """Find what was counted since an earlier reading, although a counter may have started anew.

    Args:
        before: The earlier reading.
        raw: This one.

    Returns:
        The reading to go on from (what is gone is kept, in case it comes back), and the sums of increases.
    """
    sums: dict[str, int] = {}
    for name, counts in raw.items():
        known = before.get(name)
        for counter, value in counts.items():
            # A counter that is new for a known process has only now become readable; one of a new process has
            # counted from 0.
            old = 0 if known is None else known.get(counter, value)
            sums[counter] = sums.get(counter, 0) + (value - old if value >= old else value)
    return {**before, **raw}, sums


def to_traffic(arm: str, sums: Mapping[str, int]) -> Traffic:
    """Return the sums of an arm's counters as traffic.

    The stable version's own tries include those of requests that it answers in the canary's place, so its
    errors are those that clients saw; nobody stands in for it. A request that is under way may be counted in
    one place and not yet in another: no difference counts below 0, and no errors above the requests.
    """

    def get(name: str) -> int:
        return sums.get(name, 0)

    if arm == CANARY:
        errors = max(get("meant") - get("tried"), 0) + max(get("failed") - get("refused"), 0)
    else:
        errors = get("server_errors")
    requests = get("meant")
    return Traffic(
        requests=requests,
        errors=min(errors + get("client_errors"), requests),
        timed=max(get("timed"), get("slow")),
        slow=get("slow"),
    )


def count(progress: Progress, canary: Backend, stable: Backend) -> Progress:
    """Return the progress with what the gateway counted since the last reading.

    What is slow is fixed by the first reading in which the stable version has answered often enough.
    """
    slow_ms = progress.slow_ms
    if slow_ms is None:
        slow_ms = stable.find_slow_ms()
    counters: Counters = dict(progress.counters)
    for arm, backend in ((CANARY, canary), (STABLE, stable)):
        prefix = f"{arm}:"
        before = {
            name.removeprefix(prefix): counts
            for name, counts in progress.counters.items()
            if name.startswith(prefix)
        }
        raw = backend.count_raw(slow_ms)
        after, sums = add_up(before, raw) if arm in counters else (raw, {})
        counters |= {f"{prefix}{name}": counts for name, counts in after.items()}
        total = counters.get(arm, {})
        counters[arm] = {counter: total.get(counter, 0) + sums.get(counter, 0) for counter in {*total, *sums}}
    return progress.model_copy(update={"slow_ms": slow_ms, "counters": counters})
