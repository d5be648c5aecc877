"""What is known of a canary: gathered from the gateway's counters, the ledger, and the bundles themselves.

The gateway's part is kept as `Progress.counters`, so it survives a restart. The ledger's part is read row by
row as it grows; a pilot that starts anew reads it again from the canary's beginning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from clients.errors import ClientError
from serving.pilot.comparison import Floats, Ledger, Match, read_outcomes
from serving.pilot.page import Backend
from serving.pilot.tally import CANARY, STABLE, count, to_traffic
from tenure.errors import BundleError
from tenure.judgement import Evidence, Progress

if TYPE_CHECKING:
    import pandas as pd

    from tenure.project import Project

logger = logging.getLogger("tenure.pilot")

TOLERANCE = 1e-6
"""By how much a logged score may differ from the bundle's own."""

BATCH = 2000
"""Rows that are read and scored in one pass."""

ROWS = 20_000
"""Rows whose scores are compared; more would tell nothing new."""

OUTCOMES_SECONDS = 10.0
"""How often matured outcomes are looked for."""


class Scores(Protocol):
    """The part of `serving.pilot.scoring.Rescorer` that evidence needs."""

    def score(self, uri: str, rows: list[Mapping[str, Any]]) -> Floats:
        """Return a bundle's scores of rows; NaN for a row that it refuses."""


@dataclass
class _Rows:
    """What has been read of the ledger for one match."""

    seq: int = 0
    differences: list[Floats] = field(default_factory=list)
    compared: int = 0
    mismatches: int = 0
    unscored: int = 0
    events: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    residuals: tuple[Floats, Floats] = (np.empty(0), np.empty(0))
    profits: tuple[Floats, Floats] = (np.empty(0), np.empty(0))
    outcomes_at: float = -OUTCOMES_SECONDS


