"""Reading the gateway's counters: the page of each of its pods."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

from clients.errors import RefusedError, UnreachableError
from serving.pilot.page import Statistics

# Envoy filters by its own names, before they become Prometheus's.
_COUNTERS = r"upstream_rq_([245]xx|time|completed|total|pending_failure_eject|retry_success)|\.rq_error"


class Gateway:
    """The gateway's statistics, over all of its pods.

    Args:
        url: Where they are, e.g. `http://127.0.0.1:9901/stats/prometheus`; a host with several addresses, as
            a headless Service has them, is a gateway of as many pods.
        namespace: The namespace whose backends are of interest; None for all.
        clock: Seconds since 1970.
    """

    def __init__(
        self, url: str, namespace: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._url = url
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._path = parts.path
        where = "" if namespace is None else f"(httproute/)?{re.escape(namespace)}/"
        self._filter = rf"^(server\.uptime|cluster\.{where}.*({_COUNTERS}))$"
        self._clock = clock
        # The gateway is this machine's or this cluster's: a proxy from the environment cannot reach it.
        self._http = httpx.Client(timeout=5.0, trust_env=False)

    def read(self) -> Statistics:
        """Read the pages; a pod that is going or coming and does not answer is left out.

        Raises:
            UnreachableError: None answers.
            RefusedError: One answers with an error, or with something else.
        """
        pods = self._find_pods()
        if pods is None:
            return self._read(self._url, "")
        found: Statistics | None = None
        problem: UnreachableError | None = None
        for pod in pods:
            host = f"[{pod}]" if ":" in pod else pod
            try:
                page = self._read(f"http://{host}:{self._port}{self._path}", pod)
            except UnreachableError as error:
                problem = error
            else:
                found = page if found is None else found.join(page)
        if found is None:
            raise UnreachableError(f"{self._url}: none of {len(pods)} pods answers") from problem
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _find_pods(self) -> list[str] | None:
        """Return the addresses behind a name; None for a host that is no name, or this machine's."""
        if self._host == "localhost" or ":" in self._host or self._host.replace(".", "").isdigit():
            return None
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise UnreachableError(
                f"{self._url}: {self._host} has no address ({error}). Is TENURE_GATEWAY_STATS_URL right, and "
                "is a pod of the gateway ready?"
            ) from error
        return sorted({str(address[4][0]) for address in found})

    def _read(self, url: str, pod: str) -> Statistics:
        try:
            answer = self._http.get(url, params={"filter": self._filter})
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"{url}: no answer ({error}). Is TENURE_GATEWAY_STATS_URL right?"
            ) from error
        if answer.status_code != 200:
            raise RefusedError(
                f"{url}: status {answer.status_code}. Is TENURE_GATEWAY_STATS_URL Envoy's page for "
                "Prometheus?"
            )
        try:
            return Statistics.parse(answer.text, pod, self._clock())
        except ValueError as error:
            raise RefusedError(f"{url}: is not Envoy's page for Prometheus: {error}") from error
