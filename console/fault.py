"""Faults from outside: signals to the canary's processes on this machine, which know nothing of it."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from clients import names
from clients.errors import NotFoundError
from clients.services import Services
from console.platform import call_platform
from tenure.project import Project

FAULTS = {
    "slow-canary": "The canary's process is stopped for 60 ms of every 80 ms: it answers late.",
    "failing-canary": "The canary's process is killed as often as it is started: it cannot answer.",
}
"""Faults by name; only where the platform runs on this machine."""

_LOOK_SECONDS = 1.0
_STOPPED_SECONDS = 0.06
_RUNNING_SECONDS = 0.02


class Fault:
    """Harms the processes of whatever canary there is, from `with` to its end.

    Args:
        name: One of `FAULTS`.
        services: Says who is a canary.
        project: Whose service is harmed.
    """

    def __init__(self, name: str, services: Services, project: Project) -> None:
        self.signals = 0
        self._slow = name == "slow-canary"
        self._services = services
        self._service = project.rollout.service
        self._namespace = services.inference.namespace
        self._end = threading.Event()
        self._pids: set[int] = set()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="fault")
        self._futures: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._futures = [self._pool.submit(self._look), self._pool.submit(self._harm)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._pool.shutdown()
        if error is None:
            for future in self._futures:
                future.result()

    def _look(self) -> None:
        """Keep the canary's process ids up to date."""
        while not self._end.wait(_LOOK_SECONDS):
            self._pids = find_canary_pids(self._services, self._service, self._namespace)

    def _harm(self) -> None:
        while not self._end.wait(_RUNNING_SECONDS if self._slow else _LOOK_SECONDS):
            pids = set(self._pids)
            if not self._slow:
                self._signal(pids, signal.SIGKILL)
                self._pids -= pids
                continue
            self._signal(pids, signal.SIGSTOP)
            # Whatever happens meanwhile: who was stopped goes on.
            self._end.wait(_STOPPED_SECONDS)
            self._signal(pids, signal.SIGCONT)

    def _signal(self, pids: set[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                self.signals += 1


def find_canary_pids(services: Services, service: str, namespace: str) -> set[int]:
    """Return the process ids of the canary's model servers; empty when there is no canary."""
    try:
        document = services.inference.get(service)
    except NotFoundError:
        return set()
    canaries = document["spec"].get("canary") or []
    backends = [names.service_name(service, one["predictor"].get("name")) for one in canaries]
    answer = call_platform("status", "--json", capture=True)
    if not answer.stdout.strip():
        return set()
    listed = json.loads(answer.stdout)
    processes = listed["services"] if isinstance(listed, dict) else listed
    # In the default namespace a program is called SERVICE-REVISION-INDEX; elsewhere something goes before it.
    prefix = "" if namespace == "default" else f"{namespace}."
    return {
        int(process["pid"])
        for process in processes
        if process["kind"] == "model"
        and process["pid"]
        and any(process["name"].startswith(f"{prefix}{backend}-") for backend in backends)
    }
