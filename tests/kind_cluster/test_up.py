"""The whole of `make up`, against a cluster played in memory and a real object store."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from clients.settings import Settings
from clients.store import Store
from installer import __main__ as main
from installer import credentials, delivery
from installer.errors import CheckError, InstallError, ProgramError, SourceError, WaitError
from installer.images import NAMES
from installer.options import read_versions
from installer.site import Site

MakeSite = Callable[..., Site]
Document = dict[str, Any]


def make_type(name: str) -> Document:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {"group": name.partition(".")[2]},
    }


def make_controller(name: str, namespace: str) -> Document:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "image": f"quay.io/x/{name}:1"}]}}},
    }


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The third parties' files, small."""
    directory = tmp_path / "manifests"
    directory.mkdir()
    versions = read_versions()
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "inferenceservice-config", "namespace": "kserve"},
        "data": {"deploy": "{}", "ingress": "{}"},
    }
    container = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {"name": "default"},
    }
    files = {
        f"gateway-api-{versions['GATEWAY_API_VERSION']}.yaml": [
            make_type("httproutes.gateway.networking.k8s.io"),
            make_type("gateways.gateway.networking.k8s.io"),
        ],
        f"envoy-gateway-{versions['ENVOY_GATEWAY_VERSION']}.yaml": [
            make_type("gateways.gateway.networking.k8s.io"),
            make_type("envoyproxies.gateway.envoyproxy.io"),
            make_controller("envoy-gateway", "envoy-gateway-system"),
        ],
        f"cert-manager-{versions['CERT_MANAGER_VERSION']}.yaml": [
            make_type("certificates.cert-manager.io"),
            make_controller("cert-manager-webhook", "cert-manager"),
        ],
        f"kserve-{versions['KSERVE_VERSION']}.yaml": [
            make_type("inferenceservices.serving.kserve.io"),
            make_type("servingruntimes.serving.kserve.io"),
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": "kserve", "labels": {"control-plane": "kserve-controller-manager"}},
            },
            config,
            container,
            make_controller("kserve-controller-manager", "kserve"),
            make_controller("llmisvc-controller-manager", "kserve"),
        ],
    }
    for name, documents in files.items():
        (directory / name).write_text(yaml.safe_dump_all(documents))
    make_pipelines(directory, versions)
    return directory


ARGO = "https://github.com/argoproj/argo-workflows/manifests"


