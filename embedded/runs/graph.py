"""The steps of a compiled pipeline, read from its IR without kfp.

A step's path names the tasks on the way to it: `("condition-1", "rollout")`. In a ParallelFor the executor's
paths carry the iteration, `("for-loop-2-iteration-0", "train")`, where the IR's say `("for-loop-2",
"train")`.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from embedded.runs.errors import BadRequestError

Path = tuple[str, ...]

_ITERATION = re.compile(r"(?P<loop>.+)-iteration-(?P<number>\d+)")


@dataclass(frozen=True)
class Step:
    """One task that runs a component; groups (If, ParallelFor, nested pipelines) are only in its path."""

    path: Path
    name: str
    component: str


@dataclass(frozen=True)
class Task:
    """Any task of the IR: its path, its own document and its component's."""

    path: Path
    document: Mapping[str, Any]
    component: str
    component_document: Mapping[str, Any]


def list_steps(spec: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps in an order in which they can run.

    Names are the tasks' display names; where two share one, the path instead.

    Raises:
        BadRequestError: The IR is broken; the text says where.
    """
    tasks = [task for task in walk_tasks(spec) if "dag" not in task.component_document]
    names = [_display_name(task) for task in tasks]
    counts = Counter(names)
    return tuple(
        Step(task.path, name if counts[name] == 1 else "/".join(task.path), task.component)
        for task, name in zip(tasks, names, strict=True)
    )


def walk_tasks(spec: Mapping[str, Any]) -> Iterator[Task]:
    """Yield every task of the pipeline, groups before what is in them, dependencies before dependents.

    Raises:
        BadRequestError: The IR is broken; the text says where.
    """
    components = _read_mapping(spec, "components", "the pipeline", optional=True)
    root = _read_mapping(spec, "root", "the pipeline")
    yield from _walk_dag(root, (), (), components)


def canonical_path(path: Path) -> Path:
    """Return the IR's path of a step that the executor reported, without iterations."""
    return tuple(match["loop"] if (match := _ITERATION.fullmatch(part)) else part for part in path)


def iteration_of(path: Path) -> tuple[int, ...]:
    """Return the numbers of the ParallelFor iterations that a reported path lies in, outermost first."""
    return tuple(int(match["number"]) for part in path if (match := _ITERATION.fullmatch(part)))


def task_id(run_id: str, path: Path) -> str:
    """Return the id of a step, the same before, during and after the run."""
    return str(uuid.uuid5(uuid.UUID(run_id), "/".join(path)))


def _walk_dag(
    component: Mapping[str, Any], prefix: Path, stack: Path, components: Mapping[str, Any]
) -> Iterator[Task]:
    place = f"component {stack[-1]!r}" if stack else "the pipeline's root"
    dag = _read_mapping(component, "dag", place)
    tasks = _read_mapping(dag, "tasks", place)
    for key in _sort_tasks(tasks, place):
        task = tasks[key]
        where = f"task {'/'.join((*prefix, key))!r}"
        name = _read_mapping(task, "componentRef", where).get("name")
        if not isinstance(name, str) or not isinstance(components.get(name), Mapping):
            raise BadRequestError(f"{where} refers to component {name!r}, which the pipeline does not have")
        if name in stack:
            raise BadRequestError(f"component {name!r} contains itself; a pipeline must be free of cycles")
        found = Task((*prefix, key), task, name, components[name])
        yield found
        if "dag" in found.component_document:
            yield from _walk_dag(found.component_document, found.path, (*stack, name), components)


def _sort_tasks(tasks: Mapping[str, Any], place: str) -> list[str]:
    """Sort topologically as kfp.local does: by depth first over sorted dependencies."""
    order: list[str] = []
    open_tasks: set[str] = set()

    def visit(key: str) -> None:
        if key in order:
            return
        if key in open_tasks:
            raise BadRequestError(f"the tasks of {place} depend on each other in a circle at {key!r}")
        if not isinstance(tasks[key], Mapping):
            raise BadRequestError(f"task {key!r} of {place} must be an object")
        open_tasks.add(key)
        wanted = tasks[key].get("dependentTasks") or []
        for needed in sorted(map(str, wanted if isinstance(wanted, list) else [wanted])):
            if needed not in tasks:
                raise BadRequestError(f"task {key!r} of {place} depends on {needed!r}, which is not there")
            visit(needed)
        order.append(key)

    for key in tasks:
        visit(key)
    return order


def _display_name(task: Task) -> str:
    info = task.document.get("taskInfo")
    name = info.get("name") if isinstance(info, Mapping) else None
    return name if isinstance(name, str) and name else task.path[-1]


def _read_mapping(
    document: Mapping[str, Any], key: str, place: str, optional: bool = False
) -> Mapping[str, Any]:
    value = document.get(key, {} if optional else None)
    if not isinstance(value, Mapping):
        raise BadRequestError(
            f"{place} has no {key!r}; submit the YAML that `kfp dsl compile` writes (schema 2.1)"
        )
    return value
