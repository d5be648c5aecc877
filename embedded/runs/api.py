"""The routes: the v2beta1 calls of `kfp.Client` and `kfp`, and the log calls of v1alpha1."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from embedded.runs.check import check_parameters, check_spec
from embedded.runs.clock import read_clock
from embedded.runs.errors import (
    ApiError,
    BadRequestError,
    MethodError,
    MissingError,
    PreconditionError,
    TooLargeError,
    UnsupportedError,
)
from embedded.runs.folder import read_document
from embedded.runs.guard import Guard
from embedded.runs.listing import select_page
from embedded.runs.logs import find_step, open_run_log, open_step_log
from embedded.runs.package import LARGEST_PACKAGE, read_package, split_spec
from embedded.runs.progress import FINAL_STATES, PENDING, Progress
from embedded.runs.queue import RunQueue
from embedded.runs.records import ARCHIVED, AVAILABLE, Experiment, Pipeline, Run, Version
from embedded.runs.requests import (
    ExperimentBody,
    PipelineBody,
    RunBody,
    VersionReference,
    read_body,
)
from embedded.runs.storage import Storage
from embedded.runs.view import (
    show_experiment,
    show_pipeline,
    show_run,
    show_run_details,
    show_version,
)

DEFAULT_EXPERIMENT = "Default"
_BASE = "/apis/v2beta1"
_LOGS = "/apis/v1alpha1"
_NOT_ON_LAPTOP = {
    "recurringruns": "recurring runs (schedules) are not done by the laptop; submit runs one by one, "
    "or use a cluster",
    "visualizations": "visualizations are not done by the laptop; reports are artifacts of the steps",
    "auth": "the laptop platform has one token and no SubjectAccessReview",
    "filters": "filters are given with list calls",
    "workflows": "the laptop platform runs no Argo workflows",
    "scheduledworkflows": "the laptop platform runs no Argo workflows",
}
Columns = Mapping[str, Callable[[Any], str]]
_COMMON_COLUMNS: Columns = {
    "id": lambda record: record.id,
    "name": lambda record: record.display_name,
    "display_name": lambda record: record.display_name,
    "description": lambda record: record.description,
    "created_at": lambda record: record.created_at,
}
_EXPERIMENT_COLUMNS: Columns = {
    **_COMMON_COLUMNS,
    "experiment_id": lambda record: record.id,
    "storage_state": lambda record: record.storage_state,
    "last_run_created_at": lambda record: record.last_run_created_at or "",
}
_PIPELINE_COLUMNS: Columns = {
    **_COMMON_COLUMNS,
    "name": lambda record: record.name,
    "pipeline_id": lambda record: record.id,
}
_VERSION_COLUMNS: Columns = {
    **_COMMON_COLUMNS,
    "name": lambda record: record.name,
    "pipeline_version_id": lambda record: record.id,
}
_RUN_COLUMNS: Columns = {
    **_COMMON_COLUMNS,
    "run_id": lambda record: record.id,
    "experiment_id": lambda record: record.experiment_id,
    "pipeline_id": lambda record: record.pipeline_id or "",
    "pipeline_version_id": lambda record: record.pipeline_version_id or "",
    "state": lambda record: record.state,
    "storage_state": lambda record: record.storage_state,
    "scheduled_at": lambda record: record.scheduled_at,
    "finished_at": lambda record: record.finished_at or "",
}


def make_app(storage: Storage, queue: RunQueue, token: SecretStr) -> Starlette:
    """Return the ASGI application; its lifespan starts and stops the queue.

    Args:
        storage: Where records are kept; the caller closes it afterwards.
        queue: Runs the runs; not started yet.
        token: What clients must bring as bearer token.
    """
    calls = Calls(storage, queue)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        calls.ensure_default_experiment()
        queue.start()
        try:
            yield
        finally:
            queue.stop()

    return Starlette(
        routes=_make_routes(calls),
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={
            ApiError: _answer_error,
            HTTPException: _answer_http_error,
            Exception: _answer_bug,
        },
        lifespan=lifespan,
    )


class Calls:
    """One method for each call. Short work only: they run on the server's one event loop."""

    def __init__(self, storage: Storage, queue: RunQueue) -> None:
        self._storage = storage
        self._queue = queue

    def ensure_default_experiment(self) -> Experiment:
        """Return the experiment of runs that name none; make it if it is not there."""
        found = self._storage.find_experiment(DEFAULT_EXPERIMENT)
        if found is None:
            found = Experiment(
                id=str(uuid.uuid4()),
                display_name=DEFAULT_EXPERIMENT,
                description="Runs that were submitted without an experiment",
                created_at=read_clock(),
            )
            self._storage.add(found)
        return found

    async def get_health(self, request: Request) -> Response:
        """GetHealthz."""
        if not self._queue.alive:
            raise ApiError("the queue does not work; the server's log says why")
        return JSONResponse({"multi_user": False, "pipeline_store": "database"})

    async def create_experiment(self, request: Request) -> Response:
        """CreateExperiment."""
        body = await read_body(request, ExperimentBody)
        experiment = Experiment(
            id=str(uuid.uuid4()),
            display_name=body.display_name,
            description=body.description,
            created_at=read_clock(),
        )
        self._storage.add(experiment)
        return JSONResponse(show_experiment(experiment))

    async def list_experiments(self, request: Request) -> Response:
        """ListExperiments."""
        items = self._storage.list_all(Experiment)
        return _answer_page(request, "experiments", items, _EXPERIMENT_COLUMNS, show_experiment)

    async def get_experiment(self, request: Request) -> Response:
        """GetExperiment."""
        return JSONResponse(show_experiment(self._storage.get(Experiment, request.path_params["id"])))

    async def archive_experiment(self, request: Request) -> Response:
        """ArchiveExperiment, with its runs."""
        identity = request.path_params["id"]
        self._storage.update(Experiment, identity, _archive)
        for run in self._storage.list_all(Run):
            if run.experiment_id == identity:
                self._storage.update(Run, run.id, _archive)
        return JSONResponse({})

    async def unarchive_experiment(self, request: Request) -> Response:
        """UnarchiveExperiment; its runs stay archived, as in Kubeflow."""
        self._storage.update(Experiment, request.path_params["id"], _unarchive)
        return JSONResponse({})

    async def delete_experiment(self, request: Request) -> Response:
        """DeleteExperiment; its runs stay, as in Kubeflow."""
        self._storage.delete(Experiment, request.path_params["id"])
        return JSONResponse({})

    async def create_pipeline(self, request: Request) -> Response:
        """CreatePipeline, without a version."""
        body = await read_body(request, PipelineBody)
        pipeline = _make_pipeline(body.display_name, body.name, body.description, body.tags)
        self._storage.add(pipeline)
        return JSONResponse(show_pipeline(pipeline))

    async def upload_pipeline(self, request: Request) -> Response:
        """UploadPipeline: the pipeline and its first version, of the same name."""
        spec = await _read_upload(request)
        query = request.query_params
        name = query.get("name") or query.get("display_name") or spec["pipeline_spec"]["pipelineInfo"]["name"]
        pipeline = _make_pipeline(query.get("display_name", ""), name, query.get("description", ""), {})
        self._storage.add(pipeline)
        self._storage.add(_make_version(pipeline, name, query, spec))
        return JSONResponse(show_pipeline(pipeline))

    async def upload_version(self, request: Request) -> Response:
        """UploadPipelineVersion."""
        query = request.query_params
        pipeline = self._storage.get(Pipeline, _need(query, "pipelineid"))
        spec = await _read_upload(request)
        version = _make_version(pipeline, query.get("name") or _need(query, "display_name"), query, spec)
        self._storage.add(version)
        return JSONResponse(show_version(version))

    async def list_pipelines(self, request: Request) -> Response:
        """ListPipelines."""
        items = self._storage.list_all(Pipeline)
        return _answer_page(request, "pipelines", items, _PIPELINE_COLUMNS, show_pipeline)

    async def get_pipeline(self, request: Request) -> Response:
        """GetPipeline."""
        return JSONResponse(show_pipeline(self._storage.get(Pipeline, request.path_params["id"])))

    async def get_pipeline_by_name(self, request: Request) -> Response:
        """GetPipelineByName."""
        name = request.path_params["name"]
        for pipeline in self._storage.list_all(Pipeline):
            if pipeline.name == name:
                return JSONResponse(show_pipeline(pipeline))
        raise MissingError(f"there is no pipeline named {name!r}")

    async def delete_pipeline(self, request: Request) -> Response:
        """DeletePipeline; with versions only when `cascade` is true, as in Kubeflow."""
        identity = request.path_params["id"]
        pipeline = self._storage.get(Pipeline, identity)
        versions = self._storage.list_versions(identity)
        if versions and request.query_params.get("cascade", "").lower() != "true":
            raise PreconditionError(
                f"pipeline {pipeline.display_name!r} has {len(versions)} version(s), among them "
                f"{versions[-1].display_name!r}; delete them first, or pass cascade=true"
            )
        self._storage.delete(Pipeline, identity)
        return JSONResponse({})

    async def list_versions(self, request: Request) -> Response:
        """ListPipelineVersions."""
        identity = request.path_params["id"]
        self._storage.get(Pipeline, identity)
        items = self._storage.list_versions(identity)
        return _answer_page(request, "pipeline_versions", items, _VERSION_COLUMNS, show_version, identity)

    async def get_version(self, request: Request) -> Response:
        """GetPipelineVersion."""
        return JSONResponse(show_version(self._find_version(**request.path_params)))

    async def delete_version(self, request: Request) -> Response:
        """DeletePipelineVersion."""
        self._storage.delete(Version, self._find_version(**request.path_params).id)
        return JSONResponse({})

    async def create_run(self, request: Request) -> Response:
        """CreateRun: checks everything that can be checked, and puts the run into the queue."""
        body = await read_body(request, RunBody)
        if body.runtime_config.pipeline_root:
            raise BadRequestError(
                "runtime_config.pipeline_root: fixed on the laptop, artifacts lie in the run's folder"
            )
        reference = body.pipeline_version_reference
        if (body.pipeline_spec is None) == (reference is None):
            raise BadRequestError(
                "a run needs either pipeline_spec or pipeline_version_reference, and not both"
            )
        version = self._choose_version(reference) if reference is not None else None
        spec: dict[str, Any] = split_spec(body.pipeline_spec) if version is None else {**version.spec}
        check_spec(spec["pipeline_spec"])
        parameters = check_parameters(spec["pipeline_spec"], body.runtime_config.parameters)
        experiment = self._choose_experiment(body.experiment_id)
        now = read_clock()
        run = Run(
            id=str(uuid.uuid4()),
            display_name=body.display_name,
            description=body.description,
            created_at=now,
            scheduled_at=now,
            experiment_id=experiment.id,
            pipeline_id=version.pipeline_id if version else None,
            pipeline_version_id=version.id if version else None,
            service_account=body.service_account,
            state=PENDING,
        ).move(PENDING, now)
        folder = self._queue.folder(run.id)
        folder.create(spec, parameters)
        self._storage.add(run)
        self._storage.update(
            Experiment, experiment.id, lambda found: found.model_copy(update={"last_run_created_at": now})
        )
        self._queue.notify()
        return JSONResponse(show_run_details(run, spec, parameters, Progress()))

    async def list_runs(self, request: Request) -> Response:
        """ListRuns; without pipelines and details, which GetRun gives."""
        items = self._storage.list_all(Run)
        experiment_id = request.query_params.get("experiment_id", "")
        if experiment_id:
            self._storage.get(Experiment, experiment_id)
            items = [run for run in items if run.experiment_id == experiment_id]
        return _answer_page(request, "runs", items, _RUN_COLUMNS, show_run, experiment_id)

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
        self._storage.update(Run, request.path_params["id"], _archive)
        return JSONResponse({})

    async def unarchive_run(self, request: Request) -> Response:
        """UnarchiveRun."""
        self._storage.update(Run, request.path_params["id"], _unarchive)
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

    async def refuse(self, request: Request) -> Response:
        """Answer for calls of Kubeflow Pipelines that the laptop does not do."""
        kind = request.url.path.removeprefix(f"{_BASE}/").split("/")[0]
        raise UnsupportedError(_NOT_ON_LAPTOP[kind])

    async def refuse_url(self, request: Request) -> Response:
        """Answer for creating a version from a URL."""
        raise UnsupportedError(
            "the laptop platform downloads no packages; upload the file (`kfp pipeline create`, "
            "`kfp pipeline create-version`, kfp.Client.upload_pipeline)"
        )

    async def refuse_change(self, request: Request) -> Response:
        """Answer for changing a pipeline or a version."""
        raise UnsupportedError("the laptop platform does not change pipelines; upload a new version")

    def _find_version(self, id: str, version: str) -> Version:
        found = self._storage.get(Version, version)
        if found.pipeline_id != id:
            raise MissingError(f"pipeline {id!r} has no version with the id {version!r}")
        return found

    def _choose_version(self, reference: VersionReference) -> Version:
        if reference.pipeline_version_id:
            return self._find_version(reference.pipeline_id, reference.pipeline_version_id)
        pipeline = self._storage.get(Pipeline, reference.pipeline_id)
        versions = self._storage.list_versions(pipeline.id)
        if not versions:
            raise BadRequestError(f"pipeline {pipeline.display_name!r} has no version; upload one")
        return versions[-1]

    def _choose_experiment(self, identity: str) -> Experiment:
        if not identity:
            return self.ensure_default_experiment()
        experiment = self._storage.get(Experiment, identity)
        if experiment.storage_state == ARCHIVED:
            raise PreconditionError(
                f"experiment {experiment.display_name!r} is archived; unarchive it, or choose another"
            )
        return experiment


