"""From a cause to a run: one run for each cause, whatever dies in between.

Each step is a change of the cause's row that is committed before anything outside happens:

    waiting -> submitting   arguments, pipeline version and run name are fixed
    submitting -> running   a run of that name was found, or else started
    running -> succeeded | failed
    waiting -> dropped      another model serves by now

The name of the run holds the cause's id. Whoever finds a row in `submitting` looks for the run of that name
before anything is started, so that a process that died behind its own request starts nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from clients.errors import ClientError, NotFoundError, RefusedError, UnreachableError
from clients.ledger.instant import from_us, to_us
from clients.run import PipelineVersion, Run
from serving.detector.cause import (
    OPEN,
    Cause,
    Order,
    State,
    name_drift,
    read_causes,
    write_arguments,
    write_order,
)
from serving.detector.obstacle import Obstacles, find_start

if TYPE_CHECKING:
    from clients.ledger.reader import Ledger
    from clients.notification import Notifier
    from clients.runs import Runs
    from serving.detector.champion import Champion
    from serving.detector.metrics import Metrics
    from serving.detector.writer import Writer
    from tenure.drift.verdict import Verdict

logger = logging.getLogger("tenure.detector")

GRACE = timedelta(seconds=10)
"""How long a request to start a run may be on its way after whoever sent it has died or given up."""


class Trigger:
    """Opens causes and leads them to their runs. One thread at a time uses it.

    Args:
        ledger: For reading.
        writer: For the table of causes.
        metrics: Counts the states that causes reach.
        connect: Returns the runs API; called when it is needed first, and again after it failed.
        notifier: Whom to tell of failed runs.
        clock: The time.
        image: What the steps of a run shall run in; by default the pipeline's own choice.
    """

    def __init__(
        self,
        ledger: Ledger,
        writer: Writer,
        metrics: Metrics,
        connect: Callable[[], Runs],
        notifier: Notifier,
        clock: Callable[[], datetime],
        image: str | None = None,
    ) -> None:
        self._ledger = ledger
        self._writer = writer
        self._metrics = metrics
        self._connect = connect
        self._notifier = notifier
        self._clock = clock
        self._image = image
        self._runs: Runs | None = None
        self._told: set[str] = set()
        self._obstacles = Obstacles(ledger)

    def open(self, verdict: Verdict, champion: Champion) -> Cause | None:
        """Open a cause for an alarm, unless the champion's drift has an open one already.

        As long as the customers stay changed every window alarms, and all of that is one cause. When it has
        ended and the champion still serves (the gate said no, the run failed, the canary was taken back),
        a window that lies wholly behind that end opens the next one.

        Returns:
            The cause, if it is new.
        """
        kinds = champion.project.retraining.on
        if not set(kinds) & set(verdict.kinds):
            return None
        earlier = [
            cause
            for cause in self._read(verdict.service)
            if cause.kind == "drift" and cause.detail["version"] == verdict.version
        ]
        if any(cause.state in OPEN for cause in earlier):
            return None
        if any(verdict.since <= cause.updated for cause in earlier):
            return None
        cause = name_drift(verdict, len(earlier), kinds)
        if not self._writer.save_cause(**cause.to_row()):
            return None
        logger.info("%s: cause %s: %s", cause.service, cause.id, cause.reason)
        self._show(cause)
        return cause

    def advance(self, service: str, champion: Champion | None) -> None:
        """Take each open cause of a service as far as it comes now.

        Args:
            service: The InferenceService.
            champion: Who serves; without one only what was submitted is followed.

        Raises:
            ClientError: The ledger cannot be read.
            LedgerError: The ledger cannot be written.
        """
        causes = self._read(service, OPEN)
        busy: Cause | None = None
        for cause in causes:
            if cause.state != "waiting" and not self._follow(cause):
                busy = busy or cause
        if champion is None:
            return
        for cause in causes:
            if cause.state != "waiting":
                continue
            if cause.kind == "drift" and cause.detail["version"] != champion.version:
                self._end(cause, "dropped", f"{champion.version} serves by now")
                continue
            why = self._obstacles.find(cause, champion, busy, self._clock())
            if why is not None:
                self._note(cause, why)
            else:
                busy = self._submit(cause, champion)

    def _read(self, service: str, states: tuple[str, ...] | None = None) -> list[Cause]:
        return read_causes(self._ledger, service, states)

    def _note(self, cause: Cause, note: str) -> None:
        if note != cause.note:
            self._writer.update_cause(cause.id, expected_state=cause.state, note=note)

    def _submit(self, cause: Cause, champion: Champion) -> Cause | None:
        """Fix what is to run, and ask for it; returns the cause that is busy with a run now."""
        try:
            pipeline = self._open_runs().find_version()
        except ClientError as error:
            self._runs = None
            self._note(cause, f"waits for the pipeline: {error}")
            return None
        now = self._clock()
        since = find_start(cause, champion, now) if cause.kind == "drift" else None
        order = write_order(cause, champion, pipeline)
        submitted = replace(
            cause,
            state="submitting",
            note=f"is submitted as {order.name!r}",
            detail={**cause.detail, "order": asdict(order)},
            arguments=write_arguments(cause, champion, since, now, self._image),
        )
        if not self._save(submitted, "waiting"):
            return cause  # another detector was faster
        self._follow(submitted)
        return submitted

    # submitting and running

    def _follow(self, cause: Cause) -> bool:
        """Find, start or look after the run of a cause; returns whether it has ended."""
        try:
            if cause.state == "submitting":
                self._start(cause)
                return False
            return self._look(cause)
        except UnreachableError as error:
            self._runs = None
            logger.warning("%s: cause %s: %s", cause.service, cause.id, error)
            return False

    def _start(self, cause: Cause) -> None:
        order = Order(**cause.detail["order"])
        found = self._open_runs().find(order.name, order.experiment)
        if found is not None:
            self._save(replace(cause, state="running", run_id=found.id, note="runs"), "submitting")
            return
        now = self._clock()
        if order.asked_at is not None and now < from_us(order.asked_at) + GRACE:
            return
        asked = asdict(replace(order, asked_at=to_us(now)))
        cause = replace(cause, detail={**cause.detail, "order": asked})
        if not self._save(cause, "submitting"):
            return
        pipeline = PipelineVersion(order.pipeline_id, order.version_id, order.version)
        try:
            run_id = self._open_runs().start(pipeline, cause.arguments or {}, order.name, order.experiment)
        except NotFoundError as error:
            # The version was deleted: nothing runs, and the next attempt takes the newest.
            self._save(replace(cause, state="waiting", note=str(error), arguments=None), "submitting")
        except RefusedError as error:
            self._tell(cause, f"was refused: {error}")
            self._end(cause, "failed", f"the run was refused: {error}")
        else:
            logger.info("%s: cause %s: run %s is started", cause.service, cause.id, run_id)
            self._save(replace(cause, state="running", run_id=run_id, note="runs"), "submitting")

    def _look(self, cause: Cause) -> bool:
        try:
            run = self._open_runs().get(str(cause.run_id))
        except NotFoundError as error:
            self._tell(cause, f"is gone: {error}")
            self._end(cause, "failed", f"the run is gone: {error}")
            return True
        if not run.done:
            self._note(cause, _describe_progress(run))
            return False
        if run.succeeded:
            self._end(cause, "succeeded", _describe_end(run))
        else:
            text = f"{run.state.lower()}: {run.error or 'it gave no reason, see its log'}"
            self._tell(cause, f"ended, {text}")
            self._end(cause, "failed", f"the run {text}")
        return True

    def _open_runs(self) -> Runs:
        if self._runs is None:
            self._runs = self._connect()
        return self._runs

    def _save(self, cause: Cause, expected: str) -> bool:
        changed = self._writer.update_cause(
            cause.id,
            expected_state=expected,
            state=cause.state,
            note=cause.note,
            detail=cause.detail,
            arguments=cause.arguments,
            run_id=cause.run_id,
        )
        if changed and cause.state != expected:
            self._show(cause)
        return changed

    def _show(self, cause: Cause) -> None:
        self._metrics.triggers.labels(cause.service, cause.kind, cause.state).inc()

    def _end(self, cause: Cause, state: State, note: str) -> None:
        logger.info("%s: cause %s %s: %s", cause.service, cause.id, state, note)
        self._save(replace(cause, state=state, note=note), cause.state)
        self._obstacles.forget(cause)
        self._told.discard(cause.id)

    def _tell(self, cause: Cause, what: str) -> None:
        """Tell people before the row says so: rather twice than never."""
        if cause.id not in self._told:
            title = f"{cause.service}: a run that nobody asked for {what.split(':')[0].split(',')[0]}"
            text = f"The run for {cause.reason} {what}\nThe model that serves goes on.\ncause {cause.id}"
            self._notifier.notify("run", title, text)
            self._told.add(cause.id)


def _describe_progress(run: Run) -> str:
    step = next((step.name for step in reversed(run.steps) if step.state == "RUNNING"), None)
    return f"runs: {step}" if step else "runs"


def _describe_end(run: Run) -> str:
    """Say what a run that ended well has led to; the gate itself has told people of its no."""
    states: Mapping[str, Any] = {step.name: step.state for step in run.steps}
    if "gate" in states and states.get("rollout", "SKIPPED") == "SKIPPED":
        return "the gate said no: the model that serves goes on"
    return "the run succeeded"
