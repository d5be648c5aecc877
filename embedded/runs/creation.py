"""Making runs: for a call, and for a schedule whose time has come."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from embedded.runs.check import check_parameters, check_spec
from embedded.runs.clock import read_clock
from embedded.runs.errors import BadRequestError
from embedded.runs.experiments import ExperimentCalls
from embedded.runs.package import split_spec
from embedded.runs.pipelines import PipelineCalls
from embedded.runs.progress import PENDING
from embedded.runs.queue import RunQueue
from embedded.runs.records import Experiment, Recurring, Run, Version
from embedded.runs.requests import RuntimeConfig, VersionReference
from embedded.runs.storage import Storage


@dataclass(frozen=True)
class Plan:
    """What a run is made of, checked.

    Attributes:
        version: The uploaded version that was referred to, if one was.
        spec: {"pipeline_spec": the IR, "platform_spec"?: ...}.
        parameters: Those to run with.
        experiment: Its experiment.
    """

    version: Version | None
    spec: dict[str, Any]
    parameters: dict[str, Any]
    experiment: Experiment


class RunMaker:
    """Checks what runs are to be made of and puts them into the queue; any thread may call."""

    def __init__(
        self, storage: Storage, queue: RunQueue, experiments: ExperimentCalls, pipelines: PipelineCalls
    ) -> None:
        self._storage = storage
        self._queue = queue
        self._experiments = experiments
        self._pipelines = pipelines

    def plan(
        self, spec: Any, reference: VersionReference | None, config: RuntimeConfig, experiment_id: str
    ) -> Plan:
        """Check everything that can be checked before a run begins.

        Raises:
            ApiError: What is wrong, or missing.
        """
        if config.pipeline_root:
            raise BadRequestError(
                "runtime_config.pipeline_root: fixed on the laptop, artifacts lie in the run's folder"
            )
        if (spec is None) == (reference is None):
            raise BadRequestError(
                "a run needs either pipeline_spec or pipeline_version_reference, and not both"
            )
        version = self._pipelines.choose_version(reference) if reference is not None else None
        whole: dict[str, Any] = split_spec(spec) if version is None else {**version.spec}
        check_spec(whole["pipeline_spec"])
        parameters = check_parameters(whole["pipeline_spec"], config.parameters)
        return Plan(version, whole, parameters, self._experiments.choose(experiment_id))

    def make(self, plan: Plan, name: str, description: str = "", service_account: str = "") -> Run:
        """Make a run and queue it."""
        now = read_clock()
        return self._queue_run(
            plan,
            Run(
                id=str(uuid.uuid4()),
                display_name=name,
                description=description,
                created_at=now,
                scheduled_at=now,
                experiment_id=plan.experiment.id,
                service_account=service_account,
                state=PENDING,
            ),
        )

    def make_recurring(self, recurring: Recurring, time: str) -> Run:
        """Make the run of a schedule for one of its times and queue it, once: calling again changes nothing.

        Raises:
            ApiError: It cannot be made any more, e.g. because its pipeline version was deleted.
        """
        identity = str(uuid.uuid5(uuid.UUID(recurring.id), time))
        known = self._storage.find_run(identity)
        if known is not None:
            return known
        reference = None
        if recurring.pipeline_id is not None:
            reference = VersionReference(
                pipeline_id=recurring.pipeline_id, pipeline_version_id=recurring.pipeline_version_id
            )
        config = RuntimeConfig(parameters=dict(recurring.parameters))
        plan = self.plan(recurring.spec, reference, config, recurring.experiment_id)
        # Whoever made it before died before it was queued.
        self._queue.folder(identity).remove()
        return self._queue_run(
            plan,
            Run(
                id=identity,
                display_name=f"{recurring.display_name} {time.partition('.')[0]}Z",
                description=recurring.description,
                created_at=read_clock(),
                scheduled_at=time,
                experiment_id=plan.experiment.id,
                service_account=recurring.service_account,
                recurring_run_id=recurring.id,
                state=PENDING,
            ),
        )

    def _queue_run(self, plan: Plan, run: Run) -> Run:
        if plan.version is not None:
            reference = {
                "pipeline_id": plan.version.pipeline_id,
                "pipeline_version_id": plan.version.id,
            }
            run = run.model_copy(update=reference)
        run = run.move(PENDING, run.created_at)
        self._queue.folder(run.id).create(plan.spec, plan.parameters)
        self._storage.add(run)
        self._storage.update(
            Experiment,
            plan.experiment.id,
            lambda found: found.model_copy(update={"last_run_created_at": run.created_at}),
        )
        self._queue.notify()
        return run