class Collector:
    """Gathers evidence; heavy parts are done once and kept.

    Args:
        connect: Opens the ledger when it is first needed; None without one: then nothing but the gateway's
            counters is judged.
        scores: Scores logged rows again.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Ledger] | None,
        scores: Scores,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._ledger: Ledger | None = None
        self._scores = scores
        self._clock = clock
        self._rows: dict[tuple[str, str, datetime], _Rows] = {}

    def gather(
        self,
        match: Match,
        project: Project,
        progress: Progress,
        backends: tuple[Backend, Backend] | None,
        now: datetime,
    ) -> tuple[Progress, Evidence, str | None]:
        """Return the progress with newer counters, all evidence since its beginning, and what is amiss.

        While ledger or store do not answer, the evidence holds what was read before.

        Args:
            match: Which canary, and which stable model.
            project: The contract, the labels' horizon and what decisions are worth.
            progress: How far the canary has come.
            backends: The gateway's counters of canary and stable version; None if they are not to be had now.
            now: As of when outcomes count.
        """
        if backends is not None:
            progress = count(progress, *backends)
        counters = progress.counters
        canary, stable = (to_traffic(arm, counters.get(arm, {})) for arm in (CANARY, STABLE))
        finished = sum(stage.canary.requests for stage in progress.finished)
        rows, problem = None, None
        if match.logged and self._connect is not None:
            rows = self._find_rows(match, progress)
            try:
                self._read(rows, match, project, progress, now)
            except (ClientError, BundleError) as error:
                problem = str(error)
        evidence = Evidence(
            canary=canary,
            stable=stable,
            differences=None if rows is None else np.concatenate([np.empty(0), *rows.differences]),
            expected_difference=match.expected,
            mismatches=0 if rows is None else rows.mismatches,
            residuals=_none() if rows is None else rows.residuals,
            profits=_none() if rows is None else rows.profits,
            step_requests=max(canary.requests - finished, 0),
            logged=None if rows is None else len(rows.own),
            value=project.value,
        )
        return progress, evidence, problem

    def count_lost(self, match: Match, progress: Progress) -> int | None:
        """Return how many answers since the canary's beginning the ledger does not hold (yet).

        None when answers are not logged, or nothing has been read.
        """
        rows = self._rows.get(_key(match, progress))
        if rows is None:
            return None
        answers = sum(progress.counters.get(arm, {}).get("answers", 0) for arm in (CANARY, STABLE))
        return max(answers - len(rows.events), 0)

    def count_unscored(self, match: Match, progress: Progress) -> int | None:
        """Return how many rows that the canary answered its bundle does not take as they were logged.

        They say nothing about the canary, for the log may have changed them. None as in `count_lost`.
        """
        rows = self._rows.get(_key(match, progress))
        return None if rows is None else rows.unscored

    def forget(self, services: set[str]) -> None:
        """Drop what was read for services that have no canary any more: all but `services`."""
        for key in [key for key in self._rows if key[0] not in services]:
            del self._rows[key]

    def _find_rows(self, match: Match, progress: Progress) -> _Rows:
        key = _key(match, progress)
        rows = self._rows.get(key)
        if rows is None:
            self._rows = {other: kept for other, kept in self._rows.items() if other[0] != match.service}
            rows = self._rows[key] = _Rows()
        return rows

    def _read(self, rows: _Rows, match: Match, project: Project, progress: Progress, now: datetime) -> None:
        if self._ledger is None:
            assert self._connect is not None  # noqa: S101
            self._ledger = self._connect()
        frame = self._ledger.read_predictions(
            match.service, after_seq=rows.seq, since=progress.began, limit=BATCH
        )
        if len(frame):
            self._compare(rows, frame, match)
            rows.seq = int(frame["seq"].iloc[-1])
        if self._clock() - rows.outcomes_at >= OUTCOMES_SECONDS:
            rows.residuals, rows.profits = read_outcomes(self._ledger, match, project, progress.began, now)
            rows.outcomes_at = self._clock()

    def _compare(self, rows: _Rows, frame: pd.DataFrame, match: Match) -> None:
        """Score rows with both bundles; the one that answered must have answered what it gives."""
        frame = frame[frame["version"].isin([match.canary, match.stable])]
        rows.events.update(frame["event_id"])
        mine = (frame["version"] == match.canary).to_numpy(dtype=bool)
        rows.own.update(frame["event_id"][mine])
        if rows.compared >= ROWS:  # enough to compare; what the canary answers is still checked
            frame, mine = frame[mine], mine[mine]
        if not len(frame):
            return
        features = list(frame["features"])
        ours = self._scores.score(match.canary_uri, features)
        # Both before anything is counted: what fails here is done again as a whole.
        theirs = self._scores.score(match.stable_uri, features) if rows.compared < ROWS else None
        # NaN, a row that cannot be scored again, is no mismatch.
        wrong = np.abs(ours - frame["score"].to_numpy(dtype=np.float64)) > TOLERANCE
        found = int(np.count_nonzero(wrong & mine))
        if found:
            first = frame[wrong & mine].iloc[0]
            logger.error(
                "%s: canary %s answered %r, its bundle gives another score (event %s, row %s; %d such rows)",
                match.service,
                match.canary,
                float(first["score"]),
                first["event_id"],
                first["row"],
                found,
            )
        rows.mismatches += found
        unscored = int(np.count_nonzero(np.isnan(ours) & mine))
        if unscored and not rows.unscored:
            first = frame[np.isnan(ours) & mine].iloc[0]
            logger.warning(
                "%s: %d rows that canary %s answered cannot be scored again as they were logged and are left "
                "out (the first is row %s of event %s)",
                match.service,
                unscored,
                match.canary,
                first["row"],
                first["event_id"],
            )
        rows.unscored += unscored
        if theirs is not None:
            differences = ours - theirs
            differences = differences[~np.isnan(differences)]
            rows.differences.append(differences)
            rows.compared += len(differences)


def _key(match: Match, progress: Progress) -> tuple[str, str, datetime]:
    return match.service, match.canary, progress.began


def _none() -> tuple[Floats, Floats]:
    return np.empty(0), np.empty(0)
