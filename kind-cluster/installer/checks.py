"""What must be so before anything is installed. Facts are gathered elsewhere; here they are judged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from console.doctor import need
from console.doctor.need import GIB
from installer.options import SWITCHES, TITLES, Options

Level = Literal["ok", "warning", "problem"]
SIGNS = {"ok": "√", "warning": "‼", "problem": "×"}

TYPES = {
    "GATEWAY_API": ("httproutes.gateway.networking.k8s.io", "gateways.gateway.networking.k8s.io"),
    "ENVOY_GATEWAY": ("envoyproxies.gateway.envoyproxy.io",),
    "CERT_MANAGER": ("certificates.cert-manager.io",),
    "KSERVE": ("inferenceservices.serving.kserve.io", "servingruntimes.serving.kserve.io"),
    "KFP": ("workflows.argoproj.io",),
}
"""Types by which a piece is known to be there."""


@dataclass(frozen=True)
class Finding:
    """One judged fact."""

    level: Level
    text: str
    fix: str = ""

    def show(self) -> str:
        """Return it as printed: a sign, the fact, and below it what to do."""
        line = f"{SIGNS[self.level]} {self.text}"
        return f"{line}\n    {self.fix}" if self.fix and self.level != "ok" else line


@dataclass(frozen=True)
class Machine:
    """Facts about this machine; None is: could not be found out."""

    docker: str | None
    """Version of the Docker server."""
    docker_error: str
    kind: str | None
    kubectl: str | None
    memory: int | None
    """Bytes that Docker may use."""
    cpus: int | None
    """Processors that Docker may use."""
    disk: int | None
    """Free bytes where Docker keeps images."""
    watches: int | None
    instances: int | None
    cluster_exists: bool
    port_free: bool
    """Whether the gateway's port can be had."""


@dataclass(frozen=True)
class Cluster:
    """Facts about an existing cluster."""

    kubectl: str | None
    server: str | None
    """Its version."""
    error: str
    administrator: bool
    default_storage: bool
    types: frozenset[str]
    """Names of its custom resource types."""
    owned: frozenset[str]
    """Those of them that an earlier `make up` installed."""
    gateway_there: bool
    pipelines_there: bool


def judge_machine(facts: Machine, options: Options) -> list[Finding]:
    """Judge whether a kind cluster can live on this machine."""
    found = [_judge_docker(facts), _judge_kind(facts, options), _judge_kubectl(facts.kubectl)]
    found.append(
        _judge_amount(
            "memory for Docker",
            facts.memory,
            need.MEMORY[options.installs("KFP")],
            "Give Docker more memory (Docker Desktop: Settings, Resources), or leave Kubeflow Pipelines "
            "out: WITH_KFP=no",
            need.MEMORY_SHORTFALL,
        )
    )
    if facts.cpus is not None and facts.cpus < need.CPUS:
        found.append(
            Finding(
                "warning",
                f"processors for Docker: {facts.cpus}; with fewer than {need.CPUS} an install takes long",
                "Give Docker more, or be patient: TIMEOUT=1800",
            )
        )
    found.append(
        _judge_amount(
            "free disk for images",
            facts.disk,
            need.DISK[facts.cluster_exists],
            "Free some, e.g. docker image prune",
        )
    )
    for name, value, needed in (
        ("max_user_watches", facts.watches, need.INOTIFY_WATCHES),
        ("max_user_instances", facts.instances, need.INOTIFY_INSTANCES),
    ):
        if value is not None and value < needed:
            setting = f"fs.inotify.{name}={needed}"
            found.append(
                Finding(
                    "problem",
                    f"fs.inotify.{name} is {value}: pods will fail with 'too many open files'",
                    f"sudo sysctl {setting} && echo {setting} | sudo tee -a /etc/sysctl.d/99-kind.conf",
                )
            )
        elif value is not None:
            found.append(Finding("ok", f"fs.inotify.{name} is {value}"))
    if not facts.cluster_exists and not facts.port_free:
        found.append(
            Finding(
                "problem",
                f"port 127.0.0.1:{need.GATEWAY_PORT}, meant for the gateway, is taken",
                f"End what listens there (ss -ltnp 'sport = :{need.GATEWAY_PORT}'), or change hostPort in "
                "kind-cluster/kind.yaml",
            )
        )
    return found


