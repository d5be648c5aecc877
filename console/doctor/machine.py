"""One look at this machine: what Tenure needs of it, and what runs here."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import BaseModel

from clients.settings import find_env_file
from console.doctor.need import GATEWAY_PORT
from console.doctor.observation import Answer

_PATIENCE = 20.0


class Tool(BaseModel):
    """A program that an install needs.

    Attributes:
        path: Where it is, None when it is not there.
        version: What it says of itself.
        problem: Why it cannot be used.
    """

    path: str | None = None
    version: str = ""
    problem: str | None = None


class Process(BaseModel):
    """A process of the platform, as `python -m embedded status` tells it."""

    name: str
    kind: str
    ready: bool
    state: str
    problem: str | None = None
    restarts: int = 0


class Machine(BaseModel):
    """A machine at one moment.

    Attributes:
        python: Version of the interpreter.
        home: Where the platform keeps its state.
        exists: Whether there is a platform there.
        processes: Its processes, None when that cannot be told.
        problem: Why it cannot be told.
        free: Bytes free on the disk of `home`.
        memory: Bytes of memory available, None where the system does not say.
        inotify: The kernel's limits (instances, watches), None where there are none.
        overrides: Variables of the environment that differ from the platform's own.
        ahead: Seconds that files of the platform lie in the future.
        tools: Programs that a cluster's install needs.
        docker: What `docker info` says.
        room: Bytes free where Docker keeps images, None when that cannot be seen from here.
        pipelines: Whether Kubeflow Pipelines is to be installed too (WITH_KFP).
        cluster: Whether the kind cluster (NAME) is there.
        port_free: Whether the kind cluster's gateway can have its port.
        answers: What the addresses said.
    """

    python: tuple[int, int, int]
    home: str
    exists: bool = False
    processes: list[Process] | None = None
    problem: str | None = None
    free: int
    memory: int | None = None
    inotify: tuple[int, int] | None = None
    overrides: list[str] = []
    ahead: float = 0.0
    tools: dict[str, Tool] = {}
    docker: dict[str, Any] = {}
    room: int | None = None
    pipelines: bool = True
    cluster: bool = False
    port_free: bool = True
    answers: dict[str, Answer] = {}


def observe(*, tools: bool = False) -> Machine:
    """Look at this machine once; this never fails.

    Args:
        tools: Look for docker, kind and kubectl too.
    """
    home = find_env_file().absolute().parent
    machine = Machine(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        home=str(home),
        exists=(home / "platform.json").is_file(),
        free=shutil.disk_usage(_find_existing(home)).free,
        memory=_read_memory(),
        inotify=_read_inotify(),
        overrides=_find_overrides(),
    )
    if tools:
        machine.tools = {name: _look_for(*command) for name, command in _TOOLS.items()}
        machine.docker = _ask_docker(machine.tools["docker"])
        root = machine.docker.get("DockerRootDir")
        machine.room = shutil.disk_usage(root).free if root and Path(root).is_dir() else None
        machine.pipelines = os.environ.get("WITH_KFP") != "no"
        machine.cluster = _has_cluster(machine.tools["kind"], os.environ.get("NAME") or "tenure")
        machine.port_free = is_free(GATEWAY_PORT)
    elif machine.exists:
        machine.ahead = _measure_future(home)
        machine.processes, machine.problem = _list_processes()
    return machine


_TOOLS: dict[str, Sequence[str]] = {
    "docker": ("docker", "version", "--format", "{{.Server.Version}}"),
    "kind": ("kind", "version"),
    "kubectl": ("kubectl", "version", "--client", "-o", "json"),
}


def _look_for(*command: str) -> Tool:
    own = Path(sys.executable).parent / command[0]
    path = shutil.which(command[0]) or (str(own) if own.is_file() else None)
    if path is None:
        return Tool()
    code, out, err = _run(path, *command[1:])
    if code:
        return Tool(path=path, problem=(err or out).strip().splitlines()[-1] if (err or out).strip() else "?")
    found = re.search(r"v?(\d+\.\d+(?:\.\d+)?)", out)
    return Tool(path=path, version=found[1] if found else out.strip())


def _ask_docker(tool: Tool) -> dict[str, Any]:
    if tool.path is None or tool.problem:
        return {}
    code, out, _ = _run(tool.path, "info", "--format", "{{json .}}")
    try:
        document = json.loads(out) if code == 0 else {}
    except ValueError:
        return {}
    return {key: document.get(key) for key in ("MemTotal", "NCPU", "DockerRootDir")}


def _has_cluster(tool: Tool, name: str) -> bool:
    return tool.path is not None and name in _run(tool.path, "get", "clusters")[1].split()


def is_free(port: int) -> bool:
    """Say whether a port of the loopback interface can be had."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _run(*command: str) -> tuple[int, str, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return 1, "", f"{command[0]} says nothing for {_PATIENCE:.0f} s"
    except OSError as error:
        return 1, "", str(error)
    return done.returncode, done.stdout, done.stderr


def _list_processes() -> tuple[list[Process] | None, str | None]:
    code, out, err = _run(sys.executable, "-m", "embedded", "status", "--json")
    if not out.strip():
        return None, (err.strip() or f"exit code {code}").removeprefix("error: ")
    fields = Process.model_fields
    rows = [
        {key: value for key, value in one.items() if key in fields} for one in json.loads(out)["services"]
    ]
    return [Process.model_validate(row) for row in rows], None


def _find_existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


def _read_memory() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else None


def _read_inotify() -> tuple[int, int] | None:
    if platform.system() != "Linux":
        return None
    folder = Path("/proc/sys/fs/inotify")
    try:
        instances, watches = (
            int((folder / name).read_text(encoding="ascii"))
            for name in ("max_user_instances", "max_user_watches")
        )
    except (OSError, ValueError):
        return None
    return instances, watches


def _find_overrides() -> list[str]:
    """Return the variables that make clients talk to something else than the platform here."""
    file = find_env_file()
    if not file.is_file():
        return []
    ours = dotenv_values(file, interpolate=False, encoding="utf-8")
    return sorted(
        name
        for name, value in ours.items()
        if name.startswith("TENURE_") and os.environ.get(name, value) != value
    )


def _measure_future(home: Path) -> float:
    files = [home / name for name in ("platform.json", "env", "ledger.db")]
    newest = max((one.stat().st_mtime for one in files if one.is_file()), default=0.0)
    return max(0.0, newest - time.time())
