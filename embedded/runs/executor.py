"""The process of one run: `python -m embedded.runs.executor RUN_FOLDER CACHE_FOLDER`.

It answers to nobody: it reads the run's folder, runs the pipeline, writes progress and outcome there, and
exits. Its stdout is the run's log. It is ended by signals from the server, to it and to its steps alike.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

from embedded.runs.clock import read_clock
from embedded.runs.folder import RunFolder, read_document, write_document
from embedded.runs.graph import canonical_path, iteration_of, list_steps
from embedded.runs.progress import FAILED, SUCCEEDED, Progress


def main(arguments: list[str]) -> int:
    """Run the pipeline of a folder.

    Returns:
        0 when it succeeded, 1 when a step failed.
    """
    folder, cache = RunFolder(Path(arguments[0])), Path(arguments[1])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    folder.temporary.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder.temporary)
    document, parameters = read_document(folder.spec), read_document(folder.parameters)
    # Imports kfp, hence late: a server that asks whether this process lives sees it at once.
    from embedded.runs.runner import run_pipeline

    try:
        run_pipeline(folder, document, parameters, cache)
    except Exception as error:
        failure = find_failure(folder, document["pipeline_spec"])
        _finish(folder, FAILED, failure or f"the runner failed: {type(error).__name__}: {error}")
        if failure is None or not isinstance(error, RuntimeError):
            raise  # Not a step's failure: the run's log shall hold the traceback.
        return 1
    _finish(folder, SUCCEEDED, None)
    return 0


def find_failure(folder: RunFolder, spec: dict[str, object]) -> str | None:
    """Return the error of the step that failed first, with its name; None when none did."""
    names = {step.path: step.name for step in list_steps(spec)}
    failed = [
        (record.finished or "", name, record.error)
        for name, record in Progress.read(folder.progress).steps.items()
        if record.state == FAILED
    ]
    if not failed:
        return None
    _, name, error = min(failed)
    path = tuple(name.split("/"))
    label = names.get(canonical_path(path), name) + "".join(f"[{number}]" for number in iteration_of(path))
    return f"step {label!r} failed: {error}"


def _finish(folder: RunFolder, state: str, error: str | None) -> None:
    write_document(folder.outcome, {"state": state, "error": error, "finished": read_clock()}, sync=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
