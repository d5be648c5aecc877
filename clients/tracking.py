"""Experiments and the model registry: MLflow, through its client and nothing global of it."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from clients.errors import ClientError, NotFoundError, RefusedError, UnreachableError
from clients.flavor import MODEL_FOLDER, write_pointer
from clients.settings import Settings

logger = logging.getLogger("tenure.tracking")

CHAMPION = "champion"
"""Alias of the version that serves."""

CHALLENGER = "challenger"
"""Alias of the version that wants to."""

KIND = "tenure.kind"
STUDY = "tenure.study"
TRIAL = "tenure.trial"
BUNDLE = "tenure.bundle"
STORAGE = "tenure.uri"

_TAG_LENGTH = 5000  # MLflow cuts tag values off at 8,000 characters; some servers still at 5,000
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


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    version: str
    digest: str
    """SHA-256 of the bundle."""
    uri: str
    """Where the bundle is stored."""
    run_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


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
            parts = [record[at : at + _TAG_LENGTH] for at in range(0, len(record), _TAG_LENGTH)]
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


class Tracking:
    """The tracking server. Every method raises UnreachableError, NotFoundError or RefusedError."""

    def __init__(self, client: Any, url: str) -> None:
        self.client = client
        """The `MlflowClient`, for what is not wrapped here."""
        self.url = url

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Build the client (importing it takes 2 s); sends nothing yet."""
        # MLflow reads these when it is imported or asked; its own defaults report usage to its makers,
        # print links, and keep on asking a dead server for many minutes.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow import MlflowClient

        url = settings.tracking_url
        return cls(MlflowClient(tracking_uri=url, registry_uri=url), url)

    def find_experiment(self, name: str) -> str:
        """Return the id of the experiment called `name`, which is created if there is none."""
        from mlflow.exceptions import MlflowException

        with self.translate(f"experiment {name}"):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                try:
                    return str(self.client.create_experiment(name))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = self.client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise RefusedError(
                f"{self.url}: experiment {name} is deleted: restore it with `mlflow experiments restore`"
            )
        return str(found.experiment_id)

    def open_study(
        self, project: str, tag: str, *, tags: Mapping[str, str], params: Mapping[str, Any]
    ) -> Study:
        """Resume the newest unfinished study with this tag, or begin one.

        Args:
            project: The experiment's name.
            tag: What the study is of: equal tags mean equal trials.
            tags: More tags of a new parent run.
            params: Parameters of a new parent run.
        """
        from mlflow.entities import Param

        experiment = self.find_experiment(project)
        for run in self.search(
            [experiment], f"tags.`{STUDY}` = '{tag}' and tags.`{KIND}` = 'study'", limit=20
        ):
            if run.info.status != "FINISHED":
                run_id = str(run.info.run_id)
                with self.translate("resuming the study"):
                    self.client.update_run(run_id, status="RUNNING")
                return Study(self, experiment, run_id, tag)
        with self.translate("beginning the study"):
            run = self.client.create_run(
                experiment, run_name=f"study-{tag[:8]}", tags={**tags, STUDY: tag, KIND: "study"}
            )
            run_id = str(run.info.run_id)
            self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])
        return Study(self, experiment, run_id, tag)

    def search(self, experiments: Sequence[str], query: str, limit: int | None = None) -> Iterator[Any]:
        """Yield the runs that match, newest first."""
        token: str | None = None
        while True:
            with self.translate("searching runs"):
                page = self.client.search_runs(
                    list(experiments),
                    query,
                    order_by=["attributes.start_time DESC"],
                    max_results=min(limit or 500, 500),
                    page_token=token,
                )
            yield from page
            token = page.token
            if not token or limit is not None:
                return

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log flat numbers to a run; a number that is not finite is left out."""
        from math import isfinite

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, 0) for name, value in metrics.items() if isfinite(value)]
        with self.translate(f"logging metrics to run {run_id}"):
            for start in range(0, len(batch), 900):
                self.client.log_batch(run_id, metrics=batch[start : start + 900])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        from mlflow.entities import RunTag

        with self.translate(f"tagging run {run_id}"):
            self.client.log_batch(
                run_id, tags=[RunTag(name, value[:_TAG_LENGTH]) for name, value in tags.items()]
            )

    def log_text(self, run_id: str, text: str, file: str) -> None:
        """Store a text as the run's artifact `file`."""
        with self.translate(f"storing {file} of run {run_id}"):
            self.client.log_text(run_id, text, file)

    def load_text(self, run_id: str, file: str) -> str:
        """Return an artifact of a run that holds text."""
        with self.translate(f"reading {file} of run {run_id}"), tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, file, folder)).read_text(encoding="utf-8")

    def get_tags(self, run_id: str) -> dict[str, str]:
        """Return the tags of a run."""
        with self.translate(f"reading run {run_id}"):
            return dict(self.client.get_run(run_id).data.tags)

    def register_bundle(
        self, model: str, run_id: str, digest: str, uri: str, tags: Mapping[str, str] | None = None
    ) -> Version:
        """Register a bundle as a version of `model`; the same bundle again gives the same version.

        The version's source is a small directory of the run that says where the bundle is (`clients.flavor`).
        """
        from mlflow.exceptions import MlflowException

        found = self.find_version(model, digest)
        if found is not None:
            return found
        with self.translate(f"registering bundle {digest[:12]} as a version of {model}"):
            try:
                self.client.create_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            run = self.client.get_run(run_id)
            with tempfile.TemporaryDirectory() as directory:
                write_pointer(Path(directory), digest=digest, uri=uri, run_id=run_id)
                self.client.log_artifacts(run_id, directory, MODEL_FOLDER)
            created = self.client.create_model_version(
                model,
                source=f"{run.info.artifact_uri}/{MODEL_FOLDER}",
                run_id=run_id,
                tags={**(tags or {}), BUNDLE: digest, STORAGE: uri},
            )
        return _read_version(created)

    def find_version(self, model: str, digest: str) -> Version | None:
        """Return the version of `model` that holds the bundle, or None."""
        with self.translate(f"looking for bundle {digest[:12]} in {model}"):
            found = self.client.search_model_versions(f"name = '{model}' and tags.`{BUNDLE}` = '{digest}'")
        return _read_version(found[0]) if found else None

    def find_alias(self, model: str, alias: str) -> Version | None:
        """Return the version of `model` that carries the alias, or None."""
        try:
            with self.translate(f"reading {model}@{alias}"):
                return _read_version(self.client.get_model_version_by_alias(model, alias))
        except NotFoundError:
            return None

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point the alias at a version, and at no other."""
        with self.translate(f"setting {model}@{alias}"):
            self.client.set_registered_model_alias(model, alias, version)

    def delete_alias(self, model: str, alias: str) -> None:
        """Take the alias away, wherever it points."""
        with self.translate(f"deleting {model}@{alias}"):
            self.client.delete_registered_model_alias(model, alias)

    def tag_version(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self.translate(f"tagging {model} version {version}"):
            for name, value in tags.items():
                self.client.set_model_version_tag(model, version, name, value[:_TAG_LENGTH])

    @contextmanager
    def translate(self, action: str) -> Iterator[None]:
        """Turn MLflow's exceptions into ours."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise _translate(error, f"{self.url}: {action}") from error


def _translate(error: Any, action: str) -> ClientError:
    text = f"{action}: {error.message}"
    if error.error_code == "RESOURCE_DOES_NOT_EXIST" or ("alias" in text and "not found" in text):
        return NotFoundError(text)
    status = getattr(error, "get_http_status_code", lambda: 0)()
    if ("API request to" in text and "failed with exception" in text) or status in (502, 503, 504):
        return UnreachableError(f"{text}. Is the tracking server up?")
    return RefusedError(text)


def _read_version(found: Any) -> Version:
    tags = dict(found.tags)
    digest, uri = tags.get(BUNDLE), tags.get(STORAGE)
    if digest is None or uri is None:
        raise RefusedError(
            f"version {found.version} of {found.name} has no tags {BUNDLE} and {STORAGE}: "
            "it was not registered by Tenure"
        )
    return Version(found.name, str(found.version), digest, uri, found.run_id, tags)


def _thin(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most about `_CURVE_POINTS` points of a curve, its last one among them."""
    step = max(1, -(-len(curve) // _CURVE_POINTS))
    points = list(curve[::step])
    if curve and points[-1] != curve[-1]:
        points.append(curve[-1])
    return points
