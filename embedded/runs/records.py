"""What the server remembers: experiments, pipelines, their versions, runs, and recurring runs."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, JsonValue

from embedded.runs.schedule import Times

AVAILABLE = "AVAILABLE"
ARCHIVED = "ARCHIVED"


class Record(BaseModel):
    """Base of the records; `id` is the primary key of each kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    display_name: str
    description: str = ""
    created_at: str


class Experiment(Record):
    """A named group of runs."""

    storage_state: str = AVAILABLE
    last_run_created_at: str | None = None


class Pipeline(Record):
    """A named series of versions."""

    name: str
    tags: dict[str, str] = {}


class Version(Record):
    """One uploaded package of a pipeline."""

    pipeline_id: str
    name: str
    code_source_url: str = ""
    tags: dict[str, str] = {}
    spec: dict[str, JsonValue]


class StateChange(BaseModel):
    """A state that a run has been in since `time`."""

    model_config = ConfigDict(frozen=True)

    time: str
    state: str
    error: str | None = None


class Run(Record):
    """One run of a pipeline, whatever became of it.

    `pid` and `started` (seconds since the epoch, as psutil tells it) name the executor's process beyond the
    re-use of process ids.
    """

    experiment_id: str
    storage_state: str = AVAILABLE
    pipeline_id: str | None = None
    pipeline_version_id: str | None = None
    service_account: str = ""
    recurring_run_id: str | None = None
    scheduled_at: str
    finished_at: str | None = None
    state: str
    error: str | None = None
    history: tuple[StateChange, ...] = ()
    attempt: int = 1
    pid: int | None = None
    started: float | None = None

    def move(self, state: str, time: str, error: str | None = None) -> Run:
        """Return the run in another state, with its history."""
        change = StateChange(time=time, state=state, error=error)
        return self.model_copy(update={"state": state, "error": error, "history": (*self.history, change)})


class Recurring(Record):
    """Runs that a clock starts.

    `last_time` is the newest of its times that a run was made for (or could not be, see `error`).
    """

    updated_at: str
    experiment_id: str
    pipeline_id: str | None = None
    pipeline_version_id: str | None = None
    spec: dict[str, JsonValue] | None = None
    parameters: dict[str, JsonValue] = {}
    service_account: str = ""
    max_concurrency: int
    catch_up: bool
    cron: str = ""
    interval: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    enabled: bool
    last_time: str | None = None
    error: str | None = None

    def times(self) -> Times:
        """Return when it is due."""
        start = self.start_time or datetime.fromisoformat(self.created_at)
        return Times(self.cron, self.interval, start, self.end_time)

    def served(self) -> datetime:
        """Return the time that it was last served, or made."""
        return datetime.fromisoformat(self.last_time or self.created_at)
