"""Whether what was applied runs, and if not, why. Pure: documents in, words out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Document = Mapping[str, Any]

_DULL = {"ContainerCreating", "PodInitializing"}


def find_unready(workloads: Iterable[Document]) -> list[str]:
    """Name each Deployment, StatefulSet or DaemonSet that is not yet as its specification says."""
    return [
        f"{one['metadata']['name']} ({reason})"
        for one in workloads
        if (reason := describe_unready(one)) is not None
    ]


def describe_unready(workload: Document) -> str | None:
    """Return what a workload lacks, or None when all its pods are new and available."""
    status = workload.get("status") or {}
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 1):
        return "not yet seen by its controller"
    if workload["kind"] == "DaemonSet":
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
        updated = status.get("updatedNumberScheduled", 0)
    else:
        wanted = workload["spec"].get("replicas", 1)
        ready = status.get("availableReplicas", 0)
        updated = status.get("updatedReplicas", 0)
        if workload["kind"] == "StatefulSet" and status.get("currentRevision") == status.get(
            "updateRevision"
        ):
            updated = wanted  # updatedReplicas is left out once an update is complete
    if updated < wanted:
        return f"{updated} of {wanted} updated"
    if ready < wanted:
        return f"{ready} of {wanted} available"
    return None


def explain_pods(pods: Iterable[Document]) -> list[str]:
    """Say what pods wait for: a pull that fails, a missing Secret, a crash, no room on any node."""
    found = []
    for pod in pods:
        name = pod["metadata"]["name"]
        status = pod.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                found.append(f"{name}: {condition.get('message') or condition.get('reason')}")
        containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        for container in containers:
            reason = _explain_container(container)
            if reason:
                found.append(f"{name}/{container['name']}: {reason}")
    return found


def _explain_container(status: Document) -> str | None:
    state = status.get("state") or {}
    waiting = state.get("waiting")
    if waiting and waiting.get("reason") not in _DULL:
        text = f"{waiting.get('reason')}: {waiting.get('message', '')}".rstrip(": ")
        ended = (status.get("lastState") or {}).get("terminated")
        if ended:
            text += f" (ended with code {ended.get('exitCode')}, {status.get('restartCount', 0)} times)"
        return text
    ended = state.get("terminated")
    if ended and ended.get("exitCode"):
        return f"ended with code {ended['exitCode']}: {ended.get('reason', '')}".rstrip(": ")
    return None
