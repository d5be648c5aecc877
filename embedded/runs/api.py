"""The application: the v2beta1 routes of `kfp.Client` and `kfp`, the log routes of v1alpha1, and errors."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from embedded.errors import StorageError
from embedded.runs.calls import RunCalls
from embedded.runs.creation import RunMaker
from embedded.runs.errors import (
    ApiError,
    BadRequestError,
    MethodError,
    MissingError,
    StorageFailedError,
    UnsupportedError,
)
from embedded.runs.experiments import ExperimentCalls
from embedded.runs.guard import Guard
from embedded.runs.pipelines import PipelineCalls
from embedded.runs.queue import RunQueue
from embedded.runs.recurring import RecurringCalls
from embedded.runs.scheduler import Scheduler
from embedded.runs.storage import Storage

_BASE = "/apis/v2beta1"
_LOGS = "/apis/v1alpha1"
_NOT_ON_LAPTOP = {
    "visualizations": "visualizations are not done by the laptop; reports are artifacts of the steps",
    "auth": "the laptop platform has one token and no SubjectAccessReview",
    "filters": "filters are given with list calls",
    "workflows": "the laptop platform runs no Argo workflows",
    "scheduledworkflows": "the laptop platform runs no Argo workflows",
}


def make_app(storage: Storage, queue: RunQueue, token: SecretStr) -> Starlette:
    """Return the ASGI application; its lifespan starts and stops the queue and the scheduler.

    Args:
        storage: Where records are kept; the caller closes it afterwards.
        queue: Runs the runs; not started yet.
        token: What clients must bring as bearer token.
    """
    experiments, pipelines = ExperimentCalls(storage), PipelineCalls(storage)
    maker = RunMaker(storage, queue, experiments, pipelines)
    runs, recurring = RunCalls(storage, queue, maker), RecurringCalls(storage, maker)
    scheduler = Scheduler(storage, maker)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        experiments.ensure_default_experiment()
        queue.start()
        scheduler.start()
        try:
            yield
        finally:
            scheduler.stop()
            queue.stop()

    return Starlette(
        routes=_make_routes(experiments, pipelines, runs, recurring, queue),
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={
            ApiError: _answer_error,
            StorageError: _answer_storage,
            OSError: _answer_disk,
            HTTPException: _answer_http_error,
            Exception: _answer_bug,
        },
        lifespan=lifespan,
    )


def _make_routes(
    experiments: ExperimentCalls,
    pipelines: PipelineCalls,
    runs: RunCalls,
    recurring: RecurringCalls,
    queue: RunQueue,
) -> list[Route]:
    """Return the routes; verbs (`:terminate`) before the paths that would match them as ids."""

    async def get_health(request: Request) -> Response:
        if not queue.alive:
            raise ApiError("the queue does not work; the server's log says why")
        return JSONResponse({"multi_user": False, "pipeline_store": "database"})

    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", f"{_BASE}/healthz", get_health),
        ("POST", f"{_BASE}/experiments", experiments.create_experiment),
        ("GET", f"{_BASE}/experiments", experiments.list_experiments),
        ("POST", f"{_BASE}/experiments/{{id}}:archive", experiments.archive_experiment),
        ("POST", f"{_BASE}/experiments/{{id}}:unarchive", experiments.unarchive_experiment),
        ("GET", f"{_BASE}/experiments/{{id}}", experiments.get_experiment),
        ("DELETE", f"{_BASE}/experiments/{{id}}", experiments.delete_experiment),
        ("POST", f"{_BASE}/pipelines", pipelines.create_pipeline),
        ("GET", f"{_BASE}/pipelines", pipelines.list_pipelines),
        ("POST", f"{_BASE}/pipelines/upload", pipelines.upload_pipeline),
        ("POST", f"{_BASE}/pipelines/upload_version", pipelines.upload_version),
        ("POST", f"{_BASE}/pipelines/create", pipelines.refuse_url),
        ("GET", f"{_BASE}/pipelines/names/{{name:path}}", pipelines.get_pipeline_by_name),
        ("GET", f"{_BASE}/pipelines/{{id}}/versions", pipelines.list_versions),
        ("POST", f"{_BASE}/pipelines/{{id}}/versions", pipelines.refuse_url),
        ("GET", f"{_BASE}/pipelines/{{id}}/versions/{{version}}", pipelines.get_version),
        ("DELETE", f"{_BASE}/pipelines/{{id}}/versions/{{version}}", pipelines.delete_version),
        ("PATCH", f"{_BASE}/pipelines/{{id}}/versions/{{version}}", pipelines.refuse_change),
        ("GET", f"{_BASE}/pipelines/{{id}}", pipelines.get_pipeline),
        ("DELETE", f"{_BASE}/pipelines/{{id}}", pipelines.delete_pipeline),
        ("PATCH", f"{_BASE}/pipelines/{{id}}", pipelines.refuse_change),
        ("POST", f"{_BASE}/runs", runs.create_run),
        ("GET", f"{_BASE}/runs", runs.list_runs),
        ("POST", f"{_BASE}/runs/{{id}}:terminate", runs.terminate_run),
        ("POST", f"{_BASE}/runs/{{id}}:retry", runs.retry_run),
        ("POST", f"{_BASE}/runs/{{id}}:archive", runs.archive_run),
        ("POST", f"{_BASE}/runs/{{id}}:unarchive", runs.unarchive_run),
        ("GET", f"{_BASE}/runs/{{id}}", runs.get_run),
        ("DELETE", f"{_BASE}/runs/{{id}}", runs.delete_run),
        ("POST", f"{_BASE}/recurringruns", recurring.create),
        ("GET", f"{_BASE}/recurringruns", recurring.list),
        ("POST", f"{_BASE}/recurringruns/{{id}}:enable", recurring.enable),
        ("POST", f"{_BASE}/recurringruns/{{id}}:disable", recurring.disable),
        ("GET", f"{_BASE}/recurringruns/{{id}}", recurring.get),
        ("DELETE", f"{_BASE}/recurringruns/{{id}}", recurring.delete),
        ("GET", f"{_LOGS}/runs/{{id}}/nodes/{{node:path}}/log", runs.read_step_log),
        ("GET", f"{_LOGS}/runs/{{id}}/log", runs.read_run_log),
    ]
    routes = [Route(path, call, methods=[method]) for method, path, call in table]
    for kind in _NOT_ON_LAPTOP:
        for path in (f"{_BASE}/{kind}", f"{_BASE}/{kind}/{{rest:path}}"):
            routes.append(Route(path, _refuse, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    return routes


async def _refuse(request: Request) -> Response:
    """Answer for calls of Kubeflow Pipelines that the laptop does not do."""
    kind = request.url.path.removeprefix(f"{_BASE}/").split("/")[0]
    raise UnsupportedError(_NOT_ON_LAPTOP[kind])


async def _answer_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.to_document(), status_code=error.status)


async def _answer_storage(request: Request, error: Exception) -> Response:
    answer = StorageFailedError(f"{request.method} {request.url.path}: {error}")
    return JSONResponse(answer.to_document(), status_code=answer.status)


async def _answer_disk(request: Request, error: Exception) -> Response:
    """Answer for a run's folder that cannot be written; other errors of the system are bugs."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return await _answer_storage(request, error)
    raise error


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
