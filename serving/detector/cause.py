"""A cause: why the pipeline should run by itself, and what it runs with."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from clients.ledger.instant import EPOCH, to_us
from tenure.canonical import dump_canonical

if TYPE_CHECKING:
    from clients.ledger.reader import Ledger
    from clients.run import PipelineVersion
    from clients.store import Stored
    from serving.detector.champion import Champion
    from tenure.drift.verdict import Verdict

State = Literal["waiting", "submitting", "running", "succeeded", "failed", "dropped"]

OPEN: tuple[State, ...] = ("waiting", "submitting", "running")
"""Those that still lead somewhere."""


@dataclass(frozen=True)
class Cause:
    """One row of the ledger's table of causes.

    Attributes:
        id: 32 hexadecimal digits; the same cause has the same.
        service: The InferenceService.
        kind: "drift", "data" (a new object), or "watch" (the objects that were there when a watch began).
        reason: What a person reads.
        detail: What the trigger needs to know; drift: `version`, `since`, `kinds`; data: `uri`;
            both: `order`, once it is submitted.
        state: How far it has come.
        note: What it waits for, or why it ended so.
        arguments: The run's parameters, fixed before it is submitted.
        run_id: The run, once it is known.
        created: When it was opened.
        updated: When its state or note changed last.
    """

    id: str
    service: str
    kind: str
    reason: str
    detail: Mapping[str, Any]
    state: State = "waiting"
    note: str = ""
    arguments: Mapping[str, Any] | None = None
    run_id: str | None = None
    created: datetime = EPOCH
    updated: datetime = EPOCH

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Cause:
        """Read a row of `Ledger.read_causes`."""
        return cls(
            id=row["id"],
            service=row["service"],
            kind=row["kind"],
            reason=row["reason"],
            detail=row["detail"],
            state=row["state"],
            note=row["note"],
            arguments=row["arguments"],
            run_id=row["run_id"],
            created=row["created_at"],
            updated=row["updated_at"],
        )

    def to_row(self) -> dict[str, Any]:
        """Return what the writer saves when the cause is new."""
        return {
            "id": self.id,
            "service": self.service,
            "kind": self.kind,
            "reason": self.reason,
            "detail": self.detail,
            "state": self.state,
            "note": self.note,
        }


@dataclass(frozen=True)
class Order:
    """What is submitted for a cause: fixed in its row before anything is asked of the runs API.

    Attributes:
        name: The run's name; the cause's id in it makes it the only one.
        experiment: What groups the run.
        pipeline_id: The uploaded pipeline.
        version_id: The version of it.
        version: That version's name.
        asked_at: When the runs API was asked to start it, in microseconds since 1970; None if it never was.
    """

    name: str
    experiment: str
    pipeline_id: str
    version_id: str
    version: str
    asked_at: int | None = field(default=None)


def read_causes(ledger: Ledger, service: str, states: Collection[str] | None = None) -> list[Cause]:
    """Return a service's causes, oldest first.

    Raises:
        ClientError: The ledger cannot be read.
    """
    return [Cause.from_row(row) for row in ledger.read_causes(service, states)]


def identify(*parts: str | int) -> str:
    """Return the id of the cause that these parts make: 32 digits of their SHA-256."""
    return hashlib.sha256(dump_canonical(list(parts))).hexdigest()[:32]


def name_drift(verdict: Verdict, episode: int, kinds: tuple[str, ...]) -> Cause:
    """Return the cause that an alarm makes.

    Args:
        verdict: With at least one alarm of `kinds`.
        episode: How many causes of drift this champion has had that have ended.
        kinds: Which kinds of drift start a run.
    """
    alarms = [finding for finding in verdict.alarms if finding.kind in kinds]
    detail = {
        "version": verdict.version,
        "family": verdict.family,
        "window": verdict.number,
        "kinds": sorted({finding.kind for finding in alarms}),
        "columns": [finding.column for finding in alarms],
        "since": min(finding.since for finding in alarms).astimezone(UTC).isoformat(),
    }
    name = identify(verdict.service, verdict.version, "drift", episode)
    return Cause(name, verdict.service, "drift", verdict.describe(), detail)


def name_object(service: str, stored: Stored) -> Cause:
    """Return the cause that a new object makes; the same address written anew is another one."""
    name = identify(service, "data", stored.uri, stored.size, to_us(stored.modified))
    return Cause(name, service, "data", f"new data: {stored.uri}", {"uri": stored.uri})


def write_order(cause: Cause, champion: Champion, pipeline: PipelineVersion) -> Order:
    """Return the order of a cause: the same cause always gets the same run name."""
    what = "+".join(cause.detail["kinds"]) + " drift" if cause.kind == "drift" else "new data"
    return Order(
        name=f"{champion.project.name} {what} {cause.id}",
        experiment=champion.project.name,
        pipeline_id=pipeline.pipeline_id,
        version_id=pipeline.version_id,
        version=pipeline.name,
    )


def write_arguments(
    cause: Cause, champion: Champion, since: datetime | None, until: datetime, image: str | None = None
) -> dict[str, str]:
    """Return the run's parameters.

    Args:
        cause: What it runs for.
        champion: Its project is what the pipeline gets.
        since: From when on the ledger's customers are taken; unused for new data.
        until: Up to when.
        image: What the steps shall run in; by default the pipeline's own choice.
    """
    if cause.kind == "data" or since is None:
        source = cause.detail["uri"]
    else:
        rows = champion.project.retraining.min_rows
        source = (
            f"ledger://{cause.service}?since={format_time(since)}&until={format_time(until)}&min_rows={rows}"
        )
    arguments = {"project": champion.project.model_dump_json(), "source": source, "reason": cause.reason}
    return {**arguments, "image": image} if image else arguments


def format_time(time: datetime) -> str:
    """Write a time as it may stand in an address: UTC with a Z, no plus sign."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
