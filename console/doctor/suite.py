"""Which checks a cluster gets, in which order: what others stand on comes first."""

from __future__ import annotations

from collections.abc import Iterator

from console.doctor import gateway, ground, installation, program, serving, webhook
from console.doctor.finding import Finding, Group, bad, good, warn
from console.doctor.observation import Cluster

_LEVELS = ("restricted", "baseline", "privileged")


def check_rights(cluster: Cluster) -> Iterator[Finding]:
    """This user may create what an install creates."""
    refused = sorted(name for name, allowed in cluster.access.items() if not allowed)
    if refused:
        yield bad(
            "rights",
            f"this user may not {'; '.join(refused)}",
            "install as cluster-admin, or let its administrator install what is for the whole cluster",
        )
    elif cluster.access:
        yield good("rights", "this user may create all that an install creates")


def check_clashes(cluster: Cluster) -> Iterator[Finding]:
    """Nothing here is in the way of what an install brings."""
    fine = True
    kinds = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")
    for kind, configuration in [(plural, one) for plural in kinds for one in cluster.every(plural)]:
        for hook in configuration.get("webhooks") or ():
            service = (hook.get("clientConfig") or {}).get("service")
            watched = set(cluster.layout.every()) - {cluster.layout.system}
            if (
                service
                and service["namespace"] in watched
                and cluster.find("services", service["name"], service["namespace"]) is None
            ):
                fine = False
                yield bad(
                    "clashes",
                    f"webhook {hook['name']} is left over from an earlier install: its Service is gone",
                    f"kubectl delete {kind} {configuration['metadata']['name']}",
                )
    for one in cluster.every("namespaces"):
        if one["metadata"]["name"] in cluster.layout.every() and one["metadata"].get("deletionTimestamp"):
            fine = False
            yield bad(
                "clashes",
                f"namespace {one['metadata']['name']} is being deleted",
                "wait until it is gone; a finalizer whose controller no longer runs must be removed by hand",
            )
    if fine:
        yield good("clashes", "nothing is left of an earlier install")


def check_present(cluster: Cluster) -> Iterator[Finding]:
    """What is there already must not be installed twice."""
    switches = {
        "Gateway API": ("gateway.networking.k8s.io/v1", "gateways", "WITH_GATEWAY_API=no"),
        "Envoy Gateway": ("gateway.envoyproxy.io/v1alpha1", "envoyproxies", "WITH_ENVOY_GATEWAY=no"),
        "cert-manager": ("cert-manager.io/v1", "certificates", "WITH_CERT_MANAGER=no"),
        "KServe": ("serving.kserve.io/v1beta1", "inferenceservices", "WITH_KSERVE=no"),
        "Argo Workflows": ("argoproj.io/v1alpha1", "workflows", "WITH_KFP=no, if it is Kubeflow's"),
    }
    for name, (group, plural, switch) in switches.items():
        if cluster.serves(group, plural):
            fix = f"if it is in use, leave it as it is: {switch}"
            yield warn("present", f"{name} is in the cluster already", fix)


def check_policy(cluster: Cluster) -> Iterator[Finding]:
    """Namespaces that exist already do not refuse what will run there."""
    found = cluster.find("namespaces", cluster.layout.runs)
    labels = ((found or {}).get("metadata") or {}).get("labels") or {}
    level = labels.get("pod-security.kubernetes.io/enforce")
    if level == _LEVELS[0]:
        yield warn(
            "policy",
            f"namespace {cluster.layout.runs} enforces Pod Security {level}",
            "Tenure's steps comply; MySQL and others of Kubeflow's may not",
        )


CLUSTER: tuple[Group[Cluster], ...] = (
    Group("the Kubernetes API", (ground.check_api,), needed=True),
    Group("reading", (ground.check_reading,)),
    Group("nodes", (ground.check_nodes, ground.check_clock, ground.check_dns, ground.check_system)),
    Group("storage and quotas", (ground.check_storage_class, ground.check_claims, ground.check_quotas)),
    Group("resource definitions", (program.check_apis, gateway.check_release)),
    Group("cert-manager", (program.check_cert_manager,)),
    Group("gateway", (gateway.check_programs, gateway.check_classes, gateway.check_gateway)),
    Group("KServe", (program.check_kserve, program.check_kserve_configuration)),
    Group("webhooks", (webhook.check_endpoints, webhook.check_bundles, webhook.check_trials)),
    Group("Kubeflow Pipelines", (program.check_pipelines, program.check_retries)),
    Group(
        "Tenure",
        (
            installation.check_namespace,
            installation.check_configuration,
            installation.check_services,
            installation.check_answers,
        ),
    ),
    Group("models", (serving.check_runtime, serving.check_services, serving.check_routes)),
)
"""For an installation."""

BEFORE: tuple[Group[Cluster], ...] = (
    Group("the Kubernetes API", (ground.check_api,), needed=True),
    Group("reading", (ground.check_reading,)),
    Group("nodes", (ground.check_nodes, ground.check_clock, ground.check_dns, ground.check_system)),
    Group("storage", (ground.check_storage_class,)),
    Group("rights", (check_rights,)),
    Group("what is there", (check_clashes, check_present, check_policy)),
)
"""Before an installation."""
