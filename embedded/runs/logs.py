"""Logs of steps and runs, whole or followed until the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
from starlette.responses import StreamingResponse

from embedded.runs import graph
from embedded.runs.errors import BadRequestError, MissingError
from embedded.runs.folder import RunFolder, read_document
from embedded.runs.progress import FINAL_STATES, Progress
from embedded.runs.records import Run
from embedded.runs.storage import Storage
from embedded.runs.view import show_tasks

_CHUNK = 64 * 1024
_POLL_SECONDS = 0.2


def find_step(run: Run, folder: RunFolder, name: str) -> str:
    """Return the task id of a step that is named by its task id, pod name, path or display name.

    Raises:
        MissingError: The run has no such step.
        BadRequestError: Several steps have this name.
    """
    document = read_document(folder.spec)
    if document is None:
        raise MissingError(f"the folder of run {run.id} is gone: {folder.path}")
    progress = Progress.read(folder.progress)
    tasks = show_tasks(run, graph.list_steps(document["pipeline_spec"]), progress)
    names: dict[str, str] = {task["task_id"]: task["display_name"] for task in tasks}
    if name in names:
        return name
    found = [identity for identity, label in names.items() if label == name]
    if len(found) > 1:
        raise BadRequestError(f"run {run.id} has {len(found)} steps named {name!r}; use a task_id")
    by_path = graph.task_id(run.id, tuple(name.split("/")))
    if not found and by_path in names:
        return by_path
    if not found:
        raise MissingError(f"run {run.id} has no step {name!r}; it has: {', '.join(names.values())}")
    return found[0]


def open_step_log(storage: Storage, folder: RunFolder, task_id: str, follow: bool) -> StreamingResponse:
    """Answer with a step's output so far; followed, until the step (or its run) has ended."""

    def is_over() -> bool:
        states = {
            graph.task_id(folder.run_id, tuple(name.split("/"))): record.state
            for name, record in Progress.read(folder.progress).steps.items()
        }
        return states.get(task_id) in FINAL_STATES or _has_ended(storage, folder)

    return _stream(folder.step_log(task_id), is_over if follow else None)


def open_run_log(storage: Storage, folder: RunFolder, follow: bool) -> StreamingResponse:
    """Answer with a run's output so far; followed, until the run has ended."""
    return _stream(folder.log, (lambda: _has_ended(storage, folder)) if follow else None)


def _has_ended(storage: Storage, folder: RunFolder) -> bool:
    try:
        return storage.get(Run, folder.run_id).state in FINAL_STATES
    except MissingError:
        return True


def _stream(path: Path, is_over: Callable[[], bool] | None) -> StreamingResponse:
    return StreamingResponse(_read(path, is_over), media_type="text/plain; charset=utf-8")


async def _read(path: Path, is_over: Callable[[], bool] | None) -> AsyncIterator[bytes]:
    """Yield the file's content; wait for more (or for the file) while `is_over` says no."""
    position = 0
    while True:
        # Asked before reading: what is written before the end is read after the answer.
        last = is_over is None or is_over()
        try:
            with path.open("rb") as file:
                file.seek(position)
                while chunk := file.read(_CHUNK):
                    position += len(chunk)
                    yield chunk
        except FileNotFoundError:
            pass
        if last:
            return
        await anyio.sleep(_POLL_SECONDS)
