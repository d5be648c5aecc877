"""Judges windows one after another: significant over the champion's whole life, and material."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tenure.drift.backend import check_columns, measure_distance
from tenure.drift.bound import bound_distance, bound_table
from tenure.drift.contingency import count_both
from tenure.drift.effect import Effects
from tenure.drift.reference import FAMILIES, Sample
from tenure.drift.spending import spend
from tenure.drift.verdict import Finding
from tenure.errors import DriftError

if TYPE_CHECKING:
    from tenure.drift.backend import Backend
    from tenure.drift.reference import Family, Reference
    from tenure.monitoring import Drift


@dataclass(frozen=True, eq=False)
class Window:
    """Some predictions in a row.

    Attributes:
        sample: Their columns.
        since: Time of the first, with a time zone.
        until: Time of the last.
    """

    sample: Sample
    since: datetime
    until: datetime


class Monitor:
    """Compares windows with one champion's reference; keeps nothing between windows.

    The chance that it ever gives a false alarm is at most `drift.alpha` over both families together: each has
    half of it, spent as `spending` says. An alarm must be material, too.

    Args:
        reference: The champion's.
        backend: Made for the same reference.
        drift: The project's settings.
        family: That of the reference.

    Raises:
        DriftError: The reference is of another family.
    """

    def __init__(self, reference: Reference, backend: Backend, drift: Drift, family: Family) -> None:
        if reference.family != family:
            raise DriftError(f"the reference is one of {reference.family}, not of {family}")
        self._reference = reference
        self._backend = backend
        self._drift = drift
        self._effects = Effects(reference, drift.effect)

    def get_level(self, number: int) -> float:
        """Return the level of each single test of window `number`, counted from 1."""
        drift = self._drift
        tests = len(drift.scales) * len(self._reference.columns)
        return spend(drift.alpha / len(FAMILIES), drift.half_life, number) / tests

    def judge(self, number: int, windows: Sequence[Window]) -> tuple[Finding, ...]:
        """Judge the newest window.

        Scales that need more windows than there are so far are left out.

        Args:
            number: The newest window's, counted from 1 since this champion serves. No number may be judged
                twice with other rows: its share of the chance of a false alarm is spent.
            windows: Windows in a row, the newest last; at most the largest scale is looked at.

        Returns:
            One finding for each column, in the reference's order: at the smallest scale that alarms, else at
            the one with the smallest p-value.

        Raises:
            DriftError: There is no window, or one has other columns than the reference.
            ValueError: `number` is below 1.
        """
        if not windows:
            raise DriftError("there is no window to judge")
        for window in windows:
            check_columns(self._reference, window.sample)
        level = self.get_level(number)
        found: dict[str, list[Finding]] = {name: [] for name in self._reference.columns}
        for scale in sorted(self._drift.scales):
            if scale <= len(windows):
                for finding in self._compare(windows, scale, level):
                    found[finding.column].append(finding)
        return tuple(_choose(findings) for findings in found.values() if findings)

    def _compare(self, windows: Sequence[Window], scale: int, level: float) -> list[Finding]:
        """Test and measure every column of the last `scale` windows taken together."""
        recent = windows[-scale:]
        sample = Sample.join([window.sample for window in recent])
        findings = []
        for column, p_value in self._backend.test(sample).items():
            if p_value <= level:
                p_value = max(p_value, self._bound(column, sample))
            difference = self._effects.measure(column, sample)
            significant = p_value <= level
            alarm = significant and difference.material
            findings.append(
                Finding(
                    column=column,
                    kind=self._reference.kinds[column],
                    p_value=p_value,
                    level=level,
                    effect=difference.value,
                    measure=difference.measure,
                    threshold=difference.threshold,
                    scale=scale,
                    since=self._find_onset(column, windows, scale) if alarm else recent[0].since,
                    significant=significant,
                    material=difference.material,
                )
            )
        return findings

    def _bound(self, column: str, sample: Sample) -> float:
        """Return a p-value that holds at any level; the tests' approximations do not in the far tail."""
        reference = self._reference
        if column in reference.sorted:
            distance = measure_distance(reference.sorted[column], sample.columns[column])
            return bound_distance(distance, reference.rows, sample.rows)
        _, table = count_both(reference.counts[column], sample.columns[column])
        return bound_table(table)

    def _find_onset(self, column: str, windows: Sequence[Window], scale: int) -> datetime:
        """Say since when a column differs: back from the windows that alarm while each alone is material."""
        first = len(windows) - scale
        while first > 0 and self._effects.measure(column, windows[first - 1].sample).material:
            first -= 1
        return windows[first].since


def _choose(findings: Sequence[Finding]) -> Finding:
    """Return the first (smallest) scale that alarms, else the one with the smallest p-value."""
    return next(
        (finding for finding in findings if finding.alarm),
        min(findings, key=lambda finding: finding.p_value),
    )
