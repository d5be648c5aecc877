"""Calls about experiments."""

from __future__ import annotations

import uuid

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embedded.runs.answers import COMMON_COLUMNS, Columns, answer_page, archive, unarchive
from embedded.runs.clock import read_clock
from embedded.runs.errors import PreconditionError
from embedded.runs.records import ARCHIVED, Experiment, Run
from embedded.runs.requests import ExperimentBody, read_body
from embedded.runs.storage import Storage
from embedded.runs.view import show_experiment

DEFAULT_EXPERIMENT = "Default"
_EXPERIMENT_COLUMNS: Columns = {
    **COMMON_COLUMNS,
    "experiment_id": lambda record: record.id,
    "storage_state": lambda record: record.storage_state,
    "last_run_created_at": lambda record: record.last_run_created_at or "",
}


class ExperimentCalls:
    """One method for each call; short work only, they run on the server's one event loop."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

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

    def choose(self, identity: str) -> Experiment:
        """Return the experiment of a new run: the one with this id, the default one for "".

        Raises:
            MissingError: There is none with this id.
            PreconditionError: It is archived.
        """
        if not identity:
            return self.ensure_default_experiment()
        experiment = self._storage.get(Experiment, identity)
        if experiment.storage_state == ARCHIVED:
            raise PreconditionError(
                f"experiment {experiment.display_name!r} is archived; unarchive it, or choose another"
            )
        return experiment

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
        return answer_page(request, "experiments", items, _EXPERIMENT_COLUMNS, show_experiment)

    async def get_experiment(self, request: Request) -> Response:
        """GetExperiment."""
        return JSONResponse(show_experiment(self._storage.get(Experiment, request.path_params["id"])))

    async def archive_experiment(self, request: Request) -> Response:
        """ArchiveExperiment, with its runs."""
        identity = request.path_params["id"]
        self._storage.update(Experiment, identity, archive)
        for run in self._storage.list_all(Run):
            if run.experiment_id == identity:
                self._storage.update(Run, run.id, archive)
        return JSONResponse({})

    async def unarchive_experiment(self, request: Request) -> Response:
        """UnarchiveExperiment; its runs stay archived, as in Kubeflow."""
        self._storage.update(Experiment, request.path_params["id"], unarchive)
        return JSONResponse({})

    async def delete_experiment(self, request: Request) -> Response:
        """DeleteExperiment; its runs stay, as in Kubeflow."""
        self._storage.delete(Experiment, request.path_params["id"])
        return JSONResponse({})
