"""The programs of others that Tenure stands on: their CRDs, cert-manager, KServe, Kubeflow Pipelines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from clients.names import OWN_ANNOTATIONS
from console.doctor.document import Document, explain, find_condition, is_true, name_of, path_of
from console.doctor.finding import Finding, bad, good, warn
from console.doctor.observation import Cluster
from console.doctor.workload import check_workloads

_KSERVE = (0, 20)


class _Need(NamedTuple):
    """Resources that a cluster must serve."""

    api: str
    plural: str
    of: str
    fix: str


_GATEWAY_API = "`make up` installs it (WITH_GATEWAY_API)"
_TOO_LONG = "apply it with --server-side: its CRDs are too long for a client-side apply"
_NEEDS = (
    _Need("gateway.networking.k8s.io/v1", "gateways", "Gateway API", _GATEWAY_API),
    _Need("gateway.networking.k8s.io/v1", "httproutes", "Gateway API", _GATEWAY_API),
    _Need("gateway.networking.k8s.io/v1", "grpcroutes", "Gateway API", "install release 1.2 or newer of it"),
    _Need("gateway.envoyproxy.io/v1alpha1", "envoyproxies", "Envoy Gateway", _TOO_LONG),
    _Need("serving.kserve.io/v1beta1", "inferenceservices", "KServe", _TOO_LONG),
    _Need("serving.kserve.io/v1alpha1", "servingruntimes", "KServe", _TOO_LONG),
    _Need("argoproj.io/v1alpha1", "workflows", "Kubeflow Pipelines", "`make up` installs it (WITH_KFP)"),
)  # fmt: skip


def check_apis(cluster: Cluster) -> Iterator[Finding]:
    """The resources that Tenure works with are served."""
    missing = [need for need in _NEEDS if not cluster.serves(need.api, need.plural)]
    for need in missing:
        yield bad("crds", f"{need.plural} ({need.api}) of {need.of} are not there", need.fix)
    for program in dict.fromkeys(need.of for need in _NEEDS):
        if not any(need.of == program for need in missing):
            yield good("crds", f"the CRDs of {program} are there")
    for crd in cluster.every("customresourcedefinitions"):
        if crd["metadata"].get("deletionTimestamp"):
            yield bad(
                "crds",
                f"CRD {name_of(crd)} is being deleted and does not get away",
                "remove what is left of its resources, or their finalizers; then install its program again",
            )


def check_cert_manager(cluster: Cluster) -> Iterator[Finding]:
    """cert-manager runs, if it is there at all."""
    if cluster.every("deployments", cluster.layout.certificates):
        yield from check_workloads(cluster, cluster.layout.certificates, "cert-manager")
        for certificate in cluster.every("certificates"):
            if not is_true(certificate, "Ready"):
                yield bad(
                    "cert-manager",
                    f"Certificate {path_of(certificate)} is not ready: "
                    f"{explain(find_condition(certificate, 'Ready'))}",
                    "see its CertificateRequest: `kubectl get certificaterequests -A`, and the issuer",
                )


def check_kserve(cluster: Cluster) -> Iterator[Finding]:
    """KServe's controller runs."""
    if cluster.has_read("deployments") and not cluster.every("deployments", cluster.layout.kserve):
        yield bad(
            "kserve",
            f"KServe is not in namespace {cluster.layout.kserve}",
            "`make up` installs it (WITH_KSERVE)",
        )
    yield from check_workloads(cluster, cluster.layout.kserve, "kserve")
    manager = cluster.find("deployments", "kserve-controller-manager", cluster.layout.kserve)
    images = [one["image"] for one in manager["spec"]["template"]["spec"]["containers"]] if manager else []
    for image in images:
        found = re.search(r"kserve[\w\-]*:v?(\d+)\.(\d+)", image)
        if found and (int(found[1]), int(found[2])) < _KSERVE:
            yield bad(
                "kserve-version",
                f"KServe {found[1]}.{found[2]} has no canaries in Standard mode",
                f"upgrade KServe to {_KSERVE[0]}.{_KSERVE[1]} or newer",
            )


def check_kserve_configuration(cluster: Cluster) -> Iterator[Finding]:
    """KServe is in Standard mode, with the Gateway API, under a domain of its own."""
    if not cluster.has_read("configmaps") or not cluster.every("deployments", cluster.layout.kserve):
        return
    found = cluster.find("configmaps", "inferenceservice-config", cluster.layout.kserve)
    if found is None:
        yield bad(
            "kserve-configuration",
            f"ConfigMap {cluster.layout.kserve}/inferenceservice-config is missing",
            "apply KServe's manifests again",
        )
        return
    ingress, deploy, inference = (_read_json(found, key) for key in ("ingress", "deploy", "inferenceService"))
    problems = [
        *_judge_configuration(cluster, ingress, deploy),
        *_judge_annotations(cluster, inference or {}),
    ]
    yield from problems
    if not problems:
        yield good("kserve-configuration", "KServe: Standard mode, Gateway API")


