"""A run's folder: what the server hands to the executor and what the executor reports back.

Every JSON file is replaced whole, so a reader never sees half of one, whoever dies when.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run. `path.name` is the run's id."""

    path: Path

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def spec(self) -> Path:
        """The pipeline's IR (and platform spec), written by the server before the run is queued."""
        return self.path / "pipeline.json"

    @property
    def parameters(self) -> Path:
        """The run's checked parameters, written by the server."""
        return self.path / "parameters.json"

    @property
    def progress(self) -> Path:
        """State of each step, written by the executor; by the server once the executor is gone."""
        return self.path / "progress.json"

    @property
    def outcome(self) -> Path:
        """How the run ended, written by the executor as its last act."""
        return self.path / "outcome.json"

    @property
    def log(self) -> Path:
        """Output of the executor and, prefixed by their names, of the steps, in the order of time."""
        return self.path / "run.log"

    @property
    def artifacts(self) -> Path:
        """The pipeline root: what steps put out."""
        return self.path / "artifacts"

    @property
    def temporary(self) -> Path:
        """TMPDIR of the executor and its steps; removed when the run ends."""
        return self.path / "tmp"

    def step_log(self, task_id: str) -> Path:
        """Output of one step, all attempts."""
        return self.path / "steps" / f"{task_id}.log"

    def create(self, spec: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Make the folder and write what the executor needs."""
        (self.path / "steps").mkdir(mode=0o700, parents=True)
        write_document(self.spec, spec, sync=True)
        write_document(self.parameters, parameters, sync=True)

    def reset(self) -> None:
        """Forget how the last attempt went, before the run is queued again. Logs are kept."""
        self.progress.unlink(missing_ok=True)
        self.outcome.unlink(missing_ok=True)
        self.remove_temporary()

    def remove_temporary(self) -> None:
        """Remove TMPDIR with all that steps left there."""
        if self.temporary.exists():
            shutil.rmtree(self.temporary)

    def remove(self) -> None:
        """Remove the folder with logs and artifacts, if it is there."""
        if self.path.exists():
            shutil.rmtree(self.path)


def read_document(path: Path) -> Any:
    """Return the JSON document at `path`, or None when there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return json.loads(text)


def write_document(path: Path, document: Any, sync: bool = False) -> None:
    """Replace `path` by `document` as JSON at once; with `sync` it outlives a power cut too."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
