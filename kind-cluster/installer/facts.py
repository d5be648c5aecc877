"""Gathers the facts that `checks` judges."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from console.doctor.machine import is_free
from console.doctor.need import GATEWAY_PORT
from installer.checks import Cluster, Machine
from installer.errors import ProgramError
from installer.kubectl import MANAGER, Kubectl
from installer.options import PIPELINES_NAMESPACE, Options
from installer.program import Programs, Result


def observe_machine(programs: Programs, options: Options) -> Machine:
    """Look at Docker, kind and the kernel."""
    docker = _try(programs, "docker", "info", "--format", "{{json .}}")
    answer = json.loads(docker.out) if docker.ok and docker.out.strip().startswith("{") else {}
    kind = _try(programs, "kind", "version")
    clusters = _try(programs, "kind", "get", "clusters")
    root = answer.get("DockerRootDir")
    return Machine(
        docker=answer.get("ServerVersion") or None,
        docker_error=(docker.err or " ".join(answer.get("ServerErrors") or [])).strip(),
        kind=kind.out.split()[1] if kind.ok and len(kind.out.split()) > 1 else None,
        kubectl=read_kubectl_version(programs, find_kubectl(programs)),
        memory=answer.get("MemTotal") or None,
        cpus=answer.get("NCPU") or None,
        disk=shutil.disk_usage(root).free if root and Path(root).is_dir() else None,
        watches=_read_number("/proc/sys/fs/inotify/max_user_watches"),
        instances=_read_number("/proc/sys/fs/inotify/max_user_instances"),
        cluster_exists=options.name in clusters.out.split(),
        port_free=is_free(GATEWAY_PORT),
    )


def observe_cluster(programs: Programs, kubectl: Kubectl, options: Options) -> Cluster:
    """Look at an existing cluster."""
    version = kubectl.run("version", "-o", "json", timeout=30)
    answer = json.loads(version.out) if version.out.strip().startswith("{") else {}
    server = answer.get("serverVersion", {}).get("gitVersion")
    client = answer.get("clientVersion", {}).get("gitVersion")
    if server is None:
        reason = (version.err.strip().splitlines() or [""])[-1]
        return Cluster(client, None, reason, False, False, frozenset(), frozenset(), False, False)
    types = kubectl.list("customresourcedefinitions")
    namespace, _, name = options.gateway.partition("/")
    return Cluster(
        kubectl=client,
        server=server,
        error="",
        administrator=kubectl.run("auth", "can-i", "*", "*", "--all-namespaces").out.strip() == "yes",
        default_storage=any(
            one["metadata"].get("annotations", {}).get("storageclass.kubernetes.io/is-default-class")
            == "true"
            for one in kubectl.list("storageclasses")
        ),
        types=frozenset(one["metadata"]["name"] for one in types),
        owned=frozenset(
            one["metadata"]["name"]
            for one in types
            if one["metadata"].get("labels", {}).get("tenure.dev/installed-by") == MANAGER
        ),
        gateway_there=kubectl.get("gateways.gateway.networking.k8s.io", name, namespace) is not None,
        pipelines_there=kubectl.get("service", "ml-pipeline", PIPELINES_NAMESPACE) is not None,
    )


def find_kubectl(programs: Programs) -> str | None:
    """Return kubectl from the PATH, or the development environment's."""
    beside = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "kubectl"
    return programs.find("kubectl") or (str(beside) if beside.is_file() else None)


def read_kubectl_version(programs: Programs, binary: str | None) -> str | None:
    """Return kubectl's own version."""
    if binary is None:
        return None
    result = programs.run([binary, "version", "--client", "-o", "json"])
    return json.loads(result.out)["clientVersion"]["gitVersion"] if result.ok else None


def _try(programs: Programs, *arguments: str) -> Result:
    try:
        return programs.run(arguments, timeout=30)
    except ProgramError as error:
        return Result(127, "", str(error))


def _read_number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None  # not Linux: Docker's own machine has the limits
