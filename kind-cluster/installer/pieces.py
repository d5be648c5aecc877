"""The third parties' pieces: installed as pinned, and asked whether they really answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from console.doctor.trial import make_pod, make_runtime, make_service
from installer import documents as change
from installer.credentials import PIPELINES_S3, make_password, make_secret
from installer.errors import SourceError
from installer.kubectl import load
from installer.options import PIPELINES_NAMESPACE, ROOT, TITLES
from installer.remote import localize
from installer.site import Site
from installer.sources import Sources
from installer.state import fingerprint

Document = dict[str, Any]

GATEWAY = ROOT / "kind-cluster" / "gateway.yaml"
KSERVE_DOMAIN = "kserve.example.com"
"""Where KServe's own routes answer: another domain than ours, for ours have the same names."""

_PIPELINES_PARTS = ("cluster-scoped-resources", "env/platform-agnostic")
_HEALTH = "/api/v1/namespaces/{namespace}/services/http:ml-pipeline:8888/proxy/apis/v2beta1/healthz"


def install_gateway_api(site: Site) -> str:
    """The types Gateway, HTTPRoute and so on, of the standard channel."""
    found = _load(site, "GATEWAY_API")
    return _install(site, "GATEWAY_API", found, (), lambda: probe_route(site))


def install_envoy_gateway(site: Site) -> str:
    """The gateway's controller, and one Gateway."""
    found = change.drop_gateway_api(_load(site, "ENVOY_GATEWAY"))
    gateway = load(GATEWAY.read_text())
    for one in gateway:
        if one["kind"] == "EnvoyProxy":
            deployment = one["spec"]["provider"]["kubernetes"]["envoyDeployment"]
            deployment["container"]["image"] = site.options.versions["ENVOY_IMAGE"]
    workloads = _list_workloads(found)
    return _install(
        site, "ENVOY_GATEWAY", [*found, *gateway], workloads, lambda: probe_gateway(site), last=gateway
    )


def install_cert_manager(site: Site) -> str:
    """What issues the webhooks' certificates."""
    found = _load(site, "CERT_MANAGER")
    return _install(site, "CERT_MANAGER", found, _list_workloads(found), lambda: probe_certificates(site))


def install_kserve(site: Site) -> str:
    """KServe in Standard mode, without the controllers that Tenure has no use for."""
    found = change.configure_kserve(
        change.select_kserve(_load(site, "KSERVE")), gateway=site.options.gateway, domain=KSERVE_DOMAIN
    )
    # Its own objects must pass its own webhook: they come when it answers.
    own = [one for one in found if one["apiVersion"].startswith("serving.kserve.io/")]
    return _install(site, "KSERVE", found, _list_workloads(found), lambda: probe_kserve(site), last=own)


def install_pipelines(site: Site) -> str:
    """Kubeflow Pipelines, with a key of the object store that nobody else knows."""
    tree = _prepare_pipelines(site)
    found: list[Document] = []
    for part in _PIPELINES_PARTS:
        found += load(_render(site, tree / part))
    found = change.drop(change.keep_retries(found), "Secret", PIPELINES_S3)
    if site.kubectl.get("secret", PIPELINES_S3, PIPELINES_NAMESPACE) is None:
        namespaces = change.find(found, "Namespace")
        site.apply([dict(one) for one in namespaces])
        values = {"accesskey": f"pipelines-{make_password()[:12]}", "secretkey": make_password()}
        site.apply([make_secret(PIPELINES_S3, PIPELINES_NAMESPACE, values)])
    return _install(site, "KFP", found, _list_workloads(found), lambda: probe_pipelines(site))


def probe_route(site: Site) -> str | None:
    """Try to create an HTTPRoute."""
    return site.kubectl.try_create(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "tenure-probe", "namespace": "default"},
            "spec": {"rules": [{"backendRefs": [{"name": "tenure-probe", "port": 80}]}]},
        }
    )


