"""One look at a cluster: everything that the checks read, and nothing that is secret."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple

from console.doctor.api import Api, Reply
from console.doctor.document import Document, labels_of, name_of, namespace_of
from console.doctor.observation import Answer, Cluster, Layout, Trial
from console.doctor.pod import find_failing, is_of_run
from console.doctor.trial import Attempt, list_attempts

_THREADS = 8
_LOG_LINES = 40
_LOG_BYTES = 20_000
_LOGS = 40
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_GROUPS = (
    "gateway.networking.k8s.io/v1", "gateway.envoyproxy.io/v1alpha1", "serving.kserve.io/v1beta1",
    "serving.kserve.io/v1alpha1", "argoproj.io/v1alpha1", "cert-manager.io/v1",
)  # fmt: skip
_SECRETS = ("tenure-s3", "tenure-databases", "tenure-tracking", "tenure-detector")


class _Source(NamedTuple):
    """Where resources of a kind are listed; `{}` stands for a namespace."""

    kind: str
    path: str
    namespaces: tuple[str, ...] = ()
    needs: str | None = None
    accept: str = "application/json"


def observe(api: Api, context: str, layout: Layout, *, pre: bool = False) -> Cluster:
    """Look at a cluster once. What may not be read is said in `unread`; this never fails.

    Args:
        api: How to ask.
        context: What the cluster is called here.
        layout: Where to look.
        pre: Ask also what this user may do.
    """
    cluster = Cluster(context=context, server=api.server, layout=layout, taken=datetime.now(UTC))
    version = api.get("/version")
    if not version.is_good:
        cluster.problem = version.text or f"status {version.status}"
        return cluster
    cluster.version = str(version.document.get("gitVersion", ""))
    with ThreadPoolExecutor(_THREADS) as pool:
        for group, reply in zip(_GROUPS, pool.map(lambda one: api.get(f"/apis/{one}"), _GROUPS), strict=True):
            resources = reply.document.get("resources") or () if reply.is_good else ()
            cluster.apis[group] = [one["name"] for one in resources if "/" not in one["name"]]
        sources = [one for one in _list_sources(layout) if one.needs is None or _is_served(cluster, one)]
        for source, reply in pool.map(lambda one: (one, api.get(one.path, one.accept)), sources):
            _keep(cluster, source, reply)
        _keep_secrets(cluster, api, pool.map)
        containers = list(_list_failing(cluster))[:_LOGS]
        for key, text in pool.map(lambda one: _read_log(api, *one), containers):
            if text:
                cluster.logs[key] = text
        cluster.trials = list(pool.map(lambda one: _attempt(api, one), list_attempts(cluster)))
        if pre:
            cluster.access = dict(pool.map(lambda one: _ask_access(api, layout, one), _WANTED))
    return cluster


def ask_health(api: Api, cluster: Cluster) -> dict[str, Answer]:
    """Return what Services of ours say of themselves, asked through the API server."""
    asked = {
        "detector": (cluster.layout.tenure, "tenure-detector", 8080, "/readyz"),
        "pilot": (cluster.layout.tenure, "tenure-pilot", 8080, "/readyz"),
        "console": (cluster.layout.tenure, "tenure-console", 8080, "/readyz"),
    }
    found = {}
    for name, (namespace, service, port, path) in asked.items():
        if cluster.find("services", service, namespace) is None:
            continue
        reply = api.get(f"/api/v1/namespaces/{namespace}/services/http:{service}:{port}/proxy{path}", "*/*")
        found[name] = Answer(good=reply.is_good, text=reply.text.strip()[:300])
    return found


def _list_sources(layout: Layout) -> Iterator[_Source]:
    ours, everywhere = layout.tenure, list(layout.every())
    apis = "/apis/{}"
    yield _Source("nodes", "/api/v1/nodes")
    yield _Source("namespaces", "/api/v1/namespaces")
    yield _Source("storageclasses", "/apis/storage.k8s.io/v1/storageclasses")
    yield _Source("leases", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
    yield _Source(
        "customresourcedefinitions",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        accept=_METADATA,
    )
    for kind in ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"):
        yield _Source(kind, f"/apis/admissionregistration.k8s.io/v1/{kind}")
    for namespace in everywhere:
        for kind in ("pods", "services", "events", "persistentvolumeclaims", "resourcequotas"):
            yield _Source(kind, f"/api/v1/namespaces/{namespace}/{kind}")
        for kind in ("deployments", "statefulsets", "replicasets"):
            yield _Source(kind, f"/apis/apps/v1/namespaces/{namespace}/{kind}")
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        yield _Source("endpointslices", slices)
    for namespace in dict.fromkeys((ours, layout.runs)):
        yield _Source("serviceaccounts", f"/api/v1/namespaces/{namespace}/serviceaccounts")
        yield _name_config_map(namespace, "tenure-settings")
    yield _name_config_map(layout.kserve, "inferenceservice-config")
    yield _name_config_map(layout.runs, "workflow-controller-configmap")
    serving = "serving.kserve.io/v1beta1"
    yield _Source(
        "inferenceservices",
        apis.format(f"{serving}/namespaces/{ours}/inferenceservices"),
        needs=f"{serving} inferenceservices",
    )
    runtimes = "serving.kserve.io/v1alpha1"
    yield _Source(
        "servingruntimes",
        apis.format(f"{runtimes}/namespaces/{ours}/servingruntimes"),
        needs=f"{runtimes} servingruntimes",
    )
    gateway = "gateway.networking.k8s.io/v1"
    yield _Source(
        "gatewayclasses", apis.format(f"{gateway}/gatewayclasses"), needs=f"{gateway} gatewayclasses"
    )
    yield _Source("gateways", apis.format(f"{gateway}/gateways"), needs=f"{gateway} gateways")
    yield _Source(
        "httproutes",
        apis.format(f"{gateway}/namespaces/{ours}/httproutes"),
        needs=f"{gateway} httproutes",
    )
    certificates = "cert-manager.io/v1"
    for namespace in (layout.kserve, ours, layout.runs):
        yield _Source(
            "certificates",
            apis.format(f"{certificates}/namespaces/{namespace}/certificates"),
            needs=f"{certificates} certificates",
        )


def _name_config_map(namespace: str, name: str) -> _Source:
    """Return where one ConfigMap is listed, so that no other is read."""
    only = f"?fieldSelector=metadata.name%3D{name}"
    return _Source("configmaps", f"/api/v1/namespaces/{namespace}/configmaps{only}")


def _is_served(cluster: Cluster, source: _Source) -> bool:
    group, _, plural = (source.needs or "").partition(" ")
    return cluster.serves(group, plural)


def _keep(cluster: Cluster, source: _Source, reply: Reply) -> None:
    if not reply.is_good:
        cluster.unread[source.kind] = reply.text or f"status {reply.status}"
        return
    found = cluster.documents.setdefault(source.kind, [])
    for item in reply.document.get("items") or ():
        item["metadata"].pop("managedFields", None)
        (item["metadata"].get("annotations") or {}).pop(
            "kubectl.kubernetes.io/last-applied-configuration", None
        )
        found.append(item)


def _keep_secrets(cluster: Cluster, api: Api, run: Callable[..., Iterable[tuple[str, Reply]]]) -> None:
    """Keep of Secrets which keys they have, and of those for TLS the certificate, which is public."""
    layout = cluster.layout
    paths = [
        f"/api/v1/namespaces/{namespace}/secrets/{name}"
        for namespace in dict.fromkeys((layout.tenure, layout.runs))
        for name in (*_SECRETS, "mlpipeline-minio-artifact")
    ]
    cluster.documents["secrets"] = []
    for _, reply in run(lambda path: (path, api.get(path)), paths):
        if reply.is_good:
            document = reply.document
            cluster.documents["secrets"].append(
                {"metadata": _shorten_metadata(document), "keys": sorted(document.get("data") or {})}
            )
        elif reply.status != 404:
            cluster.unread["secrets"] = reply.text or f"status {reply.status}"
    cluster.documents["tlssecrets"] = []
    only = "?fieldSelector=type%3Dkubernetes.io/tls"
    for _, reply in run(
        lambda name: (name, api.get(f"/api/v1/namespaces/{name}/secrets{only}")),
        dict.fromkeys((layout.kserve, layout.certificates)),
    ):
        for item in reply.document.get("items") or () if reply.is_good else ():
            public = {"tls.crt": (item.get("data") or {}).get("tls.crt", "")}
            cluster.documents["tlssecrets"].append({"metadata": _shorten_metadata(item), "data": public})


def _shorten_metadata(document: Document) -> Document:
    metadata = document["metadata"]
    return {"name": metadata["name"], "namespace": metadata["namespace"]}


def _list_failing(cluster: Cluster) -> Iterator[tuple[str, str, str, bool]]:
    for pod in cluster.every("pods"):
        if is_of_run(pod) and (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            continue
        if (pod.get("status") or {}).get("phase") == "Succeeded" or "job-name" in labels_of(pod):
            continue
        for container, previous in find_failing(pod):
            yield namespace_of(pod), name_of(pod), container, previous


def _read_log(api: Api, namespace: str, pod: str, container: str, previous: bool) -> tuple[str, str]:
    path = (
        f"/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines={_LOG_LINES}"
        f"&limitBytes={_LOG_BYTES}"
    )
    reply = api.get(f"{path}&previous=true" if previous else path, "*/*")
    if previous and not reply.is_good:
        reply = api.get(path, "*/*")
    return f"{namespace}/{pod}/{container}", reply.text if reply.is_good else ""


def _attempt(api: Api, attempt: Attempt) -> Trial:
    reply = api.try_create(attempt.path, attempt.document)
    return Trial(name=attempt.name, status=reply.status, message="" if reply.is_good else reply.text)


class _Right(NamedTuple):
    verb: str
    group: str
    resource: str
    namespace: str | None = None


_WANTED = (
    _Right("create", "", "namespaces"),
    _Right("create", "apiextensions.k8s.io", "customresourcedefinitions"),
    _Right("create", "rbac.authorization.k8s.io", "clusterroles"),
    _Right("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    _Right("create", "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    _Right("create", "apps", "deployments", "tenure"),
    _Right("create", "", "secrets", "tenure"),
    _Right("create", "rbac.authorization.k8s.io", "roles", "runs"),
    _Right("create", "networking.k8s.io", "networkpolicies", "tenure"),
)


def _ask_access(api: Api, layout: Layout, right: _Right) -> tuple[str, bool]:
    place = getattr(layout, right.namespace) if right.namespace else None
    attributes = {"verb": right.verb, "group": right.group, "resource": right.resource}
    if place:
        attributes["namespace"] = place
    reply = api.review(
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
    )
    name = f"{right.verb} {right.resource}{'.' + right.group if right.group else ''}"
    allowed = bool((reply.document.get("status") or {}).get("allowed"))
    return f"{name} in {place}" if place else name, allowed
