from __future__ import annotations

from typing import Any

import pytest

from console.doctor.finding import Mark


def test_nothing_is_wrong_with_a_healthy_cluster(stage: Any) -> None:
    findings = stage.examine()
    assert [finding for finding in findings if finding.mark is not Mark.GOOD] == []
    assert len(findings) > 30


def test_nothing_keeps_an_install_from_a_cluster_like_this(stage: Any) -> None:
    assert stage.list_bad(pre=True) == []


def test_everything_wrong_has_a_fix(stage: Any) -> None:
    stage.cluster.documents = {kind: [] for kind in stage.cluster.documents}
    stage.cluster.apis = {}
    found = stage.list_bad()
    assert {finding.check for finding in found} >= {
        "crds",
        "storage-class",
        "kserve",
        "pipelines",
        "namespace",
    }
    assert all(finding.fix for finding in found)


def test_a_namespace_that_goes_away_is_not_called_empty(stage: Any) -> None:
    stage.find("namespaces", "tenure")["metadata"]["deletionTimestamp"] = "2026-11-21T22:00:00Z"
    stage.cluster.documents["configmaps"] = []
    found = [one.text for one in stage.list_bad() if one.check == "namespace"]
    assert found == ["namespace tenure is being deleted"]


def test_what_may_not_be_listed_is_not_called_missing(stage: Any) -> None:
    for kind in ("configmaps", "namespaces", "deployments", "secrets", "serviceaccounts", "storageclasses"):
        stage.cluster.documents.pop(kind)
        stage.cluster.unread[kind] = f"{kind} is forbidden"
    assert stage.list_bad() == []


def test_what_may_be_listed_in_some_namespaces_only_is_not_called_missing_in_others(stage: Any) -> None:
    for kind in ("deployments", "configmaps", "serviceaccounts", "services"):
        found = stage.cluster.documents[kind]
        stage.cluster.documents[kind] = [one for one in found if one["metadata"]["namespace"] == "tenure"]
        stage.cluster.unread[kind] = f"{kind} is forbidden in the namespace kserve"
    assert stage.list_bad() == []


def test_what_is_left_of_an_earlier_install_is_found_before_the_next(stage: Any) -> None:
    stage.cluster.documents["services"] = []
    stage.cluster.access["create namespaces"] = False
    found = stage.list_bad(pre=True)
    assert {one.check for one in found} == {"clashes", "rights"}
    assert "left over from an earlier install" in found[-1].text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spec:\n  templateDefaults:\n    retryStrategy: {limit: 3}\n", "tried dozens of times"),
        ("spec: {", "cannot be read"),
        ("[1]", "cannot be read"),
        ("spec:\n  templateDefaults: {activeDeadlineSeconds: 60}\n  retryStrategy: {limit: 1}\n", ""),
        ("spec: {templateDefaults: }", ""),
        ("", ""),
    ],
)
def test_default_retries_of_argo_are_noticed(stage: Any, text: str, words: str) -> None:
    stage.add(
        "configmaps",
        {
            "metadata": stage.metadata("workflow-controller-configmap", "kubeflow"),
            "data": {"workflowDefaults": text},
        },
    )
    found = [one for one in stage.examine() if one.check == "retries" and one.mark is Mark.WARNING]
    assert len(found) == bool(words)
    assert all(words in one.text and one.fix for one in found)