def _make_routes(calls: Calls) -> list[Route]:
    """Return the routes; verbs (`:terminate`) before the paths that would match them as ids."""
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", f"{_BASE}/healthz", calls.get_health),
        ("POST", f"{_BASE}/experiments", calls.create_experiment),
        ("GET", f"{_BASE}/experiments", calls.list_experiments),
        ("POST", f"{_BASE}/experiments/{{id}}:archive", calls.archive_experiment),
        ("POST", f"{_BASE}/experiments/{{id}}:unarchive", calls.unarchive_experiment),
        ("GET", f"{_BASE}/experiments/{{id}}", calls.get_experiment),
        ("DELETE", f"{_BASE}/experiments/{{id}}", calls.delete_experiment),
        ("POST", f"{_BASE}/pipelines", calls.create_pipeline),
        ("GET", f"{_BASE}/pipelines", calls.list_pipelines),
        ("POST", f"{_BASE}/pipelines/upload", calls.upload_pipeline),
        ("POST", f"{_BASE}/pipelines/upload_version", calls.upload_version),
        ("POST", f"{_BASE}/pipelines/create", calls.refuse_url),
        ("GET", f"{_BASE}/pipelines/names/{{name:path}}", calls.get_pipeline_by_name),
        ("GET", f"{_BASE}/pipelines/{{id}}/versions", calls.list_versions),
        ("POST", f"{_BASE}/pipelines/{{id}}/versions", calls.refuse_url),
        ("GET", f"{_BASE}/pipelines/{{id}}/versions/{{version}}", calls.get_version),
        ("DELETE", f"{_BASE}/pipelines/{{id}}/versions/{{version}}", calls.delete_version),
        ("PATCH", f"{_BASE}/pipelines/{{id}}/versions/{{version}}", calls.refuse_change),
        ("GET", f"{_BASE}/pipelines/{{id}}", calls.get_pipeline),
        ("DELETE", f"{_BASE}/pipelines/{{id}}", calls.delete_pipeline),
        ("PATCH", f"{_BASE}/pipelines/{{id}}", calls.refuse_change),
        ("POST", f"{_BASE}/runs", calls.create_run),
        ("GET", f"{_BASE}/runs", calls.list_runs),
        ("POST", f"{_BASE}/runs/{{id}}:terminate", calls.terminate_run),
        ("POST", f"{_BASE}/runs/{{id}}:retry", calls.retry_run),
        ("POST", f"{_BASE}/runs/{{id}}:archive", calls.archive_run),
        ("POST", f"{_BASE}/runs/{{id}}:unarchive", calls.unarchive_run),
        ("GET", f"{_BASE}/runs/{{id}}", calls.get_run),
        ("DELETE", f"{_BASE}/runs/{{id}}", calls.delete_run),
        ("GET", f"{_LOGS}/runs/{{id}}/nodes/{{node:path}}/log", calls.read_step_log),
        ("GET", f"{_LOGS}/runs/{{id}}/log", calls.read_run_log),
    ]
    routes = [Route(path, call, methods=[method]) for method, path, call in table]
    for kind in _NOT_ON_LAPTOP:
        for path in (f"{_BASE}/{kind}", f"{_BASE}/{kind}/{{rest:path}}"):
            routes.append(Route(path, calls.refuse, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    return routes


def _answer_page(
    request: Request,
    key: str,
    items: list[Any],
    columns: Columns,
    show: Callable[[Any], dict[str, Any]],
    scope: str = "",
) -> Response:
    page = select_page(items, columns, request.query_params, f"{key}/{scope}")
    document: dict[str, Any] = {key: [show(item) for item in page.items], "total_size": page.total}
    if page.next_token:
        document["next_page_token"] = page.next_token
    return JSONResponse(document)


async def _read_upload(request: Request) -> dict[str, Any]:
    try:
        async with request.form(max_files=1, max_fields=10) as form:
            file = form.get("uploadfile")
            if not isinstance(file, UploadFile):
                raise BadRequestError("the form has no file `uploadfile`")
            data = await file.read()
    except MultiPartException as error:
        raise BadRequestError(f"the form is damaged: {error.message}") from error
    if len(data) > LARGEST_PACKAGE:
        raise TooLargeError(f"the package has {len(data)} bytes; at most {LARGEST_PACKAGE} are taken")
    spec = read_package(data)
    check_spec(spec["pipeline_spec"])
    return spec


def _make_pipeline(display_name: str, name: str, description: str, tags: dict[str, str]) -> Pipeline:
    title = display_name or name
    if not title.strip():
        raise BadRequestError("a pipeline needs a name")
    return Pipeline(
        id=str(uuid.uuid4()),
        display_name=title,
        name=name or title,
        description=description,
        tags=tags,
        created_at=read_clock(),
    )


def _make_version(pipeline: Pipeline, name: str, query: Mapping[str, str], spec: dict[str, Any]) -> Version:
    if not name.strip():
        raise BadRequestError("a pipeline version needs a name")
    return Version(
        id=str(uuid.uuid4()),
        pipeline_id=pipeline.id,
        display_name=query.get("display_name") or name,
        name=name,
        description=query.get("description", ""),
        code_source_url=query.get("code_source_url", ""),
        created_at=read_clock(),
        spec=spec,
    )


def _archive(record: Any) -> Any:
    return record.model_copy(update={"storage_state": ARCHIVED})


def _unarchive(record: Any) -> Any:
    return record.model_copy(update={"storage_state": AVAILABLE})


def _need(query: Mapping[str, str], name: str) -> str:
    value = query.get(name, "")
    if not value:
        raise BadRequestError(f"the query parameter {name!r} is missing")
    return value


def _wants_to_follow(request: Request) -> bool:
    return request.query_params.get("follow", "").lower() == "true"


async def _answer_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.to_document(), status_code=error.status)


async def _answer_bug(request: Request, error: Exception) -> Response:
    """Answer for what nobody foresaw; Starlette raises it again, so that the log has the traceback."""
    answer = ApiError(f"{request.method} {request.url.path}: {type(error).__name__}; see the server's log")
    return JSONResponse(answer.to_document(), status_code=answer.status)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Give Starlette's own refusals (no such path or method, a damaged form) the API's form."""
    if not isinstance(error, HTTPException):
        raise error
    place = f"{request.method} {request.url.path}"
    answer: ApiError
    if error.status_code == MissingError.status:
        answer = MissingError(f"{place}: the laptop's pipelines API has no such path; see {_BASE}/...")
    elif error.status_code == MethodError.status:
        answer = MethodError(f"{place}: the laptop's pipelines API has this path, but not with this method")
    else:
        answer = BadRequestError(f"{place}: {error.detail}")
    return JSONResponse(answer.to_document(), status_code=answer.status, headers=error.headers)
