"""A search for a model in MLflow: one run for the study, a child run for each trial, resumable from there."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from clients.errors import ClientError
from clients.tracking import TAG_LENGTH, Tracking

logger = logging.getLogger("tenure.tracking")

KIND = "tenure.kind"
STUDY = "tenure.study"
TRIAL = "tenure.trial"

_CURVE_POINTS = 50  # enough for a plot; the record holds the whole curve


class Trial(Protocol):
    """What a trial must tell to be logged (`tenure.search.TrialRecord` does)."""

    @property
    def number(self) -> int:
        """Which trial of the study it is, from 0."""
        ...

    @property
    def state(self) -> str:
        """`complete` or `pruned`."""
        ...

    @property
    def value(self) -> float | None:
        """The objective, if it is known."""
        ...

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters that were tried."""
        ...

    @property
    def curve(self) -> Sequence[tuple[int, float]]:
        """Rounds and the mean validation metric after them."""
        ...

    def model_dump_json(self) -> str:
        """The whole record as JSON."""
        ...


class Study:
    """A search for a model: an MLflow run with one child run for each trial."""

    def __init__(self, tracking: Tracking, experiment_id: str, run_id: str, tag: str) -> None:
        self._tracking = tracking
        self._experiment_id = experiment_id
        self._tag = tag
        self.run_id = run_id
        """The parent run."""
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trials")
        self._pending: list[Future[str]] = []

    def load_trials(self) -> list[str]:
        """Return the record (JSON) of every finished trial, by number."""
        found: dict[int, str] = {}
        for run in self._tracking.search(
            [self._experiment_id],
            f"tags.mlflow.parentRunId = '{self.run_id}' and attributes.status = 'FINISHED'",
        ):
            tags = run.data.tags
            parts = int(tags.get(f"{TRIAL}.parts", 0))
            if parts:
                number = int(tags[f"{TRIAL}.number"])
                found[number] = "".join(tags[f"{TRIAL}.{part}"] for part in range(parts))
        return [found[number] for number in sorted(found)]

    def log_trial(self, trial: Trial) -> str:
        """Log a finished trial as a child run, in three requests, and return its run id."""
        from mlflow.entities import Metric, Param, RunTag

        with self._tracking.translate(f"logging trial {trial.number}"):
            client = self._tracking.client
            now = int(time.time() * 1000)
            run = client.create_run(
                self._experiment_id,
                start_time=now,
                run_name=f"trial-{trial.number:03d}",
                tags={"mlflow.parentRunId": self.run_id, KIND: "trial", STUDY: self._tag},
            )
            run_id = str(run.info.run_id)
            record = trial.model_dump_json()
            parts = [record[at : at + TAG_LENGTH] for at in range(0, len(record), TAG_LENGTH)]
            tags = {f"{TRIAL}.{part}": text for part, text in enumerate(parts)}
            tags |= {f"{TRIAL}.number": str(trial.number), f"{TRIAL}.parts": str(len(parts))}
            tags["tenure.state"] = str(trial.state)
            metrics = [
                Metric("validation", float(value), now, int(step)) for step, value in _thin(trial.curve)
            ]
            if trial.value is not None:
                metrics.append(Metric("objective", float(trial.value), now, 0))
            client.log_batch(
                run_id,
                metrics=metrics,
                params=[Param(name, str(value)) for name, value in trial.params.items()],
                tags=[RunTag(name, value) for name, value in tags.items()],
            )
            client.set_terminated(run_id, "FINISHED", int(time.time() * 1000))
        return run_id

    def enqueue_trial(self, trial: Trial) -> None:
        """Log a finished trial in the background, while the next one is trained.

        Raises:
            ClientError: An earlier trial could not be logged.
        """
        for future in [future for future in self._pending if future.done()]:
            self._pending.remove(future)
            future.result()
        self._pending.append(self._writer.submit(self.log_trial, trial))

    def describe(self, tags: Mapping[str, str]) -> None:
        """Set tags of the parent run."""
        self._tracking.set_tags(self.run_id, tags)

    def finish(self) -> None:
        """Wait for the trials to be logged and end the parent run.

        Raises:
            ClientError: A trial could not be logged; the run is left unfinished.
        """
        self._writer.shutdown(wait=True)
        while self._pending:
            self._pending.pop().result()
        with self._tracking.translate("ending the study"):
            self._tracking.client.set_terminated(self.run_id, "FINISHED")

    def abandon(self) -> None:
        """Mark the study as failed, as far as the server lets us; a later run resumes it either way."""
        self._writer.shutdown(wait=True)
        try:
            with self._tracking.translate("giving the study up"):
                self._tracking.client.set_terminated(self.run_id, "FAILED")
        except ClientError as error:
            logger.warning("%s", error)


def open_study(
    tracking: Tracking, project: str, tag: str, *, tags: Mapping[str, str], params: Mapping[str, Any]
) -> Study:
    """Resume the newest unfinished study with this tag, or begin one.

    Args:
        tracking: The server.
        project: The experiment's name.
        tag: What the study is of: equal tags mean equal trials.
        tags: More tags of a new parent run.
        params: Parameters of a new parent run.
    """
    from mlflow.entities import Param

    experiment = tracking.find_experiment(project)
    for run in tracking.search(
        [experiment], f"tags.`{STUDY}` = '{tag}' and tags.`{KIND}` = 'study'", limit=20
    ):
        if run.info.status != "FINISHED":
            run_id = str(run.info.run_id)
            with tracking.translate("resuming the study"):
                tracking.client.update_run(run_id, status="RUNNING")
            return Study(tracking, experiment, run_id, tag)
    with tracking.translate("beginning the study"):
        run = tracking.client.create_run(
            experiment, run_name=f"study-{tag[:8]}", tags={**tags, STUDY: tag, KIND: "study"}
        )
        run_id = str(run.info.run_id)
        tracking.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])
    return Study(tracking, experiment, run_id, tag)


def _thin(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most about `_CURVE_POINTS` points of a curve, its last one among them."""
    step = max(1, -(-len(curve) // _CURVE_POINTS))
    points = list(curve[::step])
    if curve and points[-1] != curve[-1]:
        points.append(curve[-1])
    return points
