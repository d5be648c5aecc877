"""Pipeline runs: submit, follow, end; through `kfp.Client`."""

from __future__ import annotations

import contextlib
import io
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from clients.errors import ClientError, ConflictError, NotFoundError, RefusedError, UnreachableError
from clients.settings import Settings

FINISHED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR"})
"""States that a run does not leave."""

_LOG_PATH = "/apis/v1alpha1/runs/{run}/nodes/{node}/log"


@dataclass(frozen=True)
class Step:
    """One task of a run; times are UTC, None until known."""

    name: str
    state: str
    started: datetime | None = None
    finished: datetime | None = None
    error: str | None = None
    node: str | None = None
    """What the runs API calls the process or pod that ran it."""


@dataclass(frozen=True)
class Run:
    """A pipeline run as the runs API tells it."""

    id: str
    name: str
    state: str
    created: datetime | None = None
    finished: datetime | None = None
    steps: tuple[Step, ...] = ()
    error: str | None = None

    @property
    def done(self) -> bool:
        """Whether its state is final."""
        return self.state in FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether it ended well (a rejected challenger is a good end too)."""
        return self.state == "SUCCEEDED"


class Runs:
    """The runs API. Every method raises NotFoundError, RefusedError or UnreachableError."""

    def __init__(self, client: Any, url: str, token: str | None) -> None:
        self._client = client
        self._url = url
        self._token = token

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Build the client (importing kfp takes a second) and ask the address for its health."""
        import httpx

        url = settings.runs_url.rstrip("/")
        token = settings.runs_token.get_secret_value() if settings.runs_token else None
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            # kfp.Client asks too, but gives a dead address half a minute.
            answer = httpx.get(
                f"{url}/apis/v2beta1/healthz", headers=headers, timeout=10, trust_env=not _is_local(url)
            )
        except httpx.TransportError as error:
            raise UnreachableError(
                f"{url}: no answer ({error}). Is the platform up? `tenure status`"
            ) from error
        if answer.status_code in (401, 403):
            raise RefusedError(
                f"{url}: the token is refused (status {answer.status_code}): TENURE_RUNS_TOKEN"
            )
        if answer.status_code >= 400:
            raise UnreachableError(f"{url}: its health check answers with status {answer.status_code}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it warns of servers older than 2.0
            from kfp.client import Client

            return cls(Client(host=url, existing_token=token), url, token)

    def submit(
        self,
        package_path: Path | str,
        arguments: Mapping[str, Any],
        name: str,
        experiment: str,
        *,
        service_account: str | None = None,
    ) -> str:
        """Start a run of a compiled pipeline and return the run's id.

        Args:
            package_path: The YAML that `kfp` compiled.
            arguments: Pipeline parameters by name.
            name: What the run is called.
            experiment: Groups runs; it is created if there is none.
            service_account: The account that its pods run as, on a cluster.

        Raises:
            RefusedError: No such file, or the server refuses the pipeline or an argument.
        """
        if not Path(package_path).is_file():
            raise RefusedError(f"{package_path}: there is no such compiled pipeline; run `kfp dsl compile`")
        with self._translate(f"submitting {package_path}"):
            result = self._client.create_run_from_pipeline_package(
                str(package_path),
                arguments=dict(arguments),
                run_name=name,
                experiment_name=experiment,
                service_account=service_account,
            )
        return str(result.run_id)

    def get(self, run_id: str) -> Run:
        """Return a run with its steps."""
        with self._translate(f"run {run_id}"):
            return _read_run(self._client.get_run(run_id))

    def list(self, limit: int = 20) -> tuple[Run, ...]:
        """Return the newest runs."""
        with self._translate("listing runs"):
            answer = self._client.list_runs(page_size=limit, sort_by="created_at desc")
        return tuple(_read_run(run) for run in answer.runs or ())

    def terminate(self, run_id: str) -> None:
        """Ask a run to end; it is CANCELED soon after."""
        with self._translate(f"ending run {run_id}"):
            self._client.terminate_run(run_id)

    def follow(self, run_id: str, timeout_seconds: float, interval: float = 0.5) -> Iterator[Run]:
        """Yield the run whenever it changed, at last in its final state.

        Raises:
            UnreachableError: The server was silent for 30 s.
            RefusedError: The run was not done when time was up; the text has its last state.
        """
        deadline = time.monotonic() + timeout_seconds
        silent_since: float | None = None
        last: Run | None = None
        while True:
            try:
                run = self.get(run_id)
                silent_since = None
            except UnreachableError:
                # The server may be restarted while its run goes on.
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > 30:
                    raise
            else:
                if run != last:
                    yield run
                last = run
                if run.done:
                    return
            if time.monotonic() > deadline:
                state = last.state if last else "unknown"
                raise RefusedError(
                    f"{self._url}: run {run_id} is still {state} after {timeout_seconds:g} s; it goes on. "
                    f"End it with `tenure run terminate {run_id}`"
                )
            time.sleep(interval)

    def wait(
        self, run_id: str, timeout_seconds: float, on_change: Callable[[Run], None] | None = None
    ) -> Run:
        """Follow a run to its end and return it; raises as `follow` does."""
        last = None
        for run in self.follow(run_id, timeout_seconds):
            last = run
            if on_change is not None:
                on_change(run)
        assert last is not None  # noqa: S101 - follow yields the final state
        return last

    def log(self, run_id: str, step: str) -> str:
        """Return what a step printed.

        Raises:
            NotFoundError: No such run or step, or its output is gone.
        """
        import httpx

        run = self.get(run_id)
        found = next((item for item in run.steps if item.name == step), None)
        if found is None:
            names = ", ".join(item.name for item in run.steps) or "none yet"
            raise NotFoundError(f"run {run_id} has no step {step!r}; its steps: {names}")
        path = _LOG_PATH.format(run=quote(run_id, safe=""), node=quote(found.node or step, safe=""))
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            answer = httpx.get(
                f"{self._url}{path}", headers=headers, timeout=30, trust_env=not _is_local(self._url)
            )
        except httpx.TransportError as error:
            raise UnreachableError(f"{self._url}{path}: no answer ({error})") from error
        if answer.status_code == 404:
            raise NotFoundError(f"{self._url}{path}: the step left no output here")
        if answer.status_code != 200:
            raise RefusedError(f"{self._url}{path}: status {answer.status_code}: {answer.text[:300]}")
        return answer.text

    @contextmanager
    def _translate(self, action: str) -> Iterator[None]:
        """Turn kfp's exceptions into ours, and keep its links to a web page off our output."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except ApiException as error:
            raise _translate_status(error, f"{self._url}: {action}") from error
        except HTTPError as error:
            raise UnreachableError(f"{self._url}: {action}: no answer ({error})") from error


def _is_local(url: str) -> bool:
    """Say whether the URL points at this machine, where a proxy from the environment cannot help."""
    return url.startswith(("http://127.", "http://localhost", "http://[::1]"))


def _read_run(run: Any) -> Run:
    details = run.run_details.task_details if run.run_details else None
    steps = [_read_step(task) for task in details or () if _is_step(task)]
    steps.sort(key=lambda step: (step.started is None, step.started.timestamp() if step.started else 0.0))
    error = run.error.message if run.error else None
    if error is None:
        error = next((f"{step.name}: {step.error}" for step in steps if step.error), None)
    return Run(
        id=str(run.run_id),
        name=str(run.display_name),
        state=str(run.state or "PENDING").upper(),
        created=run.created_at,
        finished=run.finished_at if str(run.state).upper() in FINISHED else None,
        steps=tuple(steps),
        error=error,
    )


def _is_step(task: Any) -> bool:
    """Leave out what a backend adds: the graph itself, its conditions, and the driver of each task."""
    name = str(task.display_name or "")
    return (
        bool(name) and name != "root" and not name.endswith("-driver") and not name.startswith("condition-")
    )


def _read_step(task: Any) -> Step:
    pods = [child.pod_name for child in task.child_tasks or () if child.pod_name]
    return Step(
        name=str(task.display_name),
        state=str(task.state or "PENDING").upper(),
        started=task.start_time,
        finished=task.end_time,
        error=task.error.message if task.error else None,
        node=task.pod_name or (pods[-1] if pods else None),
    )


def _translate_status(error: Any, action: str) -> ClientError:
    try:
        document = json.loads(error.body)
        message = document.get("message") or document.get("error_message") or document
    except (TypeError, ValueError, AttributeError):
        message = error.reason or "no reason given"
    text = f"{action}: {message}"
    if error.status == 404:
        return NotFoundError(text)
    if error.status == 409:
        return ConflictError(text)
    if not error.status or error.status in (429, 502, 503, 504):
        return UnreachableError(f"{text} (status {error.status})")
    return RefusedError(f"{text} (status {error.status})")
