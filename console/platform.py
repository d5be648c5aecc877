"""The laptop platform's commands. It is another room: it is started as a process, never imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Annotated, Any

import typer

from clients.errors import ClientError
from clients.names import PROJECT_LABEL, route_name
from clients.runs import Runs
from clients.services import Services
from console import display
from console.context import Remote, get_remote, open_settings, refuse_remote
from console.errors import NOT_RUNNING, ConsoleError
from console.options import Json
from console.rollout import describe_service
from console.training import PIPELINE
from console.workloads import describe_workloads, print_logs, print_workloads


def call_platform(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `python -m embedded ARGUMENTS` with this interpreter; its messages go to this terminal."""
    return subprocess.run(
        [sys.executable, "-m", "embedded", *arguments],
        check=False,
        text=True,
        stdout=subprocess.PIPE if capture else None,
    )


def up() -> None:
    """Start everything here: object store, MLflow, gateway, Kubernetes and runs APIs, detector, pilot.

    Starts what does not run, leaves what does. Uploads the training pipeline, which drift and schedules run,
    unless it is the newest there. State is kept in .tenure/ (TENURE_HOME).
    """
    refuse_remote("up", "`make up CLUSTER=existing` installs Tenure on a cluster")
    code = call_platform("up").returncode
    if code:
        raise typer.Exit(code)
    version = Runs.connect(open_settings("runs")).upload(PIPELINE)
    display.err.print(f"the training pipeline is version {version.name}")


def down() -> None:
    """Stop everything that `up` started; state stays in .tenure/, no process is left."""
    refuse_remote("down", "`make cluster-down` ends a kind cluster")
    code = call_platform("down").returncode
    if code:
        raise typer.Exit(code)


def env() -> None:
    """Print the addresses as shell exports: eval "$(tenure env)".

    Afterwards kubectl, kfp, mlflow and any S3 client talk to this platform.
    """
    refuse_remote("env", "its addresses are reached only while a command runs; `kubectl port-forward` lasts")
    code = call_platform("env").returncode
    if code:
        raise typer.Exit(code)


def status(as_json: Json = False) -> None:
    """Show what runs: the platform's processes, the models that serve, the newest runs.

    The exit code is 4 when a service of the platform does not run. Model servers come and go with
    roll-outs: how they are is said of the model, not by the exit code. On a cluster Deployments and
    StatefulSets take the place of processes.
    """
    remote = get_remote()
    if remote is not None:
        _show_cluster(remote, as_json)
        return
    answer = call_platform("status", "--json", capture=True)
    if not answer.stdout.strip():
        raise ConsoleError("nothing runs here; start it with `tenure up`", NOT_RUNNING)
    processes: list[dict[str, Any]] = _read_processes(answer.stdout)
    running = all(process["ready"] for process in processes if process["kind"] == "service")
    services, runs = (_list_services(), _list_runs()) if running else ([], [])
    if as_json:
        display.print_json({"processes": processes, "services": services, "runs": runs})
    else:
        _print_status(processes, services, runs)
    if not running:
        raise typer.Exit(NOT_RUNNING)


def logs(
    name: Annotated[
        str | None, typer.Argument(help="A process of `tenure status`, or a run's id. Without it: the names.")
    ] = None,
    step: Annotated[str | None, typer.Argument(help="Of a run: only this step.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
) -> None:
    """Print the log of a process or of a run."""
    remote = get_remote()
    if remote is not None:
        _show_cluster_log(remote, name, step, follow)
        return
    if name is None:
        answer = call_platform("status", "--json", capture=True)
        for process in _read_processes(answer.stdout):
            display.out.print(process["name"])
        return
    if _is_run(name):
        _print_run_log(Runs.connect(open_settings("runs")), name, step)
        return
    code = call_platform("logs", name, *(["-f"] if follow else [])).returncode
    if code:
        raise typer.Exit(code)


def _show_cluster(remote: Remote, as_json: bool) -> None:
    """Show what runs on a cluster; a part that cannot be had is told of, and the rest is shown."""
    workloads = describe_workloads(remote)
    services = _list_services()
    runs, problem = [], None
    try:
        runs = _list_runs()
    except (ClientError, ConsoleError) as error:
        problem = str(error)
    if as_json:
        document = {"context": remote.context, "processes": workloads, "services": services, "runs": runs}
        display.print_json({**document, "problem": problem})
    else:
        print_workloads(workloads)
        _print_models(services, runs)
        if problem is not None:
            display.err.print(f"the runs cannot be shown: {problem}", markup=False)
    if not workloads or any(one["kind"] == "service" and not one["ready"] for one in workloads):
        raise typer.Exit(NOT_RUNNING)


def _show_cluster_log(remote: Remote, name: str | None, step: str | None, follow: bool) -> None:
    if name is None:
        for one in remote.cluster.list_workloads(remote.namespace):
            display.out.print(one.name)
    elif _is_run(name):
        _print_run_log(Runs.connect(open_settings("runs")), name, step)
    else:
        print_logs(remote, name, follow)


def _is_run(name: str) -> bool:
    """Say whether this is the id of a run: a UUID."""
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name) is not None


def _print_run_log(runs: Runs, run_id: str, step: str | None) -> None:
    steps = [step] if step else [one.name for one in runs.get(run_id).steps if one.started is not None]
    for name in steps:
        if len(steps) > 1:
            display.out.rule(name, align="left")
        display.out.print(runs.log(run_id, name), markup=False)


def _read_processes(text: str) -> list[dict[str, Any]]:
    if not text.strip():
        raise ConsoleError("nothing runs here; start it with `tenure up`", NOT_RUNNING)
    document = json.loads(text)
    return list(document["services"] if isinstance(document, dict) else document)


def _list_services() -> list[dict[str, Any]]:
    cluster = Services.connect(open_settings())
    ours = (
        service
        for service in cluster.inference.list()
        if PROJECT_LABEL in service["metadata"].get("labels", {})
    )
    found = [(service, cluster.routes.find(route_name(service["metadata"]["name"]))) for service in ours]
    return [describe_service(service, route).model_dump(mode="json") for service, route in found]


def _list_runs() -> list[dict[str, Any]]:
    runs = Runs.connect(open_settings("runs")).list(limit=5)
    return [{"id": run.id, "name": run.name, "state": run.state, "created": run.created} for run in runs]


def _print_status(
    processes: list[dict[str, Any]], services: list[dict[str, Any]], runs: list[dict[str, Any]]
) -> None:
    rows = [(one["name"], one["state"], one.get("pid") or "", one.get("address") or "") for one in processes]
    display.out.print(display.build_table(("PROCESS", "STATE", "PID", "ADDRESS"), rows, right=(2,)))
    _print_models(services, runs)


def _print_models(services: list[dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    variants = [
        (service["name"], variant["name"], variant["version"], f"{variant['weight']} %", variant["ready"])
        for service in services
        for variant in service["variants"]
    ]
    if variants:
        header = ("SERVICE", "VARIANT", "VERSION", "TRAFFIC", "READY")
        display.out.print()
        display.out.print(display.build_table(header, variants, right=(3,)))
    if runs:
        lines = [(run["id"], run["name"], display.style_state(run["state"])) for run in runs]
        display.out.print()
        display.out.print(display.build_table(("RUN", "NAME", "STATE"), lines))
