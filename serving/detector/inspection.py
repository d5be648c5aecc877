"""Judging: each new window of a champion becomes a verdict in the ledger, once."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from serving.detector.errors import DetectorError
from serving.detector.window import Cut, Cutter
from tenure.drift.reference import FAMILIES, Family
from tenure.drift.verdict import Verdict
from tenure.errors import EvaluationError
from tenure.estimation import estimate_performance
from tenure.performance import measure_performance

if TYPE_CHECKING:
    from clients.ledger.reader import Ledger
    from serving.detector.champion import Champion
    from serving.detector.metrics import Metrics
    from serving.detector.writer import Writer

logger = logging.getLogger("tenure.detector")

AT_ONCE = 20
"""Windows of one family that are judged before anything else has its turn."""

REST = 5.0
"""Outcomes are looked at again after so many times what the last look took: it joins two tables."""

SHOWN = ("roc_auc", "log_loss", "brier", "precision", "recall", "churn_rate")
"""Metrics that a verdict keeps of what was estimated, or measured."""


@dataclass(eq=False)
class _Line:
    """Where one champion's windows of one family have come to."""

    cutter: Cutter
    number: int
    last_seq: int
    recent: deque[Cut]
    due: float = 0.0


class Inspector:
    """Cuts, judges and records. One thread uses it.

    Args:
        ledger: For reading.
        writer: For the verdicts.
        metrics: Where the newest findings are shown.
    """

    def __init__(self, ledger: Ledger, writer: Writer, metrics: Metrics) -> None:
        self._ledger = ledger
        self._writer = writer
        self._metrics = metrics
        self._lines: dict[tuple[str, str, Family], tuple[Champion, _Line]] = {}

    def inspect(self, champion: Champion, now: datetime) -> Iterator[Verdict]:
        """Judge what is complete by now, at most `AT_ONCE` windows of each family; yields the new verdicts.

        A verdict is recorded before anyone acts on it. If the process dies before, the same rows are judged
        again as the same window.

        Raises:
            ClientError: The ledger cannot be read.
            DetectorError: The ledger cannot be written, another detector was faster, or there is no backend.
            DriftError: The rows do not fit the champion's reference.
        """
        for family in FAMILIES:
            line = self._get_line(champion, family, now)
            for _ in range(AT_ONCE):
                verdict = self._step(champion, family, line, now)
                if verdict is None:
                    break
                yield verdict

    def forget(self, service: str) -> None:
        """Read a service's windows anew from the ledger next time."""
        self._lines = {key: line for key, line in self._lines.items() if key[0] != service}

    def clear(self) -> None:
        """Read all windows anew from the ledger next time, and show nothing in the metrics until then."""
        self._lines.clear()
        self._metrics.clear_drift()

    def describe(self, champion: Champion) -> dict[str, Any]:
        """Say how many windows were judged by anyone, by family.

        Raises:
            ClientError: The ledger cannot be read.
        """
        found: dict[str, Any] = {}
        for family in FAMILIES:
            rows = self._ledger.read_verdicts(champion.service, champion.version, family, 1)
            if rows:
                found[family] = {"windows": rows[-1].number, "last_seq": rows[-1].last_seq}
        return found

    def _get_line(self, champion: Champion, family: Family, now: datetime) -> _Line:
        key = (champion.service, champion.version, family)
        kept = self._lines.get(key)
        # Other settings cut other windows; the numbers go on, as they count what chance is spent.
        if kept is None or kept[0].project is not champion.project:
            for old in [old for old in self._lines if old[0] == key[0] and old[1] != key[1]]:
                del self._lines[old]
            self._lines[key] = kept = (champion, self._load_line(champion, family, now))
        return kept[1]

    def _load_line(self, champion: Champion, family: Family, now: datetime) -> _Line:
        """Go on where the ledger says that the last detector came to."""
        size = max(champion.project.drift.scales)
        rows = self._ledger.read_verdicts(champion.service, champion.version, family, size)
        cutter = Cutter(self._ledger, champion, family)
        cuts = [cutter.load(row.first_seq, row.last_seq, now) for row in rows]
        # A window that retention has deleted parts those before it from those behind it.
        recent: deque[Cut] = deque(maxlen=size)
        for cut in cuts:
            if cut is None:
                recent.clear()
            else:
                recent.append(cut)
        if not rows:
            return _Line(cutter, 0, 0, recent)
        self._show(rows[-1].verdict, counted=False)
        return _Line(cutter, rows[-1].number, rows[-1].last_seq, recent)

    def _step(self, champion: Champion, family: Family, line: _Line, now: datetime) -> Verdict | None:
        began = time.monotonic()
        if began < line.due:
            return None
        cut = line.cutter.cut(line.last_seq, now)
        if cut is None:
            if family == "outcomes":
                line.due = began + REST * (time.monotonic() - began)
            return None
        number = line.number + 1
        windows = [*line.recent, cut]
        findings = champion.get_judge(family).monitor.judge(number, [each.window for each in windows])
        verdict = Verdict(
            service=champion.service,
            version=champion.version,
            family=family,
            number=number,
            rows=cut.rows,
            since=cut.window.since,
            until=cut.window.until,
            findings=findings,
            estimate=_rate(champion, cut, number),
        )
        new = self._writer.save_verdict(
            service=verdict.service,
            version=verdict.version,
            family=family,
            number=number,
            first_seq=cut.first_seq,
            last_seq=cut.last_seq,
            since=verdict.since,
            until=verdict.until,
            rows=verdict.rows,
            alarm=bool(verdict.alarms),
            verdict=verdict.model_dump_json(),
        )
        if not new:
            raise DetectorError(
                f"{champion.service}: window {number} of {family} is in the ledger already: it is read again"
            )
        line.number, line.last_seq = number, cut.last_seq
        line.recent.append(cut)
        self._show(verdict)
        logger.log(
            logging.WARNING if verdict.alarms else logging.INFO,
            "%s: %s",
            champion.service,
            verdict.describe(),
        )
        return verdict

    def _show(self, verdict: Verdict, counted: bool = True) -> None:
        """Show a verdict in the metrics; one that is read again is not counted."""
        metrics, service, family = self._metrics, verdict.service, verdict.family
        if counted:
            metrics.windows.labels(service, family).inc()
        metrics.drift_window.labels(service, family).set(verdict.until.timestamp())
        for finding in verdict.findings:
            metrics.drift_effect.labels(service, family, finding.column).set(finding.effect)
            metrics.drift_threshold.labels(service, family, finding.column).set(finding.threshold)
            metrics.drift_p_value.labels(service, family, finding.column).set(finding.p_value)
        for kind in {finding.kind for finding in verdict.findings}:
            metrics.drift_alarm.labels(service, kind).set(float(kind in verdict.kinds))
        if family == "inputs":
            for name, interval in (verdict.estimate or {}).items():
                metrics.performance.labels(service, name).set(interval["value"])


def _rate(champion: Champion, cut: Cut, number: int) -> dict[str, Any] | None:
    """Estimate the performance in a window, or measure it by known outcomes; None if the rows do not do."""
    sample, threshold = cut.window.sample, champion.bundle.threshold
    found: Mapping[str, Any]
    try:
        if sample.labels is None:
            found = estimate_performance(sample.scores, threshold, seed=number).model_dump()
        else:
            found = measure_performance(sample.scores, sample.labels, threshold, seed=number).model_dump()[
                "metrics"
            ]
    except EvaluationError as error:
        logger.info("%s: no performance of window %d: %s", champion.service, number, error)
        return None
    return {name: found[name] for name in SHOWN if name in found}
