"""Who runs on a cluster, where a laptop has processes: Deployments and StatefulSets, and their logs."""

from __future__ import annotations

import subprocess
from typing import Any

from clients.cluster import Workload
from console import display
from console.context import Remote
from console.errors import BAD_INPUT, FAILED, ConsoleError
from console.tunnel import make_command

_PREFIX = "tenure-"
_PODS_AT_ONCE = 50


def describe_workloads(remote: Remote) -> list[dict[str, Any]]:
    """Return what runs in the namespace of Tenure, as `tenure status --json` tells of processes."""
    return [
        {
            "name": one.name,
            "kind": "model" if one.model else "service",
            "state": f"{one.ready} of {one.wanted} ready",
            "ready": one.is_ready,
            "problem": one.reason or None,
            "address": "",
        }
        for one in remote.cluster.list_workloads(remote.namespace)
    ]


def print_logs(remote: Remote, name: str, follow: bool) -> None:
    """Print the logs of all pods of a workload, each line with its pod's name.

    Raises:
        ConsoleError: There is none of this name, or kubectl cannot read them.
    """
    workload = find_workload(remote.cluster.list_workloads(remote.namespace), name)
    selector = ",".join(f"{key}={value}" for key, value in workload.selector.items())
    command = [
        *make_command(remote.kubeconfig, remote.context),
        *("--namespace", remote.namespace, "logs", "--selector", selector, "--prefix", "--tail=-1"),
        *("--all-containers", f"--max-log-requests={_PODS_AT_ONCE}", *(["--follow"] if follow else [])),
    ]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ConsoleError(
            f"kubectl ended with {code}: it could not read the logs of {workload.name}", FAILED
        )


def find_workload(workloads: list[Workload], name: str) -> Workload:
    """Return the workload of this name; `detector` is `tenure-detector`.

    Raises:
        ConsoleError: There is none; the text has those that there are.
    """
    for one in workloads:
        if one.name in (name, _PREFIX + name):
            return one
    known = ", ".join(one.name for one in workloads) or "none"
    raise ConsoleError(f"nothing here is called {name!r}; there are: {known}", BAD_INPUT)


def print_workloads(workloads: list[dict[str, Any]]) -> None:
    """Print who is ready, and why who is not."""
    rows = [
        (one["name"], one["state"], "yes" if one["ready"] else "no", one["problem"] or "")
        for one in workloads
    ]
    display.out.print(display.build_table(("WORKLOAD", "REPLICAS", "READY", ""), rows))
