"""Calls about runs and their logs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embedded.runs.answers import COMMON_COLUMNS, Columns, answer_page, archive, unarchive
from embedded.runs.creation import RunMaker
from embedded.runs.errors import ApiError, PreconditionError
from embedded.runs.folder import read_document
from embedded.runs.logs import find_step, open_run_log, open_step_log
from embedded.runs.progress import FINAL_STATES, Progress
from embedded.runs.queue import RunQueue
from embedded.runs.records import Experiment, Run
from embedded.runs.requests import RunBody, read_body
from embedded.runs.storage import Storage
from embedded.runs.view import show_run, show_run_details

_RUN_COLUMNS: Columns = {
    **COMMON_COLUMNS,
    "run_id": lambda record: record.id,
    "experiment_id": lambda record: record.experiment_id,
    "pipeline_id": lambda record: record.pipeline_id or "",
    "pipeline_version_id": lambda record: record.pipeline_version_id or "",
    "state": lambda record: record.state,
    "storage_state": lambda record: record.storage_state,
    "scheduled_at": lambda record: record.scheduled_at,
    "recurring_run_id": lambda record: record.recurring_run_id or "",
    "finished_at": lambda record: record.finished_at or "",
}


class RunCalls:
    """One method for each call; short work only, they run on the server's one event loop."""

    def __init__(self, storage: Storage, queue: RunQueue, maker: RunMaker) -> None:
        self._storage = storage
        self._queue = queue
        self._maker = maker

    async def create_run(self, request: Request) -> Response:
        """CreateRun: checks everything that can be checked, and puts the run into the queue."""
        body = await read_body(request, RunBody)
        plan = self._maker.plan(
            body.pipeline_spec, body.pipeline_version_reference, body.runtime_config, body.experiment_id
        )
        run = self._maker.make(plan, body.display_name, body.description, body.service_account)
        return JSONResponse(show_run_details(run, plan.spec, plan.parameters, Progress()))

    async def list_runs(self, request: Request) -> Response:
        """ListRuns; without pipelines and details, which GetRun gives."""
        items = self._storage.list_all(Run)
        experiment_id = request.query_params.get("experiment_id", "")
        if experiment_id:
            self._storage.get(Experiment, experiment_id)
            items = [run for run in items if run.experiment_id == experiment_id]
        return answer_page(request, "runs", items, _RUN_COLUMNS, show_run, experiment_id)

    async def get_run(self, request: Request) -> Response:
        """GetRun, with its steps."""
        run = self._storage.get(Run, request.path_params["id"])
        folder = self._queue.folder(run.id)
        spec, parameters = read_document(folder.spec), read_document(folder.parameters)
        if spec is None or parameters is None:
            raise ApiError(f"the folder of run {run.id} is damaged or gone: {folder.path}; delete the run")
        return JSONResponse(show_run_details(run, spec, parameters, Progress.read(folder.progress)))

    async def terminate_run(self, request: Request) -> Response:
        """TerminateRun; returns at once, the run's state tells when it is over."""
        self._queue.cancel(request.path_params["id"])
        return JSONResponse({})

    async def retry_run(self, request: Request) -> Response:
        """RetryRun."""
        self._queue.requeue(request.path_params["id"])
        return JSONResponse({})

    async def archive_run(self, request: Request) -> Response:
        """ArchiveRun."""
        self._storage.update(Run, request.path_params["id"], archive)
        return JSONResponse({})

    async def unarchive_run(self, request: Request) -> Response:
        """UnarchiveRun."""
        self._storage.update(Run, request.path_params["id"], unarchive)
        return JSONResponse({})

    async def delete_run(self, request: Request) -> Response:
        """DeleteRun, with logs and artifacts."""
        run = self._storage.get(Run, request.path_params["id"])
        if run.state not in FINAL_STATES:
            raise PreconditionError(f"run {run.id} is {run.state}; terminate it before you delete it")
        self._storage.delete(Run, run.id)
        self._queue.folder(run.id).remove()
        return JSONResponse({})

    async def read_step_log(self, request: Request) -> Response:
        """ReadRunLog of Kubeflow's API server: the output of one step (its task_id, pod_name or name)."""
        run = self._storage.get(Run, request.path_params["id"])
        step = find_step(run, self._queue.folder(run.id), request.path_params["node"])
        return open_step_log(self._storage, self._queue.folder(run.id), step, _wants_to_follow(request))

    async def read_run_log(self, request: Request) -> Response:
        """The output of a whole run, in the order of time (the laptop's own call)."""
        run = self._storage.get(Run, request.path_params["id"])
        return open_run_log(self._storage, self._queue.folder(run.id), _wants_to_follow(request))


def _wants_to_follow(request: Request) -> bool:
    return request.query_params.get("follow", "").lower() == "true"
