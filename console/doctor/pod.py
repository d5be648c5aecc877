"""Why a pod does not run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from console.doctor.document import (
    Document,
    find_condition,
    is_true,
    labels_of,
    name_of,
    namespace_of,
    path_of,
    read_time,
    shorten,
)
from console.doctor.observation import Cluster
from console.doctor.refusal import Trouble, judge_configuration, judge_image
from console.doctor.signature import Cause, recognise

STARTING_SECONDS = 120
"""So long a pod without a known problem counts as starting."""

_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CRASHED = frozenset({"CrashLoopBackOff", "Error", "RunContainerError", "StartError", "ContainerCannotRun"})
_RESTARTS = 3
_CRASHES = 2


def diagnose_pod(cluster: Cluster, pod: Document) -> Trouble | None:
    """Return what is wrong with a pod, None if nothing is."""
    status = pod.get("status") or {}
    phase = status.get("phase")
    if phase == "Succeeded":
        return None
    if phase == "Failed" and status.get("reason") == "Evicted":
        return Trouble(
            f"evicted: {shorten(status.get('message', ''))}",
            "give the node more of what it lacks, or the container a request; then delete this pod",
        )
    trouble = (
        _judge_scheduling(pod)
        or next(_judge_containers(cluster, pod), None)
        or _judge_mounts(cluster, pod)
        or _judge_failure(status)
    )
    if trouble is not None:
        return trouble
    if is_true(pod, "Ready"):
        return _judge_restarts(pod)
    return _judge_slow(cluster, pod)


def is_of_run(pod: Document) -> bool:
    """Say whether a pod is a step of a pipeline run: its end belongs to the run, not to the platform."""
    return "workflows.argoproj.io/workflow" in labels_of(pod)


def list_containers(pod: Document) -> list[Mapping[str, Any]]:
    """Return the states of all containers, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def find_failing(pod: Document) -> Iterator[tuple[str, bool]]:
    """Yield the containers whose log may say why they fail, and whether it is the previous one's log."""
    for container in list_containers(pod):
        state, last = container.get("state") or {}, container.get("lastState") or {}
        waiting = (state.get("waiting") or {}).get("reason")
        ended = state.get("terminated") or {}
        if ended.get("exitCode"):
            yield container["name"], False
        elif waiting in _CRASHED and last.get("terminated"):
            yield container["name"], True
        elif "running" in state and not container.get("ready"):
            yield container["name"], bool(last.get("terminated"))


def _judge_scheduling(pod: Document) -> Trouble | None:
    condition = find_condition(pod, "PodScheduled")
    if condition is None or condition.get("status") != "False":
        return None
    message = shorten(condition.get("message", ""))
    claim = re.search(r'persistentvolumeclaim \\?"([^"\\]+)', message)
    if "unbound immediate PersistentVolumeClaims" in message or claim:
        return Trouble(
            f"not scheduled, its volume is missing: {message}",
            "see the claims below `storage`: usually there is no default StorageClass",
        )
    short = re.findall(r"Insufficient ([\w\-/.]*[\w])", message)
    if short:
        what = " and ".join(dict.fromkeys(short))
        return Trouble(
            f"not scheduled, no node has enough {what} left: {message}",
            "give the cluster more (Docker Desktop: Settings, Resources), or stop something else on it",
        )
    if "untolerated taint" in message or "had taint" in message:
        return Trouble(
            f"not scheduled, every node has a taint: {message}",
            "kubectl taint nodes NODE KEY- (a taint of disk or memory pressure goes with its cause)",
        )
    return Trouble(f"not scheduled: {message}", "make a node fit what the message names")


def _judge_containers(cluster: Cluster, pod: Document) -> Iterator[Trouble]:
    for container in list_containers(pod):
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        reason = waiting.get("reason", "")
        if reason in _PULLING:
            yield judge_image(cluster, pod, container, waiting)
        elif reason in ("CreateContainerConfigError", "CreateContainerError"):
            yield judge_configuration(container["name"], waiting.get("message", ""))
        elif reason in _CRASHED:
            last = (container.get("lastState") or {}).get("terminated") or {}
            yield _judge_crash(cluster, pod, container["name"], last, waiting.get("message", ""))
        elif ended.get("exitCode") and pod["spec"].get("restartPolicy") != "Never":
            yield _judge_crash(cluster, pod, container["name"], ended, "")
        elif _is_between_crashes(container):
            yield _judge_crash(cluster, pod, container["name"], container["lastState"]["terminated"], "")