def make_pipelines(directory: Path, versions: dict[str, str], ref: str | None = None) -> None:
    """Write the source archives of Kubeflow Pipelines, which asks for Argo at `ref`, and of Argo."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "ml-pipeline", "namespace": "kubeflow"},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mlpipeline-minio-artifact", "namespace": "kubeflow"},
        "stringData": {"accesskey": "minio", "secretkey": "minio123"},
    }
    ref = ref or versions["ARGO_VERSION"]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubeflow"}}
    controller = make_controller("workflow-controller", "kubeflow")
    role = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "argo", "namespace": "kubeflow"},
    }
    argo = "third-party/argo"
    write_archive(
        directory / f"pipelines-{versions['KFP_VERSION']}.tar.gz",
        "pipelines-x/manifests/kustomize",
        {
            "cluster-scoped-resources/kustomization.yaml": [
                {"resources": ["all.yaml", f"../{argo}/installs/namespace/cluster-scoped"]}
            ],
            "cluster-scoped-resources/all.yaml": [namespace],
            f"{argo}/installs/namespace/cluster-scoped/kustomization.yaml": [
                {"resources": [f"{ARGO}/base/crds/minimal?ref={ref}"]}
            ],
            "env/platform-agnostic/kustomization.yaml": [
                {"resources": ["all.yaml", f"../../{argo}/installs/namespace"]}
            ],
            "env/platform-agnostic/all.yaml": [
                service,
                {**service, "metadata": {"name": "ml-pipeline-ui", "namespace": "kubeflow"}},
                secret,
                make_controller("ml-pipeline", "kubeflow"),
            ],
            f"{argo}/installs/namespace/kustomization.yaml": [
                {
                    "namespace": "kubeflow",
                    "resources": [
                        "../../base",
                        f"{ARGO}/namespace-install/workflow-controller-rbac?ref={ref}",
                    ],
                }
            ],
            f"{argo}/base/kustomization.yaml": [
                {"resources": [f"{ARGO}/base/workflow-controller?ref={ref}&timeout=60s"]}
            ],
            "env/gcp/kustomization.yaml": [{"resources": ["https://github.com/somebody/else?ref=main"]}],
        },
    )
    listed: Document = {"resources": ["all.yaml"]}
    write_archive(
        directory / f"argo-workflows-{versions['ARGO_VERSION']}.tar.gz",
        "argo-workflows-x/manifests",
        {
            "base/crds/minimal/kustomization.yaml": [listed],
            "base/crds/minimal/all.yaml": [make_type("workflows.argoproj.io")],
            "base/workflow-controller/kustomization.yaml": [listed],
            "base/workflow-controller/all.yaml": [controller],
            "namespace-install/workflow-controller-rbac/kustomization.yaml": [listed],
            "namespace-install/workflow-controller-rbac/all.yaml": [role],
        },
    )


def write_archive(path: Path, top: str, files: dict[str, list[Document]]) -> None:
    """Write a source archive with files of YAML documents."""
    with tarfile.open(path, "w:gz") as archive:
        for name, documents in files.items():
            text = yaml.safe_dump_all(documents).encode()
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))


class Runs:
    """Plays the runs API."""

    started: list[str] = []  # noqa: RUF012

    def upload(self, _: Path) -> SimpleNamespace:
        return SimpleNamespace(name="abc", id="v1")

    def find(self, name: str, _: str) -> str | None:
        return name if name in self.started else None


@pytest.fixture(autouse=True)
def _delivery(monkeypatch: pytest.MonkeyPatch, store_settings: Settings) -> None:
    """Reach a real object store without a tunnel, and played runs."""

    @contextmanager
    def reach(*_: object) -> Iterator[Settings]:
        yield store_settings

    runs = Runs()
    runs.started = []

    def submit(_: Runs, __: object, *, source: str, name: str, reason: str) -> str:
        assert source == "s3://tenure/data/telco.csv"
        assert reason
        runs.started.append(name)
        return "run-1"

    monkeypatch.setattr(delivery, "reach", reach)
    monkeypatch.setattr(delivery.Runs, "connect", lambda _: runs)
    monkeypatch.setattr(delivery, "submit", submit)


@pytest.fixture
def install(make_site: MakeSite, manifests: Path) -> Callable[..., str]:
    """Return a function that runs `make up` and returns what it printed."""

    def run(**variables: str) -> str:
        site = make_site(MANIFESTS=str(manifests), **variables)
        out = io.StringIO()
        site.progress._out = out
        try:
            main.up(site)
        finally:
            run.printed = out.getvalue()  # type: ignore[attr-defined]
        return out.getvalue()

    return run


Install = Callable[..., str]


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


def test_kubeflow_that_asks_for_another_argo_is_told(install: Install, manifests: Path) -> None:
    versions = read_versions()
    make_pipelines(manifests, versions, ref="v9.9.9")
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


def test_what_kserve_puts_on_its_namespace_stays(install: Install, programs: Any, manifests: Path) -> None:
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


def test_a_mirror_and_a_registry_reach_every_image(install: Install, programs: Any) -> None:
    programs.images.update({f"r.example.com/x/{name}:t1": f"sha256:{name}" for name in NAMES})
    install(REGISTRY="r.example.com/x", MIRROR="m.example.com", TAG="t1", BUILD="no")
    assert programs.count("docker", "push") == len(NAMES)
    assert programs.count("kind", "load") == 0
    images = set()
    for (kind, _, _), one in programs.cluster.objects.items():
        if kind in ("Deployment", "StatefulSet"):
            template = one["spec"]["template"]["spec"]
            images |= {c["image"] for c in [*template["containers"], *template.get("initContainers", ())]}
    assert {
        one for one in images if not one.startswith(("m.example.com/", "r.example.com/x/tenure-"))
    } == set()


def test_an_image_rebuilt_under_its_tag_renews_its_pods_and_no_others(
    install: Install, programs: Any
) -> None:
    install()

    def notes(name: str) -> str:
        template = programs.cluster.objects["Deployment", "tenure", name]["spec"]["template"]
        return str(template["metadata"]["annotations"])

    before = {name: notes(name) for name in ("tenure-pilot", "tenure-console")}
    programs.images["tenure-pilot:0123456789ab"] = "sha256:new"
    programs.calls.clear()
    install()
    assert notes("tenure-pilot") != before["tenure-pilot"]
    assert notes("tenure-console") == before["tenure-console"]
    assert programs.count("kind", "load") == 1


def test_from_a_registry_every_image_is_taken_by_its_digest(install: Install, programs: Any) -> None:
    for name in NAMES:
        reference = f"r.example.com/x/{name}:t1"
        programs.images[reference] = f"sha256:{name}"
        programs.digests[reference] = [f"elsewhere/{name}@sha256:0", f"r.example.com/x/{name}@sha256:{name}"]
    install(REGISTRY="r.example.com/x", TAG="t1", BUILD="no")
    ours = set()
    for (kind, namespace, _), one in programs.cluster.objects.items():
        if kind == "Deployment" and namespace == "tenure":
            template = one["spec"]["template"]["spec"]
            ours |= {c["image"] for c in [*template["containers"], *template.get("initContainers", ())]}
    ours = {one for one in ours if "tenure-" in one}
    assert len(ours) == 4
    assert all("@sha256:tenure-" in one for one in ours)
    settings = programs.cluster.objects["ConfigMap", "tenure", "tenure-settings"]["data"]
    whole = "r.example.com/x/tenure-components@sha256:tenure-components"
    assert settings["TENURE_COMPONENTS_IMAGE"] == whole


def test_other_content_under_the_same_tag_is_another_image_of_the_steps(
    install: Install, programs: Any
) -> None:
    def find() -> str:
        install()
        return str(
            programs.cluster.objects["ConfigMap", "tenure", "tenure-settings"]["data"][
                "TENURE_COMPONENTS_IMAGE"
            ]
        )

    first = find()
    loaded = [call[-1] for call in programs.calls if call[:2] == ("kind", "load")]
    assert first in loaded
    assert find() == first
    programs.images["tenure-components:0123456789ab"] = "sha256:fedcba9876543210"
    second = find()
    assert second == "tenure-components:0123456789ab-fedcba987654"
    assert programs.images[second] == "sha256:fedcba9876543210"


def test_only_missing_images_are_built_and_from_the_mirrors_base(install: Install, programs: Any) -> None:
    programs.images.update({f"tenure-{name}:0123456789ab": "sha256:x" for name in ("components", "pilot")})
    install(MIRROR="m.example.com")
    [call] = [call for call in programs.calls if call[0] == "make"]
    assert "IMAGES=predictor detector console mlflow" in call
    assert "PYTHON_IMAGE=m.example.com/docker.io/library/python:3.11-slim-bookworm" in call


def test_down_keeps_what_is_stored_and_purge_does_not(
    install: Install, programs: Any, make_site: MakeSite
) -> None:
    variables = {"CLUSTER": "existing", "IMAGE_LOAD": "ctl load", "WITH_KFP": "no"}
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    programs.cluster.put({"kind": "StorageClass", "metadata": {"name": "s", "annotations": default}})
    programs.environment["S3_ACCESS_KEY"], programs.environment["S3_SECRET_KEY"] = "a", "b"
    install(**variables)
    main.down(make_site(**variables))
    there = programs.cluster.objects
    assert ("Deployment", "tenure", "tenure-pilot") not in there
    assert ("Secret", "tenure", "tenure-databases") in there
    assert ("Namespace", "", "tenure") in there
    main.down(make_site(PURGE="yes", **variables))
    assert ("Namespace", "", "tenure") not in programs.cluster.objects


def test_a_second_installation_waits_for_the_first(make_site: MakeSite) -> None:
    site = make_site()
    with main.lock(site), pytest.raises(WaitError, match="another `make up`"), main.lock(make_site()):
        pytest.fail("two at once")
    with main.lock(make_site()):
        pass


def run_main(monkeypatch: pytest.MonkeyPatch, site: Site, command: str) -> int:
    """Run the command line with this site in place of one of this machine."""
    monkeypatch.setattr(main, "_make_site", lambda *_: site)
    return main.main([command])


def read(site: Site) -> str:
    return site.progress._out.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_status_tells_what_runs(
    install: Install, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    site = make_site()
    assert run_main(monkeypatch, site, "status") == 0
    printed = read(site)
    assert "√ tenure-pilot" in printed
    assert "√ KServe answers" in printed
    assert "×" not in printed


def test_status_tells_what_does_not_run(
    install: Install, programs: Any, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    install()
    programs.cluster.objects["Deployment", "tenure", "tenure-pilot"]["status"]["availableReplicas"] = 0
    programs.cluster.refuse_create = lambda one: "no endpoints" if one["kind"] == "Pod" else None
    waiting = {"name": "pilot", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "gone"}}}
    programs.cluster.put(
        {
            "kind": "Pod",
            "metadata": {"name": "tenure-pilot-1", "namespace": "tenure"},
            "status": {"containerStatuses": [waiting]},
        }
    )
    site = make_site()
    assert run_main(monkeypatch, site, "status") == 1
    printed = read(site)
    assert "× tenure-pilot (0 of 1 available)" in printed
    assert "× KServe: " in printed
    assert "tenure-pilot-1/pilot: ImagePullBackOff: gone" in printed
    assert "make status: 1 of " in capsys.readouterr().err


def test_status_of_a_cluster_without_tenure(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert run_main(monkeypatch, make_site(), "status") == 1
    assert "nothing of Tenure is in namespace tenure: make up" in capsys.readouterr().err


def test_check_changes_nothing(
    make_site: MakeSite, programs: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    site = make_site()
    assert run_main(monkeypatch, site, "check") == 0
    assert "√ Docker 29.0" in read(site)
    programs.broken.add("docker")
    assert run_main(monkeypatch, make_site(), "check") == 3
    assert "each has its fix above" in capsys.readouterr().err
    assert programs.cluster.applied == []
    assert programs.count("kind", "create") == 0


def test_down_deletes_the_kind_cluster(
    make_site: MakeSite, programs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_main(monkeypatch, make_site(), "down") == 0
    assert ("kind", "delete", "cluster", "--name", "tenure") in programs.calls


def test_wrong_use_and_an_end_by_hand_have_their_codes(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert main.main([]) == 2
    assert "usage: " in capsys.readouterr().err
    monkeypatch.setenv("CLUSTER", "minikube")
    assert main.main(["check"]) == 2
    assert "make check: CLUSTER=minikube" in capsys.readouterr().err
    monkeypatch.delenv("CLUSTER")

    def end(_: Site) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(main._COMMANDS, "up", end)
    assert run_main(monkeypatch, make_site(), "up") == 130
    assert "the same command goes on from here" in capsys.readouterr().err
