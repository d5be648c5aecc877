"""Calls about recurring runs."""

from __future__ import annotations

import uuid

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embedded.runs.answers import COMMON_COLUMNS, Columns, answer_page
from embedded.runs.clock import read_clock
from embedded.runs.creation import RunMaker
from embedded.runs.errors import BadRequestError
from embedded.runs.package import split_spec
from embedded.runs.records import Experiment, Recurring
from embedded.runs.requests import RecurringBody, read_body
from embedded.runs.schedule import check_cron
from embedded.runs.storage import Storage
from embedded.runs.view import show_recurring

_COLUMNS: Columns = {
    **COMMON_COLUMNS,
    "recurring_run_id": lambda record: record.id,
    "experiment_id": lambda record: record.experiment_id,
    "updated_at": lambda record: record.updated_at,
    "status": lambda record: "ENABLED" if record.enabled else "DISABLED",
}


class RecurringCalls:
    """One method for each call; short work only, they run on the server's one event loop."""

    def __init__(self, storage: Storage, maker: RunMaker) -> None:
        self._storage = storage
        self._maker = maker

    async def create(self, request: Request) -> Response:
        """CreateRecurringRun: checks all that a run of it will be checked for, the times too."""
        body = await read_body(request, RecurringBody)
        cron, periodic = body.trigger.cron_schedule, body.trigger.periodic_schedule
        if cron is not None:
            check_cron(cron.cron)
        plan = self._maker.plan(
            body.pipeline_spec, body.pipeline_version_reference, body.runtime_config, body.experiment_id
        )
        schedule = cron or periodic
        if schedule is None or (cron is not None and periodic is not None):
            raise BadRequestError("trigger needs either cron_schedule or periodic_schedule, and not both")
        if schedule.start_time and schedule.end_time and schedule.start_time >= schedule.end_time:
            raise BadRequestError("trigger: its end_time is not after its start_time")
        reference = body.pipeline_version_reference
        now = read_clock()
        recurring = Recurring(
            id=str(uuid.uuid4()),
            display_name=body.display_name,
            description=body.description,
            created_at=now,
            updated_at=now,
            experiment_id=plan.experiment.id,
            pipeline_id=reference.pipeline_id if reference else None,
            pipeline_version_id=reference.pipeline_version_id if reference else None,
            spec=None if reference else split_spec(body.pipeline_spec),
            parameters=plan.parameters,
            service_account=body.service_account,
            max_concurrency=body.max_concurrency,
            catch_up=not body.no_catchup,
            cron=cron.cron if cron else "",
            interval=periodic.interval_second if periodic else 0,
            start_time=schedule.start_time,
            end_time=schedule.end_time,
            enabled=body.mode == "ENABLE",
        )
        self._storage.add(recurring)
        return JSONResponse(show_recurring(recurring))

    async def list(self, request: Request) -> Response:
        """ListRecurringRuns."""
        items = self._storage.list_all(Recurring)
        experiment_id = request.query_params.get("experiment_id", "")
        if experiment_id:
            self._storage.get(Experiment, experiment_id)
            items = [item for item in items if item.experiment_id == experiment_id]
        return answer_page(request, "recurringRuns", items, _COLUMNS, show_recurring, experiment_id)

    async def get(self, request: Request) -> Response:
        """GetRecurringRun."""
        return JSONResponse(show_recurring(self._storage.get(Recurring, request.path_params["id"])))

    async def enable(self, request: Request) -> Response:
        """EnableRecurringRun."""
        return self._switch(request, True)

    async def disable(self, request: Request) -> Response:
        """DisableRecurringRun; runs that it has started go on."""
        return self._switch(request, False)

    async def delete(self, request: Request) -> Response:
        """DeleteRecurringRun; runs that it has started stay."""
        self._storage.delete(Recurring, request.path_params["id"])
        return JSONResponse({})

    def _switch(self, request: Request, enabled: bool) -> Response:
        change = {"enabled": enabled, "updated_at": read_clock()}
        self._storage.update(
            Recurring, request.path_params["id"], lambda found: found.model_copy(update=change)
        )
        return JSONResponse({})
