"""`make cluster-check` and `tenure doctor --pre` say the same of a machine, and go by the versions' file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from console.doctor import machine as doctor
from console.doctor import need
from console.doctor.finding import Mark, examine
from console.doctor.laptop import BEFORE_KIND
from console.doctor.machine import Tool
from installer.checks import Machine, judge_machine
from installer.options import ROOT, read_options, read_versions

GIB = need.GIB
FIT = Machine(
    docker="29.0.1",
    docker_error="",
    kind="v0.33.0",
    kubectl="v1.34.1",
    memory=16 * GIB,
    cpus=8,
    disk=100 * GIB,
    watches=need.INOTIFY_WATCHES,
    instances=need.INOTIFY_INSTANCES,
    cluster_exists=False,
    port_free=True,
)


def ask_installer(machine: Machine, pipelines: bool) -> str:
    options = read_options({} if pipelines else {"WITH_KFP": "no"}, read_versions())
    levels = {one.level for one in judge_machine(machine, options)}
    return "problem" if "problem" in levels else "warning" if "warning" in levels else "ok"


def ask_doctor(machine: Machine, pipelines: bool) -> str:
    tools = {"docker": machine.docker, "kind": machine.kind, "kubectl": machine.kubectl}
    seen = doctor.Machine(
        python=(3, 11, 7),
        home="/home/ada/.tenure",
        free=GIB,
        tools={
            name: Tool(path=f"/bin/{name}", version=version.removeprefix("v")) if version else Tool()
            for name, version in tools.items()
        },
        docker={"MemTotal": machine.memory, "NCPU": machine.cpus},
        room=machine.disk,
        inotify=(machine.instances or 0, machine.watches or 0),
        cluster=machine.cluster_exists,
        pipelines=pipelines,
        port_free=machine.port_free,
    )
    marks = {finding.mark for section in examine(BEFORE_KIND, seen) for finding in section.findings}
    if Mark.BAD in marks:
        return "problem"
    return "warning" if marks & {Mark.WARNING, Mark.UNKNOWN} else "ok"


@pytest.mark.parametrize("pipelines", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"docker": None},
        {"docker": "19.3.1"},
        {"kind": None},
        {"kind": "v0.30.0"},
        {"kubectl": None},
        {"kubectl": "v1.31.0"},
        {"memory": 4 * GIB},
        {"memory": 6 * GIB},
        {"memory": int(7.8 * GIB)},
        {"cpus": 2},
        {"disk": 20 * GIB},
        {"disk": 20 * GIB, "cluster_exists": True},
        {"disk": 29 * GIB + GIB // 2},
        {"disk": None},
        {"watches": 8192},
        {"instances": 128},
        {"port_free": False},
        {"port_free": False, "cluster_exists": True},
    ],
)
def test_both_say_the_same(change: dict[str, Any], pipelines: bool) -> None:
    machine = replace(FIT, **change)
    assert ask_installer(machine, pipelines) == ask_doctor(machine, pipelines)


def test_the_numbers_are_those_of_the_files() -> None:
    assert read_versions()["KIND_VERSION"].startswith("v{}.{}.".format(*need.KIND))
    kind = yaml.safe_load((ROOT / "kind-cluster" / "kind.yaml").read_text())
    [mapping] = kind["nodes"][0]["extraPortMappings"]
    assert mapping["hostPort"] == need.GATEWAY_PORT
