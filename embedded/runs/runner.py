"""kfp.local with eyes: the states and the output of single steps.

kfp.local (2.17.0) has no callbacks; it prints, and returns the whole pipeline's outputs. But it calls across
its modules by attribute (`task_executor.execute_single_task(...)`), so that a wrapper set on the module is
called. Four places are enough:

- `enhanced_dag_orchestrator.execute_task`: every task of a pipeline with groups, the groups among them. It
  gives the path, as groups nest by calling it again, and the end of a group.
- `enhanced_dag_orchestrator._run_parallel_for_task`: iterations run in threads of a pool; this tells on whose
  behalf.
- `task_executor.execute_single_task`: every step of any pipeline, around cache look-up and retries.
- `subprocess_task_handler.SubprocessTaskHandler`: kfp.local's interface for how one attempt is run.
  `StepHandler` implements it. A step during which none was run came from the cache.

Of the two orchestrators of kfp.local the simple one runs pipelines without groups only, so its tasks need no
path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from embedded.runs.folder import RunFolder
from embedded.runs.graph import Path, task_id
from embedded.runs.output import describe_failure
from embedded.runs.progress import CACHED, FAILED, SUCCEEDED, ProgressWriter

# `import kfp` pulls in kfp.client and with it the kubernetes SDK: 0.3 of 0.5 s, for nothing here. This
# variable is kfp's own way to leave that out (its steps use it); unset at once, so that the modules imported
# next are complete.
os.environ["_KFP_RUNTIME"] = "true"
import kfp

del os.environ["_KFP_RUNTIME"]

import kfp.components
import kfp.local
from google.protobuf import json_format
from kfp.local import (
    logging_utils,
    pipeline_orchestrator,
    status,
    subprocess_task_handler,
)
from kfp.local.orchestrator import enhanced_dag_orchestrator, task_executor
from kfp.pipeline_spec import pipeline_spec_pb2

_DRAIN_SECONDS = 1.0
FINAL = 65
"""Exit code (EX_DATAERR of sysexits.h) of a step that would fail in the same way again."""

# stderr of a step joins its stdout; unbuffered, so that its log can be followed and survives its death.
_STEP_ENVIRONMENT = {"PYTHONUNBUFFERED": "1"}


class _FinalFailure(Exception):  # noqa: N818 - it never leaves this module
    """Ends kfp.local's attempts at a step."""


@dataclass
class _Thread(threading.local):
    """What the running thread is doing: the path of tasks it is in, and the current step's attempts."""

    path: Path = ()
    exit_code: int | None = None
    launched: bool = False


