"""What everything stands on: API server, nodes, DNS, storage, quotas."""

from __future__ import annotations

import re
from collections.abc import Iterator

from console.doctor import need
from console.doctor.document import (
    explain,
    find_condition,
    is_true,
    labels_of,
    name_of,
    namespace_of,
    path_of,
    read_quantity,
    read_time,
    shorten,
)
from console.doctor.finding import Finding, bad, good, unknown, warn
from console.doctor.observation import Cluster
from console.doctor.workload import check_workloads

_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_CLAIM_SECONDS = 60
_CLOCK_SECONDS = 60


def check_api(cluster: Cluster) -> Iterator[Finding]:
    """The API server answers, and is new enough."""
    if cluster.problem is not None:
        yield bad(
            "api",
            f"the Kubernetes API cannot be used: {cluster.problem}",
            "see `kubectl config get-contexts`; for a kind cluster `docker ps` shows whether it runs",
        )
        return
    yield good("api", f"the Kubernetes API answers at {cluster.server}")
    found = re.match(r"v?(\d+)\.(\d+)", cluster.version)
    if found and (int(found[1]), int(found[2])) < need.KUBERNETES:
        yield bad(
            "api-version",
            f"Kubernetes {cluster.version} is older than {need.KUBERNETES[0]}.{need.KUBERNETES[1]}",
            "upgrade the cluster, or make a new one: `make up`",
        )
    elif found:
        yield good("api-version", f"Kubernetes {cluster.version}")


def check_reading(cluster: Cluster) -> Iterator[Finding]:
    """What this user may not look at."""
    for kind, reason in sorted(cluster.unread.items()):
        yield unknown("reading", f"{kind} could not be read: {shorten(reason, 200)}")


def check_nodes(cluster: Cluster) -> Iterator[Finding]:
    """Nodes are ready and not out of anything."""
    nodes = cluster.every("nodes")
    healthy = 0
    for node in nodes:
        name, fine = name_of(node), True
        if not is_true(node, "Ready"):
            fine = False
            yield bad(
                "nodes",
                f"node {name} is not ready: {explain(find_condition(node, 'Ready'))}",
                "look at the kubelet's log and at the network plugin on that node",
            )
        for pressure in _PRESSURES:
            if is_true(node, pressure):
                fine = False
                yield bad(
                    "nodes",
                    f"node {name} has {pressure}: {explain(find_condition(node, pressure))}",
                    "free what it lacks (kind: `docker system prune`); until then pods are evicted",
                )
        if (node.get("spec") or {}).get("unschedulable"):
            fine = False
            yield warn("nodes", f"node {name} takes no new pods", f"kubectl uncordon {name}")
        healthy += fine
    if nodes and healthy == len(nodes):
        memory = sum(read_quantity(node["status"]["allocatable"]["memory"]) for node in nodes)
        cpus = sum(read_quantity(node["status"]["allocatable"]["cpu"]) for node in nodes)
        plural = "s are" if healthy != 1 else " is"
        yield good("nodes", f"{healthy} node{plural} ready ({cpus:g} CPUs, {memory / 2**30:.1f} GiB)")


def check_clock(cluster: Cluster) -> Iterator[Finding]:
    """This machine and the nodes agree about the time: certificates and events depend on it."""
    beats = [
        time
        for lease in cluster.every("leases", "kube-node-lease")
        if (time := read_time((lease.get("spec") or {}).get("renewTime"))) is not None
    ]
    if not beats:
        return
    ahead = (max(beats) - cluster.taken).total_seconds()
    if ahead > _CLOCK_SECONDS:
        yield bad(
            "clock",
            f"the cluster's clock is {ahead:.0f} s ahead of this machine's",
            "synchronise both (NTP); after sleep, Docker Desktop's virtual machine needs a restart",
        )
    else:
        yield good("clock", "clocks agree")


def check_dns(cluster: Cluster) -> Iterator[Finding]:
    """The cluster's DNS runs."""
    namespace = cluster.layout.system
    pods = [pod for pod in cluster.every("pods", namespace) if labels_of(pod).get("k8s-app") == "kube-dns"]
    if not pods:
        if cluster.has_read("pods") and cluster.find("services", "kube-dns", namespace) is None:
            yield bad("dns", "there is no DNS in kube-system", "install CoreDNS")
        return
    if any(is_true(pod, "Ready") for pod in pods):
        yield good("dns", "the cluster's DNS runs")


def check_system(cluster: Cluster) -> Iterator[Finding]:
    """Kubernetes' own pods run."""
    yield from check_workloads(cluster, cluster.layout.system, "system")


def check_storage_class(cluster: Cluster) -> Iterator[Finding]:
    """There is a default StorageClass."""
    if not cluster.has_read("storageclasses"):
        return
    classes = cluster.every("storageclasses")
    default = [
        name_of(one)
        for one in classes
        if (one["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
    ]
    if default:
        yield good("storage-class", f"the default StorageClass is {', '.join(default)}")
        return
    names = ", ".join(name_of(one) for one in classes) or "none"
    yield bad(
        "storage-class",
        f"there is no default StorageClass (StorageClasses: {names}): volume claims stay pending",
        f'kubectl annotate storageclass NAME {_DEFAULT_CLASS}=true, or install one (kind brings "standard")',
    )


def check_claims(cluster: Cluster) -> Iterator[Finding]:
    """Volume claims are bound."""
    claims = cluster.every("persistentvolumeclaims")
    bound = 0
    for claim in claims:
        phase = (claim.get("status") or {}).get("phase")
        if phase == "Bound":
            bound += 1
            continue
        created = read_time(claim["metadata"].get("creationTimestamp")) or cluster.taken
        events = cluster.find_events("PersistentVolumeClaim", name_of(claim), namespace_of(claim))
        # A class that binds late says so in an event of type Normal.
        said = [one.get("message", "") for one in events]
        waits = _waits_for_consumer(cluster, claim.get("spec", {}).get("storageClassName"))
        if not said and (waits or (cluster.taken - created).total_seconds() < _CLAIM_SECONDS):
            continue
        wanted = claim.get("spec", {}).get("storageClassName")
        missing = wanted and cluster.find("storageclasses", wanted) is None
        why = f"there is no StorageClass {wanted}" if missing else (said or ["no provisioner acts on it"])[-1]
        if not wanted and not said:
            why = "it names no StorageClass and there is no default"
        yield bad(
            "claims",
            f"volume claim {path_of(claim)} is {str(phase).lower()}: {shorten(why, 200)}",
            "make the StorageClass, or look at its provisioner's pods; "
            "a claim's class cannot be changed: delete and apply again",
        )
    if claims and bound == len(claims):
        yield good("claims", f"all volume claims are bound ({bound})")


def check_quotas(cluster: Cluster) -> Iterator[Finding]:
    """Quotas leave room."""
    for quota in cluster.every("resourcequotas"):
        status = quota.get("status") or {}
        for what, limit in (status.get("hard") or {}).items():
            used = (status.get("used") or {}).get(what, "0")
            if read_quantity(limit) > 0 and read_quantity(used) >= 0.95 * read_quantity(limit):
                yield warn(
                    "quotas",
                    f"quota {path_of(quota)} is nearly used up: {what} {used} of {limit}",
                    "raise it before the next roll-out: a canary needs room beside the stable model",
                )


def _waits_for_consumer(cluster: Cluster, name: str | None) -> bool:
    found = cluster.find("storageclasses", name) if name else None
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"
