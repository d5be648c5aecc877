"""Cutting the champion's predictions into windows that a restart cuts alike.

A window's borders are row numbers of the ledger; the last verdict's border is where the next window begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from tenure.drift.monitor import Window
from tenure.drift.reference import Family, make_sample
from tenure.outcome import encode_outcomes

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from clients.ledger.reader import Ledger
    from serving.detector.champion import Champion

COVERAGE = 0.9
"""Share of a window's customers whose outcome must be known. Those who leave may be known sooner than those
who stay: a window that took whoever is known first would show more leavers than there are."""

STRETCH = 4
"""A window of outcomes looks at most at so many times its rows: the others had no label by their horizon."""

GRACE = timedelta(seconds=30)
"""How long after a window of hours events may still come that belong to it."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A window, and where it lies in the ledger.

    Attributes:
        window: What is judged.
        first_seq: Its first row.
        last_seq: Its last row; the next window begins behind it.
        rows: How many predictions are judged.
    """

    window: Window
    first_seq: int
    last_seq: int
    rows: int


class Cutter:
    """Cuts one champion's windows of one family.

    Args:
        ledger: Where the predictions are.
        champion: Whose.
        family: Every prediction ("inputs"), or those whose outcome is known ("outcomes").
    """

    def __init__(self, ledger: Ledger, champion: Champion, family: Family) -> None:
        self._ledger = ledger
        self._champion = champion
        self._family = family
        self._settings = champion.project.drift.window
        self._horizon = timedelta(days=champion.project.labels.horizon_days)

    def cut(self, after_seq: int, now: datetime) -> Cut | None:
        """Return the next window behind a row, or None while it is not complete.

        Args:
            after_seq: Last row of the window before, 0 for the first one.
            now: The time; labels that become known later do not count.
        """
        if self._settings.rows is None:
            return self._cut_hours(after_seq, now)
        if self._family == "inputs":
            return self._cut_inputs(after_seq, self._settings.rows)
        return self._cut_outcomes(after_seq, self._settings.rows, now)

    def load(self, first_seq: int, last_seq: int, now: datetime) -> Cut | None:
        """Return a window that was judged before; None if retention has deleted its rows.

        Outcomes are those known now: labels that came later than the verdict count.
        """
        frame = self._read(first_seq - 1, last_seq - first_seq + 1)
        frame = frame[frame["seq"] <= last_seq]
        if not len(frame):
            return None
        return self._build(frame, None if self._family == "inputs" else self._find_outcomes(frame, now))

    def _read(self, after_seq: int, limit: int) -> pd.DataFrame:
        champion = self._champion
        return self._ledger.read_predictions(
            champion.service,
            champion.version,
            after_seq=after_seq,
            limit=limit,
            features=self._family == "inputs",
        )

    def _cut_inputs(self, after_seq: int, rows: int) -> Cut | None:
        champion = self._champion
        # Counting is far cheaper than reading what is not complete yet.
        if self._ledger.count_predictions(champion.service, champion.version, after_seq) < rows:
            return None
        return self._build(self._read(after_seq, rows), None)

    def _cut_hours(self, after_seq: int, now: datetime) -> Cut | None:
        first = self._read(after_seq, 1)
        if not len(first):
            return None
        assert self._settings.hours is not None  # noqa: S101 - Window has either rows or hours
        end = first["time"].iloc[0].to_pydatetime() + timedelta(hours=self._settings.hours)
        if now < end + GRACE:
            return None
        frame = self._read_hours(after_seq, end)
        if self._family == "inputs":
            return self._build(frame, None)
        known = self._find_outcomes(frame, now)
        return self._build(frame, known) if self._is_settled(frame, known, len(frame), now) else None

    def _read_hours(self, after_seq: int, end: datetime) -> pd.DataFrame:
        """Return the rows before `end` up to the first that came from after it.

        Borders are row numbers: what comes later out of order belongs to the next window.
        """
        read, service, version = self._ledger.read_predictions, self._champion.service, self._champion.version
        features = self._family == "inputs"
        frame = read(service, version, after_seq=after_seq, until=end, features=features)
        later = read(service, version, after_seq=after_seq, since=end, limit=1, features=False)
        return frame if not len(later) else frame[frame["seq"] < int(later["seq"].iloc[0])]

    def _cut_outcomes(self, after_seq: int, rows: int, now: datetime) -> Cut | None:
        limit = STRETCH * rows
        frame = self._read(after_seq, limit)
        if len(frame) < rows:
            return None
        outcomes = self._find_outcomes(frame, now)
        mature = np.cumsum(~np.isnan(outcomes))
        if mature[-1] >= rows:
            size = int(np.searchsorted(mature, rows)) + 1
        elif len(frame) == limit:
            size = limit
        else:
            return None
        if not self._is_settled(frame, outcomes, size, now):
            return None
        return self._build(frame.iloc[:size], outcomes[:size])

    def _is_settled(
        self, frame: pd.DataFrame, outcomes: NDArray[np.float64], size: int, now: datetime
    ) -> bool:
        """Whether nearly all outcomes of the first `size` rows are known, or no more can count."""
        newest = frame["time"].iloc[:size].max().to_pydatetime()
        if newest + self._horizon <= now:
            return True
        named = frame["customer_id"].iloc[:size].notna().to_numpy()
        known = ~np.isnan(outcomes[:size])
        return bool(known.any() and known.sum() >= COVERAGE * named.sum())

    def _find_outcomes(self, frame: pd.DataFrame, now: datetime) -> NDArray[np.float64]:
        """Return 1 for those who left, 0 for those who stayed, NaN while it is not known; shape [rows]."""
        champion = self._champion
        known = self._ledger.read_outcomes(
            champion.service,
            as_of=now,
            horizon=self._horizon,
            version=champion.version,
            since=frame["time"].min().to_pydatetime(),
            until=frame["time"].max().to_pydatetime() + timedelta(microseconds=1),
            after_seq=int(frame["seq"].iloc[0]) - 1,
        )
        encoded = encode_outcomes(known["outcome"], champion.bundle.contract)
        left = dict(zip(known["seq"], encoded, strict=True))
        return np.array([float(left.get(seq, np.nan)) for seq in frame["seq"]])

    def _build(self, frame: pd.DataFrame, outcomes: NDArray[np.float64] | None) -> Cut:
        bundle = self._champion.bundle
        first, last = int(frame["seq"].iloc[0]), int(frame["seq"].iloc[-1])
        since, until = frame["time"].min().to_pydatetime(), frame["time"].max().to_pydatetime()
        if outcomes is not None:
            known = ~np.isnan(outcomes)
            frame, outcomes = frame[known], outcomes[known]
        features = {}
        if self._family == "inputs":
            names = [column.name for column in bundle.contract.features]
            features = self._ledger.expand_features(frame, names)
        scores = frame["score"].to_numpy(dtype=np.float64)
        sample = make_sample(features, scores, outcomes, bundle.contract, self._family)
        return Cut(Window(sample, since, until), first, last, len(frame))
