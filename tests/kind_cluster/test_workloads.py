from __future__ import annotations

from typing import Any

import pytest

from installer.workloads import describe_unready, explain_pods, find_unready


def make_workload(kind: str = "Deployment", replicas: int = 2, **status: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {"name": "w", "generation": 3},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": 3, **status},
    }


@pytest.mark.parametrize(
    ("workload", "reason"),
    [
        (make_workload(updatedReplicas=2, availableReplicas=2), None),
        (make_workload(updatedReplicas=1, availableReplicas=2), "1 of 2 updated"),
        (make_workload(updatedReplicas=2, availableReplicas=1), "1 of 2 available"),
        (make_workload(observedGeneration=2, updatedReplicas=2, availableReplicas=2), "not yet seen"),
        (make_workload(), "0 of 2 updated"),
        (make_workload(replicas=0), None),
        (make_workload("StatefulSet", 1, currentRevision="a", updateRevision="a", availableReplicas=1), None),
        (
            make_workload("StatefulSet", 1, currentRevision="a", updateRevision="b", availableReplicas=1),
            "0 of 1 updated",
        ),
        (
            make_workload("DaemonSet", desiredNumberScheduled=2, updatedNumberScheduled=2, numberAvailable=1),
            "1 of 2 available",
        ),
    ],
)
def test_a_workload_is_ready_when_all_its_pods_are_new_and_available(
    workload: dict[str, Any], reason: str | None
) -> None:
    found = describe_unready(workload)
    assert found == reason or (reason is not None and found is not None and reason in found)


def test_a_workload_without_status_is_unready() -> None:
    bare = {"kind": "Deployment", "metadata": {"name": "w"}, "spec": {}}
    assert find_unready([bare]) == ["w (not yet seen by its controller)"]


def make_pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient cpu"}
                ]
            },
            "Insufficient cpu",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "x:1"}}}
                ]
            },
            "p/c: ImagePullBackOff: x:1",
        ),
        (
            {
                "initContainerStatuses": [
                    {
                        "name": "i",
                        "restartCount": 4,
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                        "lastState": {"terminated": {"exitCode": 3}},
                    }
                ]
            },
            "ended with code 3, 4 times",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "c",
                        "state": {
                            "waiting": {
                                "reason": "CreateContainerConfigError",
                                "message": 'secret "tenure-s3" not found',
                            }
                        },
                    }
                ]
            },
            'secret "tenure-s3" not found',
        ),
        (
            {
                "containerStatuses": [
                    {"name": "c", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
                ]
            },
            "137: OOMKilled",
        ),
    ],
)
def test_what_a_pod_waits_for_is_said(status: dict[str, Any], words: str) -> None:
    [found] = explain_pods([make_pod(**status)])
    assert words in found


def test_a_pod_that_starts_or_is_done_has_nothing_to_say() -> None:
    starting = {"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}
    done = {"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    assert explain_pods([make_pod(containerStatuses=[starting, done]), make_pod()]) == []
