from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from console.doctor.need import GIB
from installer.checks import TYPES, Cluster, Finding, Machine, judge_cluster, judge_machine
from installer.options import Options, read_options, read_versions

MACHINE = Machine(
    docker="29.0",
    docker_error="",
    kind="v0.33.0",
    kubectl="v1.34.1",
    memory=16 * GIB,
    cpus=8,
    disk=100 * GIB,
    watches=524_288,
    instances=8192,
    cluster_exists=False,
    port_free=True,
)
ALL_TYPES = frozenset(name for names in TYPES.values() for name in names)
CLUSTER = Cluster(
    kubectl="v1.34.1",
    server="v1.34.4",
    error="",
    administrator=True,
    default_storage=True,
    types=ALL_TYPES,
    owned=frozenset(),
    gateway_there=True,
    pipelines_there=True,
)
NONE = {f"WITH_{name}": "no" for name in TYPES}


def make_options(**variables: str) -> Options:
    return read_options(variables, read_versions())


def problems(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.level == "problem"]


def test_a_fit_machine_has_no_problem() -> None:
    assert not problems(judge_machine(MACHINE, make_options()))


@pytest.mark.parametrize(
    ("change", "text", "fix"),
    [
        ({"docker": None, "docker_error": "permission denied"}, "permission denied", "usermod -aG docker"),
        ({"kind": None}, "kind is not installed", "sigs.k8s.io/kind@v0.33.0"),
        ({"kubectl": None}, "kubectl is not installed", "kubernetes.io/docs"),
        ({"memory": 4 * GIB}, "4.0 GiB, needed are 8", "WITH_KFP=no"),
        ({"disk": 5 * GIB}, "free disk", "docker image prune"),
        ({"watches": 8192}, "too many open files", "sudo sysctl fs.inotify.max_user_watches=524288"),
        ({"instances": 128}, "max_user_instances is 128", "99-kind.conf"),
        ({"port_free": False}, "8880", "hostPort"),
    ],
)
def test_each_lack_is_named_with_its_fix(change: dict[str, Any], text: str, fix: str) -> None:
    [found] = problems(judge_machine(replace(MACHINE, **change), make_options()))
    assert text in found.text
    assert fix in found.fix
    assert found.show().startswith("× ")


def test_less_memory_is_enough_without_the_pipelines() -> None:
    small = replace(MACHINE, memory=6 * GIB)
    assert problems(judge_machine(small, make_options()))
    assert not problems(judge_machine(small, make_options(WITH_KFP="no")))


def test_the_port_may_be_taken_by_the_cluster_itself() -> None:
    assert not problems(judge_machine(replace(MACHINE, port_free=False, cluster_exists=True), make_options()))


def test_a_cluster_that_exists_has_its_images_already() -> None:
    used = replace(MACHINE, disk=20 * GIB)
    assert problems(judge_machine(used, make_options()))
    assert not problems(judge_machine(replace(used, cluster_exists=True), make_options()))
    assert problems(judge_machine(replace(used, disk=2 * GIB, cluster_exists=True), make_options()))


def test_another_kind_is_only_a_warning() -> None:
    found = judge_machine(replace(MACHINE, kind="v0.20.0"), make_options())
    assert not problems(found)
    assert any(one.level == "warning" and "v0.20.0" in one.text for one in found)


def test_a_cluster_that_has_everything_needs_a_way_for_images_only() -> None:
    [found] = problems(judge_cluster(CLUSTER, make_options(CLUSTER="existing", **NONE)))
    assert "REGISTRY" in found.fix
    assert not problems(judge_cluster(CLUSTER, make_options(CLUSTER="existing", REGISTRY="r.io/x", **NONE)))


@pytest.mark.parametrize(
    ("change", "text", "fix"),
    [
        ({"server": "v1.30.2"}, "too old", "1.32"),
        ({"administrator": False}, "may not do everything", "administrator"),
        ({"default_storage": False}, "default StorageClass", "is-default-class=true"),
        ({"gateway_there": False}, "no Gateway kserve/kserve-ingress-gateway", "GATEWAY=NAMESPACE/NAME"),
        (
            {"types": ALL_TYPES - {"servingruntimes.serving.kserve.io"}},
            "KServe is not there",
            "WITH_KSERVE=yes",
        ),
    ],
)
def test_each_lack_of_a_cluster_is_named(change: dict[str, Any], text: str, fix: str) -> None:
    options = make_options(CLUSTER="existing", REGISTRY="r.io/x", **NONE)
    [found] = problems(judge_cluster(replace(CLUSTER, **change), options))
    assert text in found.text
    assert fix in found.fix


def test_kserve_is_not_installed_where_cert_manager_is_missing() -> None:
    types = ALL_TYPES - {"certificates.cert-manager.io", *TYPES["KSERVE"]}
    bare = replace(CLUSTER, types=types)
    options = make_options(CLUSTER="existing", REGISTRY="r.io/x", **{**NONE, "WITH_KSERVE": "yes"})
    [found] = problems(judge_cluster(bare, options))
    assert "cert-manager is not there" in found.text
    assert "WITH_CERT_MANAGER=yes" in found.fix
    there = replace(CLUSTER, types=types | {"certificates.cert-manager.io"})
    assert not problems(judge_cluster(there, options))


def test_a_cluster_that_does_not_answer_is_judged_no_further() -> None:
    silent = replace(CLUSTER, server=None, error="dial tcp: connection refused")
    [found] = problems(judge_cluster(silent, make_options(CLUSTER="existing")))
    assert "connection refused" in found.text


def test_a_piece_of_somebody_else_is_not_overwritten_and_our_own_is() -> None:
    options = make_options(CLUSTER="existing", REGISTRY="r.io/x")
    foreign = problems(judge_cluster(CLUSTER, options))
    assert {one.fix.split(".")[0] for one in foreign} >= {"Use it: WITH_KSERVE=no", "Use it: WITH_KFP=no"}
    assert not problems(judge_cluster(replace(CLUSTER, owned=ALL_TYPES), options))


def test_no_pipelines_is_a_warning() -> None:
    options = make_options(CLUSTER="existing", REGISTRY="r.io/x", **NONE)
    found = judge_cluster(replace(CLUSTER, pipelines_there=False), options)
    assert not problems(found)
    assert any("no run started" in one.text for one in found)