def probe_gateway(site: Site) -> str | None:
    """Ask whether the Gateway is programmed: a proxy runs and has its configuration."""
    namespace, _, name = site.options.gateway.partition("/")
    gateway = site.kubectl.get("gateways.gateway.networking.k8s.io", name, namespace)
    if gateway is None:
        return f"there is no Gateway {site.options.gateway}"
    conditions = (gateway.get("status") or {}).get("conditions") or ()
    for one in conditions:
        if one["type"] == "Programmed":
            if one["status"] == "True" and one.get("observedGeneration") == gateway["metadata"]["generation"]:
                return None
            return f"{one.get('reason')}: {one.get('message', '')}".strip()
    return "nobody has taken the Gateway up yet: is its GatewayClass's controller running?"


def probe_certificates(site: Site) -> str | None:
    """Try to create an Issuer through cert-manager's webhook."""
    return site.kubectl.try_create(
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Issuer",
            "metadata": {"name": "tenure-probe", "namespace": "default"},
            "spec": {"selfSigned": {}},
        }
    )


def probe_kserve(site: Site) -> str | None:
    """Try to create what each of KServe's webhooks looks at: a runtime, a service, a model server's pod."""
    for document in (make_runtime("default"), make_service("default"), make_pod("default")):
        refusal = site.kubectl.try_create(document)
        if refusal:
            return refusal
    return None


def probe_pipelines(site: Site) -> str | None:
    """Ask the pipelines' API for its health."""
    result = site.kubectl.run("get", "--raw", _HEALTH.format(namespace=PIPELINES_NAMESPACE))
    return None if result.ok else (result.err.strip().splitlines() or ["no answer"])[-1]


PROBES: Mapping[str, Callable[[Site], str | None]] = {
    "GATEWAY_API": probe_route,
    "ENVOY_GATEWAY": probe_gateway,
    "KSERVE": probe_kserve,
}
"""What Tenure cannot do without, whoever installed it."""


def _install(
    site: Site,
    switch: str,
    found: Sequence[Document],
    workloads: Sequence[tuple[str, str, str]],
    probe: Callable[[], str | None],
    last: Sequence[Document] = (),
) -> str:
    """Apply a piece unless it is there as wanted and answers; then wait until it answers."""
    version = site.options.versions[f"{switch}_VERSION"]
    if not found:
        raise SourceError(f"the manifests of {switch} are empty")
    prepared = change.add_pull_secret(change.mirror_images(found, site.options.mirror), site.read_login())
    mark = fingerprint(prepared)
    if site.state.matches(switch, mark) and probe() is None:
        return f"{version}, unchanged"
    site.ensure_namespaces(change.list_missing_namespaces(prepared))
    late = {_identify(one) for one in last}
    site.apply([one for one in prepared if _identify(one) not in late])
    for namespace in dict.fromkeys(place for place, _, _ in workloads):
        site.wait_workloads(
            namespace, [(kind, name) for place, kind, name in workloads if place == namespace]
        )
    if late:
        site.apply([one for one in prepared if _identify(one) in late])
    site.wait(f"{TITLES[switch]} to answer", probe)
    site.state.note(switch, mark)
    return version


def _sources(site: Site) -> Sources:
    return Sources(site.options, site.options.state / "downloads")


def _prepare_pipelines(site: Site) -> Path:
    """Return Kubeflow Pipelines' kustomizations, which fetch nothing while they are built."""
    sources = _sources(site)
    tree = sources.unpack(sources.read("KFP"), "manifests/kustomize")
    argo = sources.unpack(sources.read("ARGO"), "manifests").parent
    target = site.directory / "pipelines"
    localize(tree, target, _PIPELINES_PARTS, argo, site.options.versions["ARGO_VERSION"])
    return target


def _load(site: Site, switch: str) -> list[Document]:
    sources = _sources(site)
    return sources.load(sources.read(switch))


def _identify(document: Mapping[str, Any]) -> tuple[str, str, str | None]:
    metadata = document["metadata"]
    return document["kind"], metadata["name"], metadata.get("namespace")


def _list_workloads(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return namespace, kind and name of what must run."""
    return [
        (one["metadata"].get("namespace", "default"), one["kind"], one["metadata"]["name"])
        for one in found
        if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet")
    ]


def _render(site: Site, directory: Path) -> str:
    return site.kubectl.need("kustomize", str(directory), timeout=120)
