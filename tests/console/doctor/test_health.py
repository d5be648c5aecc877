from __future__ import annotations

from typing import Any

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
