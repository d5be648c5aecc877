"""What the gateway counts for each backend, as Envoy's page for Prometheus has it.

A canary's failures are seen although no client sees them. Which of Envoy's clusters are a Service's is read
from their names, not from the place:

- `NAMESPACE/SERVICE/PROTOCOL` is the Service, and `NAMESPACE/SERVICE+STANDIN/PROTOCOL` the Service with the
  one that answers in its place. What Envoy charges to the name that the route chose says how
  many requests were meant for a canary; what it charges to the Service that was really tried says how many
  reached it. The rest it failed, and those that its own processes count as errors;
- Envoy Gateway calls them `httproute/NAMESPACE/ROUTE/rule/I/backend/J`: only the route says whose they are.
  Nobody stands in there. What a cluster answered with a 5xx failed, and so did what was only answered when it
  was tried again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

Counters = dict[str, dict[str, int]]
"""What may restart (a process, a cluster) -> counter -> value, which only grows until then."""

SLOWEST = 0.2
"""The share of the stable version's answers that count as slow."""

TIMED = 100
"""Answers of the stable version that it takes to say what is slow."""

_LINE = re.compile(r"^envoy_(cluster|server)_(\w+)\{([^}]*)\} (\S+)$")
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
        pods: Since when (seconds since 1970) each pod of the gateway has counted, by its address; the names
            of its clusters end in `@ADDRESS`. Empty where there is only one gateway, which has no name.
    """

    meant: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    server_errors: dict[str, int] = field(default_factory=dict)
    client_errors: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    times: dict[str, dict[float, int]] = field(default_factory=dict)
    pods: dict[str, int] = field(default_factory=dict)

    def merge(self, other: Self) -> None:
        """Add another part of the same Service."""
        for name in ("meant", "tried", "refused", "failures", "server_errors", "client_errors", "answers"):
            getattr(self, name).update(getattr(other, name))
        self.times |= other.times
        self.pods |= other.pods

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
        parts = {
            "failed": self.failures,
            "meant": self.meant,
            "tried": self.tried,
            "refused": self.refused,
            "server_errors": self.server_errors,
            "client_errors": self.client_errors,
            "answers": self.answers,
        }
        raw: Counters = {}
        for cluster in {*self.times, *(cluster for counts in parts.values() for cluster in counts)}:
            raw[cluster] = {name: counts[cluster] for name, counts in parts.items() if cluster in counts}
            times = self.times.get(cluster)
            if times and slow_ms is not None:
                total = times.get(_INFINITY, 0)
                raw[cluster] |= {"timed": total, "slow": total - times.get(slow_ms, total)}
        return raw


@dataclass(frozen=True)
class Statistics:
    """One reading of the gateway's pages.

    Attributes:
        backends: By (namespace, Service), or by ("", cluster) where only the route says whose a cluster is.
        pods: As in `Backend`.
    """

    backends: dict[tuple[str, str], Backend]
    pods: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, pod: str = "", now: float = 0.0) -> Self:
        """Read a page; what is not about a Service of an InferenceService is skipped.

        Args:
            text: The page.
            pod: The address of the pod that it is of; "" for the only one.
            now: Seconds since 1970, to say since when the pod counts.
        """
        backends: dict[tuple[str, str], Backend] = {}
        pods: dict[str, int] = {}
        for line in text.splitlines():
            match = _LINE.match(line)
            if match is None:
                continue
            metric, labels = match[2], dict(_LABEL.findall(match[3]))
            if match[1] == "server":
                if metric == "uptime" and pod:
                    pods[pod] = round(now - float(match[4]))
                continue
            cluster = labels.get("envoy_cluster_name", "")
            key, add = _place(cluster)
            if key is not None:
                part = f"{cluster}@{pod}" if pod else cluster
                add(backends.setdefault(key, Backend()), metric, part, labels, match[4])
        return cls(backends, pods)

    def find(self, namespace: str, service: str, clusters: Mapping[str, str] | None = None) -> Backend:
        """Return the counters of a Service; all zero for one that the gateway does not know.

        Args:
            namespace: Its namespace.
            service: Its name.
            clusters: Services by cluster, as the route says (`serving.pilot.route.list_clusters`).
        """
        found = Backend(pods=dict(self.pods))
        own = [name for name, owner in (clusters or {}).items() if owner == service]
        for key in ((namespace, service), *(("", name) for name in own)):
            if key in self.backends:
                found.merge(self.backends[key])
        return found

    def join(self, other: Self) -> Self:
        """Return this reading and that of another pod as one."""
        backends = dict(self.backends)
        for key, backend in other.backends.items():
            both = Backend()
            for part in (backends.get(key, Backend()), backend):
                both.merge(part)
            backends[key] = both
        return type(self)(backends, {**self.pods, **other.pods})


_Add = Callable[[Backend, str, str, dict[str, str], str], None]


def _place(cluster: str) -> tuple[tuple[str, str] | None, _Add]:
    """Return under which key a cluster's counters belong, and how they are read; None for a foreign one."""
    if cluster.startswith("httproute/"):
        return ("", cluster), _add_routed
    parts = cluster.split("/")
    # By NAMESPACE/SERVICE+FALLBACK/PROTOCOL requests come to a SERVICE that has a stand-in.
    return ((parts[0], parts[1].partition("+")[0]) if len(parts) == 3 else None), _add


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
    else:
        _add_answers(backend, metric, cluster, labels, value)


def _add_routed(backend: Backend, metric: str, cluster: str, labels: dict[str, str], value: str) -> None:
    """Add a counter of a cluster that has no stand-in: what was tried with it is what was meant for it."""
    if metric == "upstream_rq_completed":
        backend.meant[cluster] = backend.tried[cluster] = int(float(value))
    elif metric == "upstream_rq_retry_success":
        # Failed at first, and answered when tried again; the client saw nothing of it.
        for counts in (backend.failures, backend.server_errors):
            counts[f"again:{cluster}"] = int(float(value))
    else:
        _add_answers(backend, metric, cluster, labels, value)
        if cluster in backend.server_errors:
            backend.failures[cluster] = backend.server_errors[cluster]


def _add_answers(backend: Backend, metric: str, cluster: str, labels: dict[str, str], value: str) -> None:
    if metric == "upstream_rq_xx":
        kinds = {"2": backend.answers, "4": backend.client_errors, "5": backend.server_errors}
        counts = kinds.get(labels.get("envoy_response_code_class", ""))
        if counts is not None:
            counts[cluster] = int(float(value))
    elif metric == "upstream_rq_time_bucket":
        backend.times.setdefault(cluster, {})[float(labels["le"])] = int(float(value))
