"""Experiments and the model registry: MLflow, through its client and nothing global of it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from clients.errors import ClientError, NotFoundError, RefusedError, UnreachableError
from clients.flavor import MODEL_FOLDER, write_pointer
from clients.settings import Settings

CHAMPION = "champion"
"""Alias of the version that serves."""

CHALLENGER = "challenger"
"""Alias of the version that wants to."""

BUNDLE = "tenure.bundle"
STORAGE = "tenure.uri"

TAG_LENGTH = 5000  # MLflow cuts tag values off at 8,000 characters; some servers still at 5,000

_WRITES = 3
_CONFLICTS = ("IntegrityError", "UniqueViolation", "0 were matched")
"""What the server's database says (SQLite, PostgreSQL, SQLAlchemy) when another client was faster."""


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
        # The server would send it on to the object store, by a name that only pods can resolve.
        os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
        os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
        # It takes its login from the environment only.
        if settings.tracking_username and settings.tracking_password:
            os.environ["MLFLOW_TRACKING_USERNAME"] = settings.tracking_username
            os.environ["MLFLOW_TRACKING_PASSWORD"] = settings.tracking_password.get_secret_value()
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
                run_id, tags=[RunTag(name, value[:TAG_LENGTH]) for name, value in tags.items()]
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
        When several runs register one bundle at once, all of them get the first of their versions.
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
        # The server knows no "unless there is one": who sees an older version takes its own back.
        first = self.find_version(model, digest)
        if first is None or first.version == str(created.version):
            return _read_version(created)
        with self.translate(f"deleting version {created.version} of {model}, the same as {first.version}"):
            self.client.delete_model_version(model, created.version)
        return first

    def find_version(self, model: str, digest: str) -> Version | None:
        """Return the version of `model` that holds the bundle (the first, if there are several), or None."""
        with self.translate(f"looking for bundle {digest[:12]} in {model}"):
            found = self.client.search_model_versions(f"name = '{model}' and tags.`{BUNDLE}` = '{digest}'")
        # The others may be losing their tags, for they are being taken back.
        first = min(found, key=lambda version: int(version.version), default=None)
        return None if first is None else _read_version(first)

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
            _write(lambda: self.client.set_registered_model_alias(model, alias, version))

    def delete_alias(self, model: str, alias: str) -> None:
        """Take the alias away, wherever it points."""
        with self.translate(f"deleting {model}@{alias}"):
            self.client.delete_registered_model_alias(model, alias)

    def tag_version(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self.translate(f"tagging {model} version {version}"):
            for name, value in tags.items():
                _write(partial(self.client.set_model_version_tag, model, version, name, value[:TAG_LENGTH]))

    @contextmanager
    def translate(self, action: str) -> Iterator[None]:
        """Turn MLflow's exceptions into ours."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise _translate(error, f"{self.url}: {action}") from error


def _write(change: Callable[[], object]) -> None:
    """Make a change, again if another client wrote the same row at the same moment.

    MLflow's server looks for the row and then inserts or updates it; whoever comes second is refused with its
    database's error, and meets the row, or its absence, when it comes again.
    """
    from mlflow.exceptions import MlflowException

    for left in reversed(range(_WRITES)):
        try:
            change()
        except MlflowException as error:
            if not left or not any(conflict in error.message for conflict in _CONFLICTS):
                raise
        else:
            return


def _translate(error: Any, action: str) -> ClientError:
    text = f"{action}: {error.message}"
    if error.error_code == "RESOURCE_DOES_NOT_EXIST" or ("alias" in text and "not found" in text):
        return NotFoundError(text)
    status = getattr(error, "get_http_status_code", lambda: 0)()
    if ("API request to" in text and "failed with exception" in text) or status in (502, 503, 504):
        return UnreachableError(f"{text}. Is the tracking server up?")
    if error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return RefusedError(f"{text}. The login is TENURE_TRACKING_USERNAME and TENURE_TRACKING_PASSWORD")
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
