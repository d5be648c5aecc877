"""What the gateway counts for each backend, read from Envoy's page for Prometheus.

A canary's failures are seen although nobody else sees them: a request that it failed and the stable version
answered instead is an error of the process that was asked first. So tries and failures come from the counters
of each process (`envoy_cluster_endpoint_rq_*`); answers with a 4xx and durations from the clusters that
requests came by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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
        tries: Requests sent, by process.
        failures: Requests that failed (5xx, reset, refused, timed out), by process.
        client_errors: Answers with a 4xx, by cluster.
        answers: Answers with a 2xx, by cluster.
        times: Answers no slower than a bound in ms, by cluster and bound; `inf` has all.
    """

    tries: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
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
        raw: Counters = {}
        for process, tries in self.tries.items():
            raw[process] = {"requests": tries, "errors": self.failures.get(process, 0)}
        for cluster in {*self.client_errors, *self.answers, *self.times}:
            counts = {"errors": self.client_errors.get(cluster, 0), "answers": self.answers.get(cluster, 0)}
            times = self.times.get(cluster)
            if times and slow_ms is not None:
                total = times.get(_INFINITY, 0)
                counts |= {"timed": total, "slow": total - times.get(slow_ms, total)}
            raw[cluster] = counts
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
    process = f"{cluster}@{labels.get('envoy_endpoint_address', '')}"
    if metric == "endpoint_rq_total":
        backend.tries[process] = int(float(value))
    elif metric == "endpoint_rq_error":
        backend.failures[process] = int(float(value))
    elif metric == "upstream_rq_xx":
        kind = labels.get("envoy_response_code_class")
        if kind in ("2", "4"):
            counts = backend.answers if kind == "2" else backend.client_errors
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
_FILTER = r"^cluster\..*(upstream_rq_([24]xx|time)|\.rq_(total|error))$"


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


def to_traffic(sums: Iterable[dict[str, int]]) -> Traffic:
    """Return sums of counters as traffic. A failure may be counted before its try: never more than tried."""
    totals = {"requests": 0, "errors": 0, "timed": 0, "slow": 0}
    for one in sums:
        for counter in totals:
            totals[counter] += one.get(counter, 0)
    totals["requests"] = max(totals["requests"], totals["errors"])
    totals["timed"] = max(totals["timed"], totals["slow"])
    return Traffic(**totals)


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
