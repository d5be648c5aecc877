"""Pipelines and their runs: upload, start, follow, end, schedule; through `kfp.Client`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from clients.errors import NotFoundError, RefusedError, UnreachableError
from clients.kubeflow import PIPELINE, Kubeflow, is_local, match_name
from clients.run import FINISHED, PipelineVersion, Run, Schedule, Step, read_run, read_schedule

__all__ = ["FINISHED", "PIPELINE", "PipelineVersion", "Run", "Runs", "Schedule", "Step"]

_LOG_PATH = "/apis/v1alpha1/runs/{run}/nodes/{node}/log"


class Runs(Kubeflow):
    """Runs and schedules of uploaded pipelines.

    Every method raises NotFoundError, RefusedError or UnreachableError.
    """

    def start(
        self,
        pipeline: PipelineVersion,
        arguments: Mapping[str, Any],
        name: str,
        experiment: str,
        *,
        service_account: str | None = None,
    ) -> str:
        """Start a run of an uploaded pipeline version and return the run's id.

        Names need not be unique: to start one run for one cause whatever happens, put the cause into the
        name and ask `find` before.

        Args:
            pipeline: What to run.
            arguments: Pipeline parameters by name.
            name: What the run is called.
            experiment: Groups runs; it is created if there is none.
            service_account: The account that its pods run as, on a cluster; by default the settings'.

        Raises:
            RefusedError: The server refuses an argument.
            NotFoundError: The version is gone.
        """
        with self._translate(f"starting {name!r} from pipeline version {pipeline.name}"):
            run = self._client.run_pipeline(
                self._ensure_experiment(experiment),
                name,
                params=dict(arguments),
                pipeline_id=pipeline.pipeline_id,
                version_id=pipeline.version_id,
                service_account=service_account or self._account,
            )
        return str(run.run_id)

    def find(self, name: str, experiment: str | None = None) -> Run | None:
        """Return the newest run with exactly this name, without its steps; None if there is none.

        Args:
            name: The run's whole name.
            experiment: Look among this experiment's runs only.
        """
        with self._translate(f"looking for the run {name!r}"):
            group = None
            if experiment is not None:
                group = self._find_experiment(experiment)
                if group is None:
                    return None
            answer = self._client.list_runs(
                page_size=1, sort_by="created_at desc", experiment_id=group, filter=match_name(name)
            )
        return next((read_run(run) for run in answer.runs or ()), None)

    def get(self, run_id: str) -> Run:
        """Return a run with its steps."""
        with self._translate(f"run {run_id}"):
            return read_run(self._client.get_run(run_id))

    def list(self, limit: int = 20) -> tuple[Run, ...]:
        """Return the newest runs."""
        with self._translate("listing runs"):
            answer = self._client.list_runs(page_size=limit, sort_by="created_at desc")
        return tuple(read_run(run) for run in answer.runs or ())

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
        try:
            answer = httpx.get(
                f"{self._url}{path}",
                headers=self._token.headers(),
                timeout=30,
                trust_env=not is_local(self._url),
            )
        except httpx.TransportError as error:
            raise UnreachableError(f"{self._url}{path}: no answer ({error})") from error
        if answer.status_code == 404:
            raise NotFoundError(f"{self._url}{path}: the step left no output here")
        if answer.status_code != 200:
            raise RefusedError(f"{self._url}{path}: status {answer.status_code}: {answer.text[:300]}")
        return answer.text

    def schedule(
        self,
        pipeline: PipelineVersion,
        arguments: Mapping[str, Any],
        name: str,
        experiment: str,
        cron: str,
        *,
        max_concurrency: int = 1,
        service_account: str | None = None,
    ) -> Schedule:
        """Start runs of a pipeline version by a clock, for ever; of those missed the last is made up for.

        Args:
            pipeline: What to run: this version, also when a newer one is uploaded.
            arguments: Pipeline parameters by name.
            name: What it is called; its runs' names begin so.
            experiment: Groups runs; it is created if there is none.
            cron: Six fields in UTC, the first are seconds: `0 0 3 * * *` is every night at three.
            max_concurrency: A run is put off while as many of its runs are not done.
            service_account: The account that its pods run as, on a cluster; by default the settings'.

        Raises:
            RefusedError: The server refuses the cron expression or an argument.
        """
        with self._translate(f"scheduling {name!r} at {cron!r}"):
            made = self._client.create_recurring_run(
                self._ensure_experiment(experiment),
                name,
                cron_expression=cron,
                max_concurrency=max_concurrency,
                no_catchup=True,
                params=dict(arguments),
                pipeline_id=pipeline.pipeline_id,
                version_id=pipeline.version_id,
                service_account=service_account or self._account,
            )
        return read_schedule(made)

    def list_schedules(self) -> tuple[Schedule, ...]:
        """Return every schedule, the newest first."""
        found: list[Schedule] = []
        token = ""
        with self._translate("listing schedules"):
            while True:
                page = self._client.list_recurring_runs(
                    page_token=token,
                    page_size=100,
                    sort_by="created_at desc",
                    namespace=self._client.get_user_namespace() or None,
                )
                found += [read_schedule(item) for item in page.recurring_runs or ()]
                token = page.next_page_token or ""
                if not token:
                    return tuple(found)

    def delete_schedule(self, schedule_id: str) -> None:
        """Remove a schedule; runs that it has started go on.

        Raises:
            NotFoundError: There is none with this id.
        """
        with self._translate(f"removing schedule {schedule_id}"):
            self._client.delete_recurring_run(schedule_id)
