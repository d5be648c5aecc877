"""The whole of `make up`, against a cluster played in memory and a real object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clients.store import Store
from installer import __main__ as main
from installer import credentials
from installer.errors import CheckError, InstallError, ProgramError, SourceError, WaitError
from installer.images import NAMES
from installer.options import read_versions
from installer.site import Site

MakeSite = Callable[..., Site]
Install = Callable[..., str]
Document = dict[str, Any]


def test_everything_is_installed_on_a_new_kind_cluster(install: Install, programs: Any, store: Store) -> None:
    printed = install()
    assert programs.count("kind", "create", "cluster") == 1
    assert programs.count("kind", "load", "docker-image") == len(NAMES)
    there = programs.cluster.objects
    assert ("Deployment", "kserve", "kserve-controller-manager") in there
    assert ("Deployment", "kserve", "llmisvc-controller-manager") not in there
    assert ("Deployment", "tenure", "tenure-pilot") in there
    assert ("Gateway", "kserve", "kserve-ingress-gateway") in there
    settings = there["ConfigMap", "tenure", "tenure-settings"]["data"]
    assert settings["TENURE_COMPONENTS_IMAGE"] == "tenure-components:0123456789ab-components"
    assert there["ConfigMap", "kubeflow", "tenure-settings"]["data"] == settings
    assert store.exists("s3://tenure/data/telco.csv")
    assert "run run-1 started" in printed
    assert "http://127.0.0.1:8880" in printed
    assert (
        "user tenure, password: kubectl --context kind-tenure -n tenure get secret tenure-tracking" in printed
    )
    assert "-o jsonpath='{.data.password}' | base64 -d" in printed
    assert "kubectl --context kind-tenure -n tenure port-forward svc/tenure-console 8080:8080" in printed
    assert "kubectl --context kind-tenure -n kubeflow port-forward svc/ml-pipeline-ui 8888:80" in printed
    assert ".venv/bin/tenure --context kind-tenure doctor" in printed


def test_the_types_come_first_and_kserves_own_objects_last(install: Install, programs: Any) -> None:
    install()
    kinds = [key for key in programs.cluster.applied if key[0] != "Namespace"]
    first = kinds.index(("CustomResourceDefinition", "", "inferenceservices.serving.kserve.io"))
    controller = kinds.index(("Deployment", "kserve", "kserve-controller-manager"))
    container = kinds.index(("ClusterStorageContainer", "", "default"))
    assert first < controller < container


def test_argo_comes_from_its_archive_and_nothing_is_fetched_while_kubeflow_is_rendered(
    install: Install, programs: Any, tmp_path: Path
) -> None:
    install()
    there = programs.cluster.objects
    assert ("CustomResourceDefinition", "", "workflows.argoproj.io") in there
    assert ("Deployment", "kubeflow", "workflow-controller") in there
    rendered = [
        Path(call[-1]) for call in programs.calls if "kustomize" in call and "overlay" not in call[-1]
    ]
    assert [one.name for one in rendered] == ["cluster-scoped-resources", "platform-agnostic"]
    tree = rendered[0].parent
    read = [one for one in tree.rglob("kustomization.yaml") if "gcp" not in one.parts]
    assert len(read) == 5
    assert not [one for one in read if "://" in one.read_text()]


def test_kubeflow_that_asks_for_another_argo_is_told(install: Install, make_pipelines: Any) -> None:
    versions = read_versions()
    make_pipelines(versions, ref="v9.9.9")
    with pytest.raises(
        SourceError, match=rf"Argo Workflows v9\.9\.9, and ARGO_VERSION is {versions['ARGO_VERSION']}"
    ):
        install()


def test_a_second_run_changes_nothing(install: Install, programs: Any) -> None:
    install()
    secrets = {key: one["data"] for key, one in programs.cluster.objects.items() if key[0] == "Secret"}
    programs.calls.clear()
    programs.cluster.applied.clear()
    printed = install()
    assert programs.count("kind", "create") == 0
    assert programs.count("kind", "load") == 0
    assert programs.count("make") == 0
    assert not [key for key in programs.cluster.applied if key[0] == "CustomResourceDefinition"]
    assert {k: one["data"] for k, one in programs.cluster.objects.items() if k[0] == "Secret"} == secrets
    assert printed.count("unchanged") >= 7
    assert "first run was started before" in printed


@pytest.mark.parametrize(
    "broken", ["kind create", "make", "kind load", "docker image", "kubectl kustomize", "kubectl exec"]
)
def test_a_run_that_ended_in_the_middle_goes_on(install: Install, programs: Any, broken: str) -> None:
    programs.broken.add(broken)
    with pytest.raises(InstallError):
        install()
    programs.broken.clear()
    install()
    assert ("Deployment", "tenure", "tenure-console") in programs.cluster.objects
    assert programs.count("kind", "create", "cluster") == (2 if broken == "kind create" else 1)


def test_a_cluster_that_was_stopped_is_started_and_known_to_the_kubeconfig(
    install: Install, programs: Any
) -> None:
    install()
    programs.stopped.add("tenure-control-plane")
    programs.calls.clear()
    assert "started again" in install()
    started = programs.calls.index(("docker", "start", "tenure-control-plane"))
    assert started < programs.calls.index(("kind", "export", "kubeconfig", "--name", "tenure"))
    programs.calls.clear()
    install()
    assert programs.count("docker", "start") == 0


def test_a_cluster_that_was_never_finished_is_told_apart(install: Install, programs: Any) -> None:
    programs.kinds.append("tenure")
    programs.cluster.node_ready = False
    with pytest.raises(WaitError, match=r"half made: make cluster-down, then make up"):
        install()
    programs.cluster.node_ready = True
    install()
    programs.cluster.node_ready = False
    with pytest.raises(WaitError, match="node not ready") as caught:
        install()
    assert "cluster-down" not in str(caught.value)


def test_a_cluster_made_anew_is_installed_anew(install: Install, programs: Any) -> None:
    install()
    programs.cluster.objects.clear()
    programs.cluster.put({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "another"}})
    programs.calls.clear()
    install()
    assert ("Deployment", "kserve", "kserve-controller-manager") in programs.cluster.objects
    assert programs.count("kind", "load") == len(NAMES)


def test_a_webhook_that_is_not_up_yet_is_tried_again(
    install: Install, programs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter(["failed calling webhook: connection refused"] * 2)
    monkeypatch.setattr("installer.site._RETRY_SECONDS", 0.001)

    def refuse(document: Document) -> str | None:
        return next(refusals, None) if document["kind"] == "ClusterStorageContainer" else None

    programs.cluster.refuse_apply = refuse
    assert "trying again: " in install()
    assert ("ClusterStorageContainer", "", "default") in programs.cluster.objects


def test_what_kserve_puts_on_its_namespace_stays(
    install: Install, programs: Any, manifests: Path, make_controller: Any
) -> None:
    install()
    namespace = programs.cluster.objects["Namespace", "", "kserve"]
    assert namespace["metadata"]["labels"]["control-plane"] == "kserve-controller-manager"
    [envoy] = manifests.glob("envoy-gateway-*.yaml")
    envoy.write_text(
        envoy.read_text() + "---\n" + yaml.safe_dump(make_controller("more", "envoy-gateway-system"))
    )
    main_state = next((manifests.parent / "state").rglob("SHA256SUMS"))
    main_state.unlink()
    install()
    assert ("Deployment", "envoy-gateway-system", "more") in programs.cluster.objects
    namespace = programs.cluster.objects["Namespace", "", "kserve"]
    assert namespace["metadata"]["labels"]["control-plane"] == "kserve-controller-manager"


@pytest.mark.parametrize("kind", ["ServingRuntime", "InferenceService", "Pod"])
def test_each_webhook_of_kserve_is_waited_for(install: Install, programs: Any, kind: str) -> None:
    programs.cluster.refuse_create = lambda one: f"no endpoints for {kind}" if one["kind"] == kind else None
    with pytest.raises(WaitError, match=f"KServe to answer: not ready after .* no endpoints for {kind}"):
        install()


def test_a_refusal_for_good_ends_it_at_once(install: Install, programs: Any) -> None:
    programs.cluster.refuse_apply = lambda one: (
        "pods is forbidden: violates PodSecurity" if one["metadata"]["name"] == "tenure-pilot" else None
    )
    with pytest.raises(ProgramError, match="violates PodSecurity"):
        install()


def test_a_piece_that_never_answers_is_named(install: Install, programs: Any) -> None:
    programs.cluster.refuse_create = lambda one: (
        "no endpoints available for service" if one["kind"] == "InferenceService" else None
    )
    with pytest.raises(WaitError, match=r"KServe to answer: not ready after .* no endpoints available"):
        install()


def test_nothing_is_changed_when_a_check_fails(install: Install, programs: Any) -> None:
    programs.broken.add("docker")
    with pytest.raises(CheckError):
        install()
    assert programs.cluster.applied == []
    assert programs.count("kind", "create") == 0


def test_the_pipelines_key_of_the_store_is_nobodys_default(install: Install, programs: Any) -> None:
    install()
    pipelines = programs.cluster.values("mlpipeline-minio-artifact", "kubeflow")
    ours = programs.cluster.values("tenure-s3")
    assert pipelines["secretkey"] != "minio123"
    assert (ours["accesskey"], ours["secretkey"]) == (pipelines["accesskey"], pipelines["secretkey"])


def test_a_new_key_of_the_pipelines_store_is_followed_everywhere(install: Install, programs: Any) -> None:
    install()
    before = programs.cluster.values("tenure-s3")
    new = {"accesskey": "new", "secretkey": "new-secret"}
    programs.cluster.put(credentials.make_secret("mlpipeline-minio-artifact", "kubeflow", new))
    assert "tenure-s3 follows mlpipeline-minio-artifact" in install()
    assert programs.cluster.values("tenure-s3") == {**before, **new}
    assert programs.cluster.values("tenure-s3", "kubeflow") == new


def test_no_secret_is_printed_or_passed_as_an_argument(
    install: Install, programs: Any, tmp_path: Path
) -> None:
    printed = install()
    values = {
        value
        for (kind, namespace, name) in list(programs.cluster.objects)
        if kind == "Secret"
        for value in programs.cluster.values(name, namespace).values()
        if value != "tenure"
    }
    assert len(values) >= 8
    written = "".join(
        path.read_text() for path in (tmp_path / "state").rglob("*") if path.suffix in (".json", ".yaml")
    )
    spoken = printed + written + "\n".join(" ".join(call) for call in programs.calls)
    assert not [value for value in values if value in spoken]


def test_the_nodes_login_is_wherever_pods_are_and_nowhere_else(
    install: Install, programs: Any, tmp_path: Path
) -> None:
    login = tmp_path / "config.json"
    login.write_text('{"auths": {"r.example.com": {"auth": "bG9naW46c2VjcmV0"}}}')
    printed = install(PULL_SECRET=str(login))
    places = {key[1] for key in programs.cluster.objects if key[0] == "Secret" and key[2] == "tenure-pull"}
    assert places == {"envoy-gateway-system", "cert-manager", "kserve", "kubeflow", "tenure"}
    accounts = [one for (kind, _, _), one in programs.cluster.objects.items() if kind == "ServiceAccount"]
    assert len(accounts) > 5
    assert all(one["imagePullSecrets"] == [{"name": "tenure-pull"}] for one in accounts)
    written = "".join(path.read_text() for path in (tmp_path / "state").rglob("*.json"))
    spoken = printed + written + "".join(" ".join(call) for call in programs.calls)
    assert "bG9naW46c2VjcmV0" not in spoken
    programs.cluster.applied.clear()
    assert install(PULL_SECRET=str(login)).count("unchanged") >= 7


def test_a_second_installation_waits_for_the_first(make_site: MakeSite) -> None:
    site = make_site()
    with main.lock(site), pytest.raises(WaitError, match="another `make up`"), main.lock(make_site()):
        pytest.fail("two at once")
    with main.lock(make_site()):
        pass