def judge_cluster(facts: Cluster, options: Options, image_names: int = 6) -> list[Finding]:
    """Judge whether an existing cluster can take Tenure in."""
    found = [_judge_kubectl(facts.kubectl)]
    if facts.server is None:
        found.append(
            Finding(
                "problem",
                f"the cluster does not answer: {facts.error or 'no reason given'}",
                "Is it the right one? kubectl config get-contexts; say CONTEXT=NAME or KUBECONFIG=FILE",
            )
        )
        return found
    version = _parse(facts.server)
    if version < need.KUBERNETES:
        wanted = _show(need.KUBERNETES)
        found.append(
            Finding(
                "problem", f"Kubernetes {facts.server} is too old", f"KServe needs {wanted} or newer: upgrade"
            )
        )
    else:
        found.append(Finding("ok", f"Kubernetes {facts.server}"))
    if facts.administrator:
        found.append(Finding("ok", "the account may do everything"))
    else:
        found.append(
            Finding(
                "problem",
                "the account may not do everything in this cluster",
                "Installing creates namespaces, types and roles: use a cluster administrator's kubeconfig",
            )
        )
    if facts.default_storage:
        found.append(Finding("ok", "there is a default StorageClass"))
    else:
        found.append(
            Finding(
                "problem",
                "there is no default StorageClass: the databases would wait for a volume for ever",
                "kubectl annotate storageclass NAME storageclass.kubernetes.io/is-default-class=true",
            )
        )
    found += [_judge_piece(switch, facts, options) for switch in SWITCHES]
    if not options.installs("ENVOY_GATEWAY") and not facts.gateway_there:
        found.append(
            Finding(
                "problem",
                f"there is no Gateway {options.gateway}",
                "Say GATEWAY=NAMESPACE/NAME of the one that KServe uses: kubectl get gateways -A",
            )
        )
    if not options.registry and not options.image_load:
        found.append(
            Finding(
                "problem",
                f"the nodes have no way to our {image_names} images",
                "Say REGISTRY=registry.example.com/team (they are pushed there), or IMAGE_LOAD=COMMAND that "
                "hands an image to the nodes",
            )
        )
    return found


def _judge_docker(facts: Machine) -> Finding:
    if facts.docker is None:
        return Finding(
            "problem",
            f"Docker does not answer: {facts.docker_error or 'it is not installed'}",
            "Install it (https://docs.docker.com/engine/install), start it, and be in its group: "
            "sudo usermod -aG docker $USER, then log in anew",
        )
    if _parse(facts.docker) < need.DOCKER:
        return Finding("problem", f"Docker {facts.docker} is older than {_show(need.DOCKER)}", "Upgrade it")
    return Finding("ok", f"Docker {facts.docker}")


def _judge_kind(facts: Machine, options: Options) -> Finding:
    pinned = options.versions["KIND_VERSION"]
    fix = f"go install sigs.k8s.io/kind@{pinned}, or https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
    if facts.kind is None:
        return Finding("problem", "kind is not installed", fix)
    if _parse(facts.kind) != _parse(pinned):
        return Finding(
            "warning", f"kind {facts.kind}; the node's image is made for {pinned} and may not start", fix
        )
    return Finding("ok", f"kind {facts.kind}")


def _judge_kubectl(version: str | None) -> Finding:
    fix = "https://kubernetes.io/docs/tasks/tools, or `make environment-dev`, whose environment has one"
    if version is None:
        return Finding("problem", "kubectl is not installed", fix)
    if _parse(version) < need.KUBECTL:
        return Finding("problem", f"kubectl {version} is older than {_show(need.KUBECTL)}", fix)
    return Finding("ok", f"kubectl {version}")


def _judge_amount(what: str, value: int | None, needed: int, fix: str, share: float = 1) -> Finding:
    if value is None:
        return Finding("warning", f"{what}: unknown; {needed / GIB:.0f} GiB are needed")
    if value < needed * share:
        return Finding("problem", f"{what}: {value / GIB:.1f} GiB, needed are {needed / GIB:.0f}", fix)
    return Finding("ok", f"{what}: {value / GIB:.1f} GiB")


def _judge_piece(switch: str, facts: Cluster, options: Options) -> Finding:
    types = TYPES[switch]
    there = [name for name in types if name in facts.types]
    missing = [name for name in types if name not in facts.types]
    label = TITLES[switch]
    if options.installs(switch):
        foreign = [name for name in there if name not in facts.owned]
        if foreign:
            return Finding(
                "problem",
                f"{label} is there already ({foreign[0]}), and not from here: two would fight",
                f"Use it: WITH_{switch}=no. Or remove it first",
            )
        return Finding("ok", f"{label}: will be installed" if not there else f"{label}: installed from here")
    if switch == "CERT_MANAGER" and missing and options.installs("KSERVE"):
        return Finding(
            "problem",
            f"{label} is not there ({missing[0]}), and KServe, which is to be installed, needs it",
            "WITH_CERT_MANAGER=yes installs it, as pinned",
        )
    if switch in ("CERT_MANAGER", "KFP"):  # Tenure itself does without
        if switch == "KFP" and not facts.pipelines_there:
            return Finding(
                "warning",
                "no Kubeflow Pipelines in this cluster: models can be served, but no run started",
                "WITH_KFP=yes installs it; RUNS_URL names one elsewhere",
            )
        return Finding("ok", f"{label}: left to the cluster")
    if missing:
        return Finding(
            "problem", f"{label} is not there ({missing[0]})", f"WITH_{switch}=yes installs it, as pinned"
        )
    return Finding("ok", f"{label}: there")


def _show(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _parse(version: str) -> tuple[int, int]:
    matched = re.search(r"(\d+)\.(\d+)", version)
    return (int(matched[1]), int(matched[2])) if matched else (0, 0)
