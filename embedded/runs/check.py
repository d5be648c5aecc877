"""What is refused before a run is queued: broken IR, and what the local runner cannot do or does wrongly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embedded.runs.errors import BadRequestError
from embedded.runs.graph import Task, walk_tasks

_EXECUTOR_MODULE = "kfp.dsl.executor_main"
_PIP_INSTALL = re.compile(r"-m pip install|\bpip3? install")
_INPUT = re.compile(r"inputs\.parameter_values\['([^']+)'\]")
_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "STRING": ("a string", (str,)),
    "NUMBER_INTEGER": ("an integer", (int,)),
    "NUMBER_DOUBLE": ("a number", (int, float)),
    "BOOLEAN": ("true or false", (bool,)),
    "LIST": ("a list", (list,)),
    "STRUCT": ("an object", (dict,)),
}
_LONGEST_VALUE = 80


def check_spec(spec: Mapping[str, Any]) -> None:
    """Check that the local runner can run a pipeline, and gives the cluster's result.

    Raises:
        BadRequestError: It cannot; the text names the task and what to change.
    """
    name = _part(spec, "pipelineInfo").get("name")
    if not isinstance(name, str) or not name:
        raise BadRequestError("the pipeline has no pipelineInfo.name; submit what `kfp dsl compile` writes")
    executors = _part(spec, "deploymentSpec", "executors")
    checked = False
    for task in walk_tasks(spec):
        _check_condition(task)
        _check_loop(task)
        if "dag" not in task.component_document:
            _check_executor(task, executors)
            checked = True
    if not checked:
        raise BadRequestError(f"pipeline {name!r} has no step")


def check_parameters(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check a run's parameters against the pipeline's and return those to run with.

    Defaults are left to the runner; null for an optional parameter means that it was not given.

    Raises:
        BadRequestError: Names every unknown, missing or wrongly typed parameter.
    """
    declared = _part(spec, "root", "inputDefinitions", "parameters")
    problems = [
        f"{name!r} is not a parameter (there are: {', '.join(map(repr, declared)) or 'none'})"
        for name in given
        if name not in declared
    ]
    parameters: dict[str, Any] = {}
    for name in declared:
        definition = _part(declared, name)
        value = given.get(name)
        optional = bool(definition.get("isOptional")) or "defaultValue" in definition
        if value is None:
            if not optional:
                problems.append(f"{name!r} is missing")
            continue
        problem = _check_value(definition, value)
        if problem is None:
            parameters[name] = value
        else:
            problems.append(f"{name!r} {problem}")
    if problems:
        raise BadRequestError(
            f"parameters of pipeline {spec['pipelineInfo']['name']!r}: {'; '.join(problems)}"
        )
    return parameters


def _check_value(definition: Mapping[str, Any], value: Any) -> str | None:
    kind = str(definition.get("parameterType"))
    if kind not in _TYPES:
        return f"has the type {kind}, which a run cannot be given"
    wanted, types = _TYPES[kind]
    whole_float = kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer()
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if not fits and not whole_float:
        shown = repr(value)
        if len(shown) > _LONGEST_VALUE:
            shown = shown[:_LONGEST_VALUE] + "..."
        hint = "; in the shell quote it twice: '\"...\"'" if kind == "STRING" else ""
        return f"must be {wanted}, not {shown} ({type(value).__name__}){hint}"
    literals = definition.get("literals")
    if isinstance(literals, list) and literals and value not in literals:
        return f"must be one of {literals}, not {value!r}"
    return None


def _check_executor(task: Task, executors: Mapping[str, Any]) -> None:
    where = f"step {'/'.join(task.path)!r}"
    label = task.component_document.get("executorLabel")
    executor = executors.get(label) if isinstance(label, str) else None
    if not isinstance(executor, Mapping):
        raise BadRequestError(f"{where}: component {task.component!r} has no executor in the deployment spec")
    if "importer" in executor:
        return
    container = executor.get("container")
    if not isinstance(container, Mapping):
        raise BadRequestError(
            f"{where}: the laptop runs lightweight Python components and importers only; "
            f"component {task.component!r} is neither"
        )
    command = container.get("command")
    command = [str(part) for part in command] if isinstance(command, list) else []
    if command[:1] != ["sh"] or not any(_EXECUTOR_MODULE in part for part in command):
        raise BadRequestError(
            f"{where}: component {task.component!r} is a container component; the laptop has no containers. "
            "Write it as a lightweight component (`@dsl.component` without `target_image`), or run the "
            "pipeline on a cluster"
        )
    if any(_PIP_INSTALL.search(part) for part in command[:-1]):  # the last is the function's source
        raise BadRequestError(
            f"{where}: component {task.component!r} installs packages at its start; on the laptop that would "
            "change the platform's own environment. Compile it with `install_kfp_package=False` and without "
            "`packages_to_install`"
        )


def _check_condition(task: Task) -> None:
    """kfp.local looks a condition's values up by name; where it finds none it skips the branch silently."""
    condition = _part(task.document, "triggerPolicy").get("condition")
    if not isinstance(condition, str):
        return
    parameters = _part(task.document, "inputs", "parameters")
    for name in _INPUT.findall(condition):
        source = _part(parameters, name, "taskOutputParameter")
        if not source:
            continue
        reference = name.replace("pipelinechannel--", "")
        found = reference.split("-Output")[0] if "-Output" in reference else None
        if source.get("outputParameterKey") != "Output" or found != source.get("producerTask"):
            raise BadRequestError(
                f"task {'/'.join(task.path)!r}: the laptop's runner would always skip this branch: it cannot "
                f"read output {source.get('outputParameterKey')!r} of {source.get('producerTask')!r} in a "
                "condition. Let the component return the value (`-> bool`) and branch on `task.output`, "
                "or add a `dsl.Else`"
            )


def _check_loop(task: Task) -> None:
    """kfp.local replaces every task output that enters a ParallelFor by the loop's item, without an error."""
    iterator = _part(task.document, "parameterIterator")
    if not iterator:
        return
    items = _part(iterator, "items").get("inputParameter")
    parameters = _part(task.document, "inputs", "parameters")
    for name in parameters:
        output = _part(parameters, name, "taskOutputParameter")
        if name != items and output:
            raise BadRequestError(
                f"task {'/'.join(task.path)!r}: the laptop's runner would pass the loop's item in place of "
                f"output {output.get('outputParameterKey')!r} of {output.get('producerTask')!r}. "
                "Pass the value as an artifact or a pipeline parameter"
            )


def _part(document: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return an optional part of the IR; empty when it is not there (a broken one fails in the runner)."""
    for key in path:
        value = document.get(key)
        document = value if isinstance(value, Mapping) else {}
    return document
