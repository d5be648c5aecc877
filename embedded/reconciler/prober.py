"""Asking model servers whether they are ready."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from embedded.ports import LOOPBACK
from embedded.reconciler.plan import Replica

_LOG = logging.getLogger(__name__)

INTERVAL_READY = 1.0
INTERVAL_NOT_READY = 0.1
# A busy server may be late now and then; a refused connection counts at once.
_PATIENCE = 3


@dataclass
class _Record:
    ready: bool = False
    failures: int = 0


class Prober(threading.Thread):
    """Keeps asking a set of servers, in a thread of its own.

    Args:
        notify: Called when a server became ready or ceased to be.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        super().__init__(name="prober", daemon=True)
        self._notify = notify
        self._lock = threading.Lock()
        self._replicas: dict[str, Replica] = {}
        self._records: dict[str, _Record] = {}
        self._ended = threading.Event()
        self._woken = threading.Event()
        self._client = httpx.Client(timeout=3.0, trust_env=False)

    def watch(self, replicas: Mapping[str, Replica]) -> None:
        """Ask these servers from now on, and no others."""
        with self._lock:
            if replicas == self._replicas:
                return
            self._replicas = dict(replicas)
            self._records = {name: self._records.get(name, _Record()) for name in replicas}
        self._woken.set()

    def ask_now(self) -> None:
        """Ask everyone at once and wait for the answers; whoever is too busy is asked again."""
        with self._lock:
            replicas = list(self._replicas.values())
        for replica in replicas:
            outcome = None
            for _ in range(_PATIENCE):
                outcome = self._ask(replica)
                if outcome is not None:
                    break
            self._note({replica: outcome})

    def list_ready(self) -> set[str]:
        """Return the names of those that are ready."""
        with self._lock:
            return {name for name, record in self._records.items() if record.ready}

    def run(self) -> None:
        """Ask until `end`."""
        with ThreadPoolExecutor(8, thread_name_prefix="probe") as pool, self._client:
            while not self._ended.is_set():
                self._woken.clear()
                with self._lock:
                    replicas = list(self._replicas.values())
                outcomes = list(pool.map(self._ask, replicas))
                changed, all_ready = self._note(dict(zip(replicas, outcomes, strict=True)))
                if changed:
                    self._notify()
                self._woken.wait(INTERVAL_READY if all_ready else INTERVAL_NOT_READY)

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._woken.set()
        self.join(15)

    def _note(self, outcomes: Mapping[Replica, bool | None]) -> tuple[bool, bool]:
        changed = False
        with self._lock:
            for replica, outcome in outcomes.items():
                record = self._records.get(replica.program)
                if record is None:
                    continue
                record.failures = 0 if outcome else record.failures + 1
                ready = bool(outcome) or (record.ready and outcome is None and record.failures < _PATIENCE)
                changed |= ready is not record.ready
                record.ready = ready
            return changed, all(record.ready for record in self._records.values())

    def _ask(self, replica: Replica) -> bool | None:
        """Return whether a server is ready; None when it did not say."""
        base = f"http://{LOOPBACK}:{replica.http_port}/v2"
        try:
            for path in ("/health/ready", f"/models/{replica.owner}/ready"):
                if self._client.get(base + path).status_code != httpx.codes.OK:
                    return False
        except httpx.ConnectError:
            return False
        except httpx.TransportError as error:
            _LOG.debug("%s did not answer: %r", replica.program, error)
            return None
        return True