def _is_between_crashes(container: Mapping[str, Any]) -> bool:
    """Say whether a container runs just now, and has failed again and again before it was ready."""
    last = (container.get("lastState") or {}).get("terminated") or {}
    return (
        not container.get("ready")
        and int(container.get("restartCount", 0)) >= _CRASHES
        and bool(last.get("exitCode"))
    )


def _judge_crash(
    cluster: Cluster, pod: Document, container: str, ended: Mapping[str, Any], message: str
) -> Trouble:
    if ended.get("reason") == "OOMKilled":
        return Trouble(
            f"{container} was killed, it needs more memory than its limit",
            "raise resources.limits.memory of this container",
        )
    log = cluster.logs.get(f"{path_of(pod)}/{container}", "")
    cause = recognise(log) or recognise(f"{ended.get('message', '')}\n{message}")
    code = ended.get("exitCode")
    if cause is None and code == 137:
        cause = Cause(
            "it was killed from outside (137): its liveness probe failed, or the node ran out of memory",
            "see the pod's events: raise the memory of the node, or the probe's patience",
        )
    if cause is not None:
        return Trouble(f"{container} crashes: {cause.text}", cause.fix)
    line = (log.strip().splitlines() or [ended.get("message") or message or f"exit code {code}"])[-1]
    return Trouble(
        f"{container} crashes (exit code {code}): {shorten(line)}",
        f"kubectl -n {namespace_of(pod)} logs {name_of(pod)} -c {container} --previous",
    )


def _judge_mounts(cluster: Cluster, pod: Document) -> Trouble | None:
    if is_true(pod, "Ready"):
        return None
    for event in reversed(cluster.find_events("Pod", name_of(pod), namespace_of(pod))):
        message = event.get("message", "")
        if event.get("reason") == "FailedMount":
            missing = re.search(r"(secret|configmap) \"([^\"]+)\" not found", message)
            if missing:
                return judge_configuration("the pod", message)
            cause = recognise(message)
            return Trouble(
                f"a volume cannot be mounted: {cause.text if cause else shorten(message)}",
                cause.fix if cause else "correct what the message names",
            )
        if event.get("reason") == "FailedCreatePodSandBox":
            cause = recognise(message)
            return Trouble(
                f"the node cannot set up the pod's network: {cause.text if cause else shorten(message)}",
                cause.fix if cause else "look at the network plugin's pods in kube-system on that node",
            )
    return None


def _judge_failure(status: Mapping[str, Any]) -> Trouble | None:
    if status.get("phase") != "Failed":
        return None
    reason = status.get("message") or status.get("reason") or "no reason given"
    return Trouble(f"failed: {shorten(reason)}", "delete the pod; its owner makes a new one")


def _judge_restarts(pod: Document) -> Trouble | None:
    for container in list_containers(pod):
        count = int(container.get("restartCount", 0))
        last = (container.get("lastState") or {}).get("terminated") or {}
        if count >= _RESTARTS:
            why = last.get("reason") or f"exit code {last.get('exitCode', '?')}"
            return Trouble(
                f"runs now, but {container['name']} was started again {count} times (last: {why})",
                "harmless if it happened during the install; else see its previous log",
                grave=False,
            )
    return None


def _judge_slow(cluster: Cluster, pod: Document) -> Trouble:
    created = read_time(pod["metadata"].get("creationTimestamp")) or cluster.taken
    age = (cluster.taken - created).total_seconds()
    if pod["metadata"].get("deletionTimestamp"):
        return Trouble("is being deleted", "wait for it", grave=False)
    if age < STARTING_SECONDS:
        return Trouble(f"still starts ({age:.0f} s old)", "wait, and ask again", grave=False)
    for container, _ in find_failing(pod):
        cause = recognise(cluster.logs.get(f"{path_of(pod)}/{container}", ""))
        if cause is not None:
            return Trouble(f"{container} does not become ready: {cause.text}", cause.fix)
    events = cluster.find_events("Pod", name_of(pod), namespace_of(pod))
    said = events[-1].get("message", "") if events else "its containers are not ready"
    return Trouble(
        f"is not ready after {age / 60:.0f} min: {shorten(said)}",
        f"kubectl -n {namespace_of(pod)} describe pod {name_of(pod)}",
    )
