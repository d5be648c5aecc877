"""What was found in a window: one finding for each column, and a sentence that says it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, get_args

from pydantic import AwareDatetime, Field

from tenure.contract import Fraction, Strict
from tenure.drift.effect import Measure
from tenure.drift.reference import Family
from tenure.monitoring import Kind

NAMED = 4  # columns that a sentence names; the rest is counted


class Finding(Strict):
    """How one column compares with the reference, at the scale that says most."""

    column: str
    kind: Kind
    p_value: Fraction
    level: Fraction = Field(
        description="What the p-value must not exceed, over all windows, scales, columns."
    )
    effect: float = Field(description="Size of the difference, in its measure.")
    measure: Measure
    threshold: float = Field(description="From which size on it is material.")
    scale: int = Field(ge=1, description="How many windows were tested together.")
    since: AwareDatetime = Field(
        description="Since when the column differs; without an alarm, what was tested."
    )
    significant: bool
    material: bool

    @property
    def alarm(self) -> bool:
        """Whether the difference is beyond chance and large enough to matter."""
        return self.significant and self.material


class Verdict(Strict):
    """What one window of one family says."""

    service: str
    version: str
    family: Family
    number: int = Field(ge=1)
    rows: int = Field(ge=0)
    since: AwareDatetime
    until: AwareDatetime
    findings: tuple[Finding, ...]
    estimate: dict[str, Any] | None = None

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings that are alarms, the largest (relative to their thresholds) first."""
        alarms = [finding for finding in self.findings if finding.alarm]
        return tuple(sorted(alarms, key=lambda finding: -abs(finding.effect) / finding.threshold))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of drift among the alarms."""
        found = {finding.kind for finding in self.alarms}
        return tuple(kind for kind in get_args(Kind) if kind in found)

    def describe(self) -> str:
        """Say in one sentence which columns drift, how much, and since when."""
        alarms = self.alarms
        if not alarms:
            return (
                f"no drift of {self.family} in window {self.number} "
                f"({self.rows} rows until {_show_time(self.until)})"
            )
        parts = [_describe_finding(finding) for finding in alarms[:NAMED]]
        if len(alarms) > NAMED:
            parts.append(f"{len(alarms) - NAMED} more")
        named = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
        since = min(finding.since for finding in alarms)
        return f"{' and '.join(self.kinds)} drift since {_show_time(since)}: {named}"


def _describe_finding(finding: Finding) -> str:
    """Say how much one column differs."""
    if finding.measure == "share":
        way = "more" if finding.effect > 0 else "fewer"
        return f"{abs(finding.effect) * 100:.1f} points {way} customers leave"
    if finding.measure == "auc":
        return f"ROC-AUC is lower by {finding.effect:.3f}"
    return f"{finding.column} ({finding.measure.upper()} {finding.effect:.2f})"


def _show_time(time: datetime) -> str:
    """Write a time to the minute."""
    return time.strftime("%Y-%m-%d %H:%M %Z")
