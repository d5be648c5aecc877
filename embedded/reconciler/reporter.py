"""What the reconciler saw, told in statuses, events and the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from embedded.errors import SpecError
from embedded.home import Home
from embedded.kubernetes.events import record_event
from embedded.kubernetes.objects import format_now
from embedded.kubernetes.registry import Registry
from embedded.kubernetes.resources import INFERENCE_SERVICES
from embedded.ports import LOOPBACK
from embedded.program import ProgramState, State
from embedded.reconciler.plan import Replica
from embedded.reconciler.status import Failure, VariantState, build_status

_LOG = logging.getLogger(__name__)

Document = dict[str, Any]


class Reporter:
    """Remembers why processes fail, and writes InferenceServices' statuses.

    Args:
        home: Where the logs are.
        registry: The InferenceServices.
        domain: Of their hostnames.
    """

    def __init__(self, home: Home, registry: Registry, domain: str) -> None:
        self._home = home
        self._registry = registry
        self._domain = domain
        self._failures: dict[str, Failure] = {}
        self._restarts: dict[str, int] = {}

    def fail(self, replica: Replica, reason: str, message: str) -> None:
        """Keep why a process does not work, and tell those who ask `kubectl describe`."""
        old = self._failures.get(replica.program)
        same = old is not None and (old.reason, old.message) == (reason, message)
        since = old.time if old is not None and same else format_now()
        self._failures[replica.program] = Failure(reason, message, since)
        body = self._registry.storage.get(INFERENCE_SERVICES.key, replica.namespace, replica.owner)
        if body is not None:
            record_event(self._registry.storage, body, "Warning", reason, message)
        _LOG.warning("%s: %s: %s", replica.program, reason, message)

    def find_failure(self, name: str) -> Failure | None:
        """Return why a process does not work, if it was told."""
        return self._failures.get(name)

    def clear(self, name: str) -> None:
        """Forget a failure, for the process is ready."""
        self._failures.pop(name, None)

    def forget(self, name: str) -> None:
        """Forget a process, for it is gone."""
        self._failures.pop(name, None)
        self._restarts.pop(name, None)

    def note_restarts(self, replica: Replica, known: ProgramState) -> None:
        """Notice that a process ended by itself, and tell it once."""
        name = replica.program
        before = self._restarts.get(name)
        self._restarts[name] = known.restarts
        again = before is not None and known.restarts > before
        if known.state is not State.BACKOFF and not again:
            return
        if again or before is None or name not in self._failures:
            line = self._read_last_line(name)
            # The reason before the place to look: whoever quotes this may cut it short.
            message = f"{name} ended by itself" + (f"; its last line: {line}" if line else "")
            message += f"; log: {self._home.log_file(name)} (`tenure logs {name}`)"
            self.fail(replica, "CrashLoopBackOff" if known.state is State.BACKOFF else "Restarted", message)

    def write_status(self, body: Document, variants: Sequence[VariantState], problem: str | None) -> None:
        """Write the status of an InferenceService, and an event for each condition that changed.

        Args:
            body: It.
            variants: What is seen of its variants.
            problem: Why the gateway does not route as it should; None when it does.
        """
        metadata = body["metadata"]
        url = f"http://{LOOPBACK}:{self._home.state.ports.gateway}"
        status = build_status(body, variants, self._domain, url, problem)
        if not self._registry.set_status(INFERENCE_SERVICES, metadata["namespace"], metadata["name"], status):
            return
        before = {
            condition["type"]: condition["status"]
            for condition in (body.get("status") or {}).get("conditions", [])
        }
        storage = self._registry.storage
        for condition in status["conditions"]:
            kind = condition["type"]
            if condition["status"] == "True" and before.get(kind) != "True":
                record_event(storage, body, "Normal", kind, f"{kind} is True")
            elif condition["status"] != "True" and before.get(kind) == "True":
                reason = kind.replace("Ready", "NotReady")
                record_event(storage, body, "Warning", reason, condition.get("message", ""))

    def write_refusal(self, body: Document, error: SpecError) -> None:
        """Say in a status that an InferenceService cannot be run as it is any more."""
        metadata, old = body["metadata"], body.get("status") or {}
        condition = {
            "type": "Ready",
            "status": "False",
            "reason": "InvalidSpec",
            "message": str(error),
            "lastTransitionTime": format_now(),
        }
        for existing in old.get("conditions", []):
            if existing["type"] == "Ready" and existing["status"] == "False":
                condition["lastTransitionTime"] = existing["lastTransitionTime"]
        others = [entry for entry in old.get("conditions", []) if entry["type"] != "Ready"]
        status = {**old, "conditions": [*others, condition], "observedGeneration": metadata["generation"]}
        self._registry.set_status(INFERENCE_SERVICES, metadata["namespace"], metadata["name"], status)

    def _read_last_line(self, name: str) -> str:
        """Return the last line of a process's log, shortened."""
        try:
            with self._home.log_file(name).open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - 4096))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        written = [line.strip() for line in lines if line.strip()]
        return written[-1][:300] if written else ""
