"""What every step works with: the choices, the cluster, and how to apply something until it holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from installer.documents import split_types
from installer.errors import InstallError, TransientError, WaitError
from installer.images import Images
from installer.kubectl import MANAGER, Kubectl
from installer.options import PIPELINES_NAMESPACE, Options
from installer.program import Programs
from installer.progress import Progress
from installer.state import State
from installer.waiting import wait_until
from installer.workloads import explain_pods, find_unready

Document = dict[str, Any]

OWNER_LABEL = "tenure.dev/installed-by"
_RETRY_SECONDS = 2.0


@dataclass
class Site:
    """One installation under way."""

    options: Options
    programs: Programs
    kubectl: Kubectl
    progress: Progress
    notes: list[str] = field(default_factory=list)
    """What a person should know at the end."""
    _state: State | None = None
    _images: Images | None = None

    @property
    def directory(self) -> Path:
        """Where what is generated for this cluster lies."""
        return self.options.state / self.options.place

    @property
    def logs(self) -> Path:
        """Where long programs' output goes."""
        return self.directory / "logs"

    @property
    def state(self) -> State:
        """What was done to this cluster; known once it answers."""
        if self._state is None:
            system = self.kubectl.get("namespace", "kube-system")
            if system is None:
                raise InstallError("the cluster has no namespace kube-system: is it a Kubernetes cluster?")
            self._state = State(self.directory / "state.json", system["metadata"]["uid"])
        return self._state

    @property
    def images(self) -> Images:
        """Our images."""
        if self._images is None:
            raise InstallError("the images were not looked for yet")
        return self._images

    @images.setter
    def images(self, images: Images) -> None:
        self._images = images

    def read_login(self) -> str | None:
        """Return Docker's configuration for the nodes, or None: they need no login."""
        path = self.options.pull_secret
        return path.read_text() if path else None

    def state_of_store(self) -> str:
        """Return what tells one object store from the next that is made in its place."""
        claims = self.kubectl.list("persistentvolumeclaims", PIPELINES_NAMESPACE)
        return " ".join(sorted(one["metadata"]["uid"] for one in claims))

    def apply(self, documents: Sequence[Document]) -> None:
        """Apply documents, types and namespaces first; what passes (a webhook that starts) is tried again.

        Raises:
            ProgramError: The cluster refuses for good, or still does after the time allowed.
        """
        first, rest = split_types([mark(one) for one in documents])
        self._apply(first)
        names = [one["metadata"]["name"] for one in first if one["kind"] == "CustomResourceDefinition"]
        if names:
            self.wait("types", lambda: self._find_unestablished(names))
        self._apply(rest)

    def ensure_namespaces(self, names: Iterable[str]) -> None:
        """Make the namespaces that are missing; what others have put on those that are there stays."""
        for name in names:
            if self.kubectl.get("namespace", name) is None:
                self.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}])

    def wait(self, what: str, probe: Any, timeout: float | None = None) -> None:
        """Wait until `probe` returns None."""
        wait_until(what, probe, timeout or self.options.timeout, say=self.progress.say)

    def wait_workloads(self, namespace: str, names: Iterable[tuple[str, str]] | None = None) -> None:
        """Wait until the workloads of a namespace (all, or these kinds and names) run as specified.

        Raises:
            WaitError: With what their pods wait for.
        """
        chosen = set(names) if names is not None else None

        def probe() -> str | None:
            found = self.kubectl.list("deployments,statefulsets,daemonsets", namespace)
            kept = [
                one for one in found if chosen is None or (one["kind"], one["metadata"]["name"]) in chosen
            ]
            if chosen is not None and len(kept) < len(chosen):
                there = {(one["kind"], one["metadata"]["name"]) for one in kept}
                return f"{sorted(chosen - there)[0][1]} does not exist"
            unready = find_unready(kept)
            if not unready:
                return None
            troubles = explain_pods(self.kubectl.list("pods", namespace))
            return "; ".join([*unready, *troubles])

        try:
            self.wait(f"namespace {namespace}", probe)
        except WaitError as error:
            events = self.kubectl.run(
                "get", "events", "-n", namespace, "--field-selector=type=Warning", "--sort-by=.lastTimestamp"
            )
            latest = "\n".join(f"    {line}" for line in events.out.splitlines()[-5:])
            raise WaitError(f"{error}\n  the latest warnings there:\n{latest}") from error

    def _apply(self, documents: Sequence[Document]) -> None:
        deadline = time.monotonic() + self.options.timeout
        while True:
            try:
                self.kubectl.apply(documents)
            except TransientError as error:
                if time.monotonic() > deadline:
                    raise
                self.progress.say(f"trying again: {str(error).splitlines()[-1].strip()}")
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _find_unestablished(self, names: Sequence[str]) -> str | None:
        found = {one["metadata"]["name"]: one for one in self.kubectl.list("customresourcedefinitions")}
        waiting = [name for name in names if not _is_established(found.get(name))]
        return f"{waiting[0]} and {len(waiting) - 1} more are not served yet" if waiting else None


def mark(document: Mapping[str, Any]) -> Document:
    """Return a document with the label that says who installed it."""
    metadata = dict(document["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), OWNER_LABEL: MANAGER}
    return {**document, "metadata": metadata}


def _is_established(document: Mapping[str, Any] | None) -> bool:
    conditions = ((document or {}).get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
