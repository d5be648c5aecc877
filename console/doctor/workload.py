"""Whether Deployments, StatefulSets and their pods run, and why not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from console.doctor.document import (
    Document,
    explain,
    find_condition,
    labels_of,
    name_of,
    namespace_of,
    path_of,
    read_time,
    shorten,
)
from console.doctor.finding import Finding, bad, good, warn
from console.doctor.observation import Cluster
from console.doctor.pod import STARTING_SECONDS, diagnose_pod, is_of_run
from console.doctor.refusal import Trouble
from console.doctor.signature import recognise

_MODELS = "serving.kserve.io/inferenceservice"


def check_workloads(cluster: Cluster, namespace: str, check: str) -> Iterator[Finding]:
    """Find what does not run in a namespace: workloads with their causes, then pods without an owner.

    Model servers are not looked at: what is wrong with them is said of their InferenceService.
    """
    workloads = [*list_workloads(cluster, namespace)]
    ready = 0
    for kind, workload in workloads:
        finding = judge_workload(cluster, kind, workload, check)
        if finding is None:
            ready += 1
        else:
            yield finding
    yield from _check_lone_pods(cluster, namespace, check)
    if workloads and ready == len(workloads):
        yield good(check, f"all of {namespace} runs ({ready} {'workloads' if ready != 1 else 'workload'})")


def list_workloads(cluster: Cluster, namespace: str) -> Iterator[tuple[str, Document]]:
    """Yield a namespace's Deployments and StatefulSets, but model servers."""
    for kind, plural in (("Deployment", "deployments"), ("StatefulSet", "statefulsets")):
        for workload in cluster.every(plural, namespace):
            if _MODELS not in labels_of(workload):
                yield kind, workload


def judge_workload(cluster: Cluster, kind: str, workload: Document, check: str) -> Finding | None:
    """Return what is wrong with a workload, None when all its pods are ready."""
    wanted = int((workload.get("spec") or {}).get("replicas", 1))
    ready = int((workload.get("status") or {}).get("readyReplicas", 0))
    pods = list_pods(cluster, workload)
    troubles = [(pod, trouble) for pod in pods if (trouble := diagnose_pod(cluster, pod)) is not None]
    grave = next(((pod, trouble) for pod, trouble in troubles if trouble.grave), None)
    what = f"{namespace_of(workload)}: {kind.lower()} {name_of(workload)}"
    if ready >= wanted:
        light = next((trouble for _, trouble in troubles if not trouble.grave), None)
        if wanted and light is not None and "started again" in light.text:
            return warn(check, f"{what} {light.text}", light.fix)
        return None
    state = f"{what} has {ready} of {wanted} ready"
    if grave is not None:
        return bad(check, f"{state}: {grave[1].text}", grave[1].fix)
    refusal = find_refusal(cluster, kind, workload)
    if refusal is not None and len(pods) < wanted:
        return bad(check, f"{state}: {refusal.text}", refusal.fix)
    if troubles:
        return warn(check, f"{state}: {troubles[0][1].text}", troubles[0][1].fix)
    created = read_time(workload["metadata"].get("creationTimestamp"))
    if created is not None and (cluster.taken - created).total_seconds() < STARTING_SECONDS:
        return warn(check, f"{state}: it has just been made", "wait, and ask again")
    return bad(
        check,
        f"{state}: {explain(find_condition(workload, 'Available'))}",
        f"kubectl -n {namespace_of(workload)} describe {kind.lower()} {name_of(workload)}",
    )


def list_pods(cluster: Cluster, workload: Document) -> Sequence[Document]:
    """Return the pods that a workload's selector matches."""
    wanted = ((workload.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return [
        pod
        for pod in cluster.every("pods", namespace_of(workload))
        if wanted and wanted.items() <= labels_of(pod).items()
    ]


def find_refusal(cluster: Cluster, kind: str, workload: Document) -> Trouble | None:
    """Return why the API server refuses to create a workload's pods."""
    condition = find_condition(workload, "ReplicaFailure")
    if condition is not None and condition.get("status") == "True":
        return explain_refusal(condition.get("message", ""))
    owners = [name_of(workload)]
    owners += [
        name_of(one)
        for one in cluster.every("replicasets", namespace_of(workload))
        if any(owner["name"] == name_of(workload) for owner in one["metadata"].get("ownerReferences") or ())
    ]
    for owner, of_kind in ((name, kind if name == owners[0] else "ReplicaSet") for name in owners):
        for event in reversed(cluster.find_events(of_kind, owner, namespace_of(workload))):
            if event.get("reason") == "FailedCreate":
                return explain_refusal(event.get("message", ""))
    return None


def explain_refusal(message: str) -> Trouble:
    """Return why the API server refuses a pod, from its message."""
    policy = re.search(r"violates PodSecurity \"?\\?\"?([\w:.\-]+)\\?\"?: (.*)", message)
    if policy:
        return Trouble(
            f"Pod Security ({policy[1]}) refuses its pods: {shorten(policy[2], 200)}",
            "give the pod template the securityContext that the message asks for",
        )
    quota = re.search(r"(exceeded quota|failed quota): ([\w.\-]+)[,:]? ?(.*)", message)
    if quota and quota[1] == "failed quota":
        return Trouble(
            f"quota {quota[2]} wants requests and limits that its pods do not state: {shorten(quota[3], 99)}",
            "add a LimitRange with defaults to the namespace (init and wait containers of runs state none)",
        )
    if quota:
        return Trouble(
            f"quota {quota[2]} is used up: {shorten(quota[3], 200)}",
            "raise the ResourceQuota, or remove what uses it",
        )
    account = re.search(r"serviceaccount \"?([\w.\-]+)\"? not found", message)
    if account:
        return Trouble(
            f"its ServiceAccount {account[1]} does not exist", "create it: apply the manifests again"
        )
    webhook = re.search(r"failed calling webhook \\?\"([\w.\-]+)", message)
    if webhook:
        cause = recognise(message)
        return Trouble(
            f"webhook {webhook[1]} fails: {cause.text if cause else shorten(message, 200)}",
            cause.fix if cause else "see the webhooks' own findings",
        )
    return Trouble(f"its pods are refused: {shorten(message)}", "correct what the message names")


def _check_lone_pods(cluster: Cluster, namespace: str, check: str) -> Iterable[Finding]:
    owned = {
        path_of(pod)
        for _, workload in list_workloads(cluster, namespace)
        for pod in list_pods(cluster, workload)
    }
    for pod in cluster.every("pods", namespace):
        if path_of(pod) in owned or _MODELS in labels_of(pod):
            continue
        phase = (pod.get("status") or {}).get("phase")
        if phase == "Succeeded" or (phase == "Failed" and _is_job(pod)):
            continue
        trouble = diagnose_pod(cluster, pod)
        if trouble is not None and trouble.grave:
            yield bad(check, f"{namespace}: pod {name_of(pod)} {trouble.text}", trouble.fix)


def _is_job(pod: Document) -> bool:
    """Say whether a pod's end belongs to a run or a job, which tell it themselves."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return is_of_run(pod) or any(owner.get("kind") in ("Job", "Workflow") for owner in owners)