@dataclass
class Tracker:
    """Follows one run of kfp.local in this process and keeps its progress file."""

    folder: RunFolder
    writer: ProgressWriter
    _thread: _Thread = field(default_factory=_Thread)
    # Of each store of values in which a ParallelFor is at work: the path of the group that the store belongs
    # to.
    _loops: dict[int, Path] = field(default_factory=dict)

    def install(self) -> None:
        """Set the wrappers. Once per process: kfp.local's configuration is a singleton as well."""
        enhanced_dag_orchestrator.execute_task = self._follow_task(enhanced_dag_orchestrator.execute_task)
        enhanced_dag_orchestrator._run_parallel_for_task = self._follow_loop(
            enhanced_dag_orchestrator._run_parallel_for_task
        )
        task_executor.execute_single_task = self._follow_step(task_executor.execute_single_task)
        tracker = self

        class Handler(StepHandler):
            def run(self) -> Any:
                return tracker.run_attempt(self)

        subprocess_task_handler.SubprocessTaskHandler = Handler
        for name in ("CYAN", "GREEN", "RED", "MAGENTA", "RESET"):
            setattr(logging_utils.Color, name, "")

    def run_attempt(self, handler: StepHandler) -> Any:
        """Run one attempt of the step that this thread is in."""
        path = self._thread.path
        attempt = self.writer.start_attempt(path)
        log = self._log_of(path)
        with log.open("ab", buffering=0) as file:
            if attempt > 1:
                file.write(f"--- attempt {attempt} ---\n".encode())
            self._thread.launched = True
            self._thread.exit_code = handler.run_process(file, path[-1])
        if self._thread.exit_code == FINAL:
            raise _FinalFailure
        return status.Status.SUCCESS if self._thread.exit_code == 0 else status.Status.FAILURE

    def _follow_task(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def follow(**arguments: Any) -> Any:
            outer = self._thread.path
            prefix = outer or self._loops.get(id(arguments["io_store"]), ())
            self._thread.path = path = (*prefix, arguments["task_name"])
            component = arguments["components"][arguments["task_spec"].component_ref.name]
            try:
                return execute(**arguments)
            finally:
                self._thread.path = outer
                if component.WhichOneof("implementation") == "dag":
                    self.writer.end_group(path)

        return follow

    def _follow_loop(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def follow(**arguments: Any) -> Any:
            prefix = self._thread.path
            store = id(arguments["io_store"])
            self._loops[store] = prefix
            try:
                return run(**arguments)
            finally:
                del self._loops[store]
                self.writer.end_group((*prefix, arguments["task_name"]))

        return follow

    def _follow_step(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def follow(**arguments: Any) -> Any:
            outer = self._thread.path
            name = arguments["task_name"]
            self._thread.path = path = outer if outer[-1:] == (name,) else (*outer, name)
            self._thread.launched, self._thread.exit_code = False, None
            self.writer.start_step(path)
            try:
                outputs, result = execute(**arguments)
            except _FinalFailure:
                outputs, result = {}, status.Status.FAILURE
            except Exception as error:
                self.writer.end_step(path, FAILED, f"{type(error).__name__}: {error}")
                raise
            finally:
                self._thread.path = outer
            executor = arguments["executors"][
                arguments["components"][arguments["task_spec"].component_ref.name].executor_label
            ]
            if result != status.Status.SUCCESS:
                self.writer.end_step(path, FAILED, self._explain(path))
            elif self._thread.launched or executor.WhichOneof("spec") != "container":
                self.writer.end_step(path, SUCCEEDED)
            else:
                self.writer.end_step(path, CACHED)
            return outputs, result

        return follow

    def _explain(self, path: Path) -> str:
        code = self._thread.exit_code
        if code is None:
            return "the runner could not start the step; the run's log says why"
        return describe_failure(self._log_of(path), code)

    def _log_of(self, path: Path) -> Any:
        return self.folder.step_log(task_id(self.folder.run_id, path))


class StepHandler(subprocess_task_handler.SubprocessTaskHandler):  # type: ignore[misc]
    """Runs an attempt in this environment's Python and copies its output to the step's and the run's log.

    It differs from kfp.local's in three more ways: `python3` is replaced in the command only, not in the
    values and paths behind it; any image is accepted without a warning (on the laptop the environment is the
    image); a step has no stdin.
    """

    def validate_image(self, image: str) -> None:
        """Accept every image."""

    def run_process(self, log: IO[bytes], name: str) -> int:
        """Run the attempt to its end and return its exit code.

        Args:
            log: The step's log, unbuffered.
            name: The step's name, before each of its lines in the run's log (this process's stdout).
        """
        command = [part.replace("python3", sys.executable) for part in self.full_command[:3]]
        environment = {**os.environ, **_STEP_ENVIRONMENT, **self.env_vars}
        # Not as a context manager: that would wait for the pipe's end.
        process = subprocess.Popen(
            [*command, *self.full_command[3:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        copier = threading.Thread(
            target=_copy_lines, args=(process.stdout, log, f"{name} | ".encode()), daemon=True
        )
        copier.start()
        code = process.wait()
        # A child that the step left behind may hold the pipe open; the step is over all the same.
        copier.join(_DRAIN_SECONDS)
        if not copier.is_alive():
            process.stdout.close()
        return code


def run_pipeline(
    folder: RunFolder, document: dict[str, Any], parameters: dict[str, Any], cache: Any
) -> Tracker:
    """Run a pipeline to its end, with its progress written down.

    This is what calling the component that `kfp.components.load_component_from_file` returns comes down to,
    without reading the IR as YAML (slow) and checking the arguments a second time.

    Args:
        folder: The run's folder.
        document: {"pipeline_spec": the IR}.
        parameters: Pipeline parameters that are given; the IR's defaults apply to the others.
        cache: Directory of the step cache that the runs share.

    Raises:
        RuntimeError: A step failed (kfp.local's error; the tracker's writer knows which and why).
    """
    spec = json_format.ParseDict(document["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
    tracker = Tracker(folder, ProgressWriter(folder.progress))
    tracker.install()
    # That shares of a machine, and the like, mean nothing here: it would be said at each step of each run.
    warnings.filterwarnings(
        "ignore", message=".*have no effect in the current local runner", category=UserWarning
    )
    kfp.local.init(
        runner=kfp.local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder.artifacts),
        # kfp.local removes it after the run; without a name it makes one under /tmp, and leaves it when
        # killed.
        workspace_root=str(folder.temporary / "workspace"),
        enable_caching=True,
        cache_root=str(cache),
    )
    pipeline_orchestrator.run_local_pipeline(spec, parameters)
    return tracker


def _copy_lines(source: IO[bytes], log: IO[bytes], prefix: bytes) -> None:
    for line in source:
        log.write(line)
        os.write(sys.stdout.fileno(), prefix + line)