def check_pipelines(cluster: Cluster) -> Iterator[Finding]:
    """Kubeflow Pipelines runs."""
    if not cluster.has_read("deployments"):
        return
    if cluster.find("deployments", "ml-pipeline", cluster.layout.runs) is None:
        yield bad(
            "pipelines",
            f"Kubeflow Pipelines is not in namespace {cluster.layout.runs} (no Deployment ml-pipeline)",
            "`make up` installs it (WITH_KFP), or name its namespace: --runs-namespace",
        )
    yield from check_workloads(cluster, cluster.layout.runs, "pipelines")
    # Where there is none, it is known already why it does not answer.
    if "runs" in cluster.answers and cluster.find("deployments", "ml-pipeline", cluster.layout.runs):
        answer = cluster.answers["runs"]
        if answer.good:
            yield good("pipelines-api", "the pipelines API answers")
        else:
            yield bad(
                "pipelines-api",
                f"the pipelines API does not answer: {answer.text}",
                "see the ml-pipeline pod's log",
            )


def check_retries(cluster: Cluster) -> Iterator[Finding]:
    """Argo has no default retries of its own, which would take the place of those that steps ask for."""
    where = f"{cluster.layout.runs}/workflow-controller-configmap"
    found = cluster.find("configmaps", "workflow-controller-configmap", cluster.layout.runs)
    text = ((found or {}).get("data") or {}).get("workflowDefaults", "")
    try:
        spec = (yaml.safe_load(text) or {}).get("spec") or {}
        retries = "retryStrategy" in (spec.get("templateDefaults") or {})
    except (yaml.YAMLError, AttributeError, TypeError):
        yield warn("retries", f"{where}: `workflowDefaults` cannot be read", "see Argo's documentation of it")
        return
    if retries:
        yield warn(
            "retries",
            f"{where}: the retryStrategy of workflowDefaults.spec.templateDefaults takes the place of the "
            "steps' own, and multiplies in nested graphs: a step that must fail is tried dozens of times",
            f"remove it: `kubectl -n {cluster.layout.runs} edit configmap workflow-controller-configmap`",
        )


def _judge_configuration(
    cluster: Cluster, ingress: dict[str, Any] | None, deploy: dict[str, Any] | None
) -> Iterator[Finding]:
    check, where = "kserve-configuration", f"{cluster.layout.kserve}/inferenceservice-config"
    if ingress is None or deploy is None:
        yield bad(check, f"{where}: `ingress` or `deploy` is no JSON", "apply KServe's manifests again")
        return
    mode = deploy.get("defaultDeploymentMode", "")
    if mode not in ("Standard", "RawDeployment"):
        yield warn(
            check,
            f"{where}: services without an annotation of their own are deployed as {mode or 'Knative'}",
            'set deploy.defaultDeploymentMode to "Standard", if nothing else here needs Knative',
        )
    if not ingress.get("enableGatewayApi"):
        yield bad(
            check,
            f"{where}: enableGatewayApi is off, so KServe looks for Istio or an Ingress",
            "set ingress.enableGatewayApi to true and restart kserve-controller-manager",
        )
    ours = cluster.settings.get("TENURE_INGRESS_DOMAIN")
    if ours and ours == ingress.get("ingressDomain", "example.com"):
        yield bad(
            check,
            f"{where}: KServe's ingressDomain is {ours}, as Tenure's: two routes claim each hostname",
            "give one of them another domain (TENURE_INGRESS_DOMAIN in ConfigMap tenure-settings)",
        )


def _judge_annotations(cluster: Cluster, inference: dict[str, Any]) -> Iterator[Finding]:
    kept = inference.get("serviceAnnotationDisallowedList") or ()
    if not set(OWN_ANNOTATIONS) <= set(kept):
        yield bad(
            "kserve-configuration",
            f"{cluster.layout.kserve}/inferenceservice-config: KServe copies a roll-out's annotations to "
            "the pods, so that each of its steps starts the model servers anew",
            "`make up` with EDIT_KSERVE=yes adds them to inferenceService.serviceAnnotationDisallowedList",
        )


def _read_json(configuration: Document, key: str) -> dict[str, Any] | None:
    try:
        found = json.loads((configuration.get("data") or {}).get(key, "{}"))
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
