"""KServe's list of annotations that stay off the pods: ours are in it, or the installation says so."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from clients.names import OWN_ANNOTATIONS
from installer.errors import InstallError
from installer.inference import KEY, LIST, add_annotations, settle
from installer.options import Options

ALL = json.dumps({LIST: list(OWN_ANNOTATIONS)})


@dataclass
class Kubectl:
    """The cluster's one ConfigMap."""

    data: dict[str, str] | None
    patches: list[dict[str, Any]] = field(default_factory=list)

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        assert (kind, name, namespace) == ("configmap", "inferenceservice-config", "kserve")
        return None if self.data is None else {"metadata": {"resourceVersion": "7"}, "data": self.data}

    def need(self, *arguments: str) -> str:
        self.patches.append(json.loads(arguments[-1].removeprefix("--patch=")))
        return ""


def make_site(data: dict[str, str] | None, **choices: Any) -> Any:
    return SimpleNamespace(kubectl=Kubectl(data), options=replace(Options(versions={}), **choices))


@pytest.mark.parametrize(
    "text", ["", "{}", '{"resource": {"cpuLimit": "1"}}', json.dumps({LIST: ["a.example/b"]})]
)
def test_what_is_there_stays(text: str) -> None:
    changed = add_annotations(text)
    assert changed is not None
    before, after = json.loads(text or "{}"), json.loads(changed)
    assert after[LIST] == [*before.get(LIST, []), *OWN_ANNOTATIONS]
    assert {key: value for key, value in after.items() if key != LIST} == {
        key: value for key, value in before.items() if key != LIST
    }
    assert add_annotations(changed) is None


@pytest.mark.parametrize("text", ["nothing", "[]", "7", json.dumps({LIST: 7})])
def test_what_is_no_configuration_is_said(text: str) -> None:
    with pytest.raises(InstallError, match="`inferenceService` is not a JSON object"):
        add_annotations(text)


def test_a_foreign_kserve_is_changed_only_when_that_is_allowed() -> None:
    site = make_site({KEY: "{}"})
    with pytest.raises(InstallError, match=r"EDIT_KSERVE=yes.*tenure\.dev/rollout"):
        settle(site)
    assert not site.kubectl.patches
    site = make_site({KEY: "{}"}, edit_kserve=True)
    assert settle(site).startswith("told")
    (patch,) = site.kubectl.patches
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert add_annotations(patch["data"][KEY]) is None


def test_what_is_right_is_left_alone() -> None:
    site = make_site({KEY: ALL})
    assert settle(site).startswith("keeps")
    assert not site.kubectl.patches


def test_a_missing_kserve_is_said() -> None:
    with pytest.raises(InstallError, match="is KServe installed there"):
        settle(make_site(None))
