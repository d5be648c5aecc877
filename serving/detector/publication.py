"""Publishing verdicts: people are told of what is new, and MLflow gets a run with the report."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from clients.errors import ClientError
from serving.detector.errors import DetectorError
from serving.detector.report import measure_ratio, render_report
from serving.detector.window import Cutter
from tenure.drift.reference import Sample
from tenure.errors import TenureError

if TYPE_CHECKING:
    from clients.ledger.reader import Ledger
    from clients.notification import Notifier
    from clients.tracking import Tracking
    from serving.detector.champion import Champion
    from serving.detector.writer import Writer
    from tenure.drift.verdict import Verdict

logger = logging.getLogger("tenure.detector")

HISTORY = 48
"""Windows that a report shows the course of."""

RECALLED = 500
"""Verdicts of a champion that are looked through for what was not published yet."""

VERDICT = "tenure.verdict"
"""Tag of the MLflow run of a verdict: SERVICE/VERSION/FAMILY/NUMBER."""

FILE = "report.html"


@dataclass(frozen=True, eq=False)
class _Item:
    champion: Champion
    verdict: Verdict
    news: bool


class Publisher:
    """Publishes each verdict at least once; the ledger says which ones are done.

    `recall` and `add` belong to the watcher's thread, `publish` may run in another.

    Args:
        ledger: For reading.
        writer: For the reports' addresses.
        connect: Returns the tracking server; called when it is needed first, and again after it failed.
        notifier: Whom to tell.
        clock: The time.
    """

    def __init__(
        self,
        ledger: Ledger,
        writer: Writer,
        connect: Callable[[], Tracking],
        notifier: Notifier,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._writer = writer
        self._connect = connect
        self._notifier = notifier
        self._clock = clock
        self._tracking: Tracking | None = None
        self._items: deque[_Item] = deque()
        self._kinds: dict[tuple[str, str], set[str]] = {}
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self.problem = ""
        """Why the last attempt failed; empty if it did not."""

    @property
    def waiting(self) -> int:
        """How many verdicts are not published yet."""
        return len(self._items)

    def recall(self, champion: Champion) -> None:
        """Take up what an earlier detector has judged and not published, once for each champion."""
        key = (champion.service, champion.version)
        if key in self._kinds:
            return
        rows = self._ledger.read_verdicts(*key, limit=RECALLED)
        queued = {_name(item.verdict) for item in tuple(self._items)}
        self._kinds[key] = set()
        for row in rows:
            self.add(row.verdict, champion, row.report_uri is not None or _name(row.verdict) in queued)

    def forget(self, champion: Champion) -> None:
        """Let the next `recall` look into the ledger again."""
        self._kinds.pop((champion.service, champion.version), None)

    def clear(self) -> None:
        """Leave what waits to another detector; the next `recall` finds whatever it has left."""
        with self._lock:
            self._items.clear()
        self._kinds.clear()

    def add(self, verdict: Verdict, champion: Champion, done: bool = False) -> None:
        """Take a verdict up; people are told of it if a kind of drift is the first of this champion."""
        seen = self._kinds.setdefault((champion.service, champion.version), set())
        news = not set(verdict.kinds) <= seen
        seen.update(verdict.kinds)
        if not done:
            self._items.append(_Item(champion, verdict, news))

    def publish(self, limit: int = 5) -> int:
        """Publish some verdicts; returns how many. One that fails stays first in the queue."""
        done = 0
        with self._lock:
            while self._items and done < limit:
                item = self._items[0]
                try:
                    self._publish(item)
                except (ClientError, DetectorError, TenureError) as error:
                    self._tracking = None
                    if str(error) != self.problem:
                        logger.warning("%s: not published: %s", item.verdict.service, error)
                    self.problem = str(error)
                    return done
                self._items.popleft()
                done += 1
                self.problem = ""
        return done

    def _publish(self, item: _Item) -> None:
        verdict = item.verdict
        key = _name(verdict)
        if item.news and key not in self._told:
            title = f"{verdict.service}: {' and '.join(verdict.kinds)} drift"
            text = f"{verdict.describe()}.\nModel {verdict.version}, window {verdict.number}. "
            self._notifier.notify("drift", title, text + "The report is in MLflow.")
            self._told.add(key)
        run_id = self._store(item, key)
        self._writer.set_report(
            verdict.service, verdict.version, verdict.family, verdict.number, f"runs:/{run_id}/{FILE}"
        )
        self._told.discard(key)

    def _store(self, item: _Item, key: str) -> str:
        """Give the verdict its MLflow run, or finish the one that an earlier attempt has left."""
        if self._tracking is None:
            self._tracking = self._connect()
        tracking, verdict = self._tracking, item.verdict
        experiment = tracking.find_experiment(f"{item.champion.project.name}-drift")
        found = next(tracking.search([experiment], f"tags.`{VERDICT}` = '{key}'", limit=1), None)
        if found is not None:
            run_id = str(found.info.run_id)
        else:
            tags = {
                VERDICT: key,
                "tenure.version": verdict.version,
                "tenure.alarm": str(bool(verdict.alarms)).lower(),
                "tenure.verdict.text": verdict.describe(),
            }
            with tracking.translate(f"making the run of verdict {key}"):
                made = tracking.client.create_run(
                    experiment,
                    start_time=int(verdict.since.timestamp() * 1000),
                    tags=tags,
                    run_name=f"{verdict.service} {verdict.family} {verdict.number}",
                )
            run_id = str(made.info.run_id)
        metrics = {f"effect.{finding.column}": finding.effect for finding in verdict.findings}
        metrics |= {f"p.{finding.column}": finding.p_value for finding in verdict.findings}
        metrics |= {name: interval["value"] for name, interval in (verdict.estimate or {}).items()}
        metrics |= {"alarms": float(len(verdict.alarms)), "rows": float(verdict.rows)}
        metrics["largest"] = max((measure_ratio(finding) for finding in verdict.findings), default=0.0)
        tracking.log_metrics(run_id, metrics)
        tracking.log_text(run_id, self._render(item), FILE)
        with tracking.translate(f"ending the run of verdict {key}"):
            tracking.client.set_terminated(run_id, end_time=int(verdict.until.timestamp() * 1000))
        return run_id

    def _render(self, item: _Item) -> str:
        verdict, champion = item.verdict, item.champion
        rows = self._ledger.read_verdicts(
            verdict.service, verdict.version, verdict.family, HISTORY + self.waiting
        )
        known = [row for row in rows if row.number <= verdict.number][-HISTORY:]
        scale = max((finding.scale for finding in verdict.alarms), default=1)
        cutter = Cutter(self._ledger, champion, verdict.family)
        now = self._clock()
        cuts = [cutter.load(row.first_seq, row.last_seq, now) for row in known[-scale:]]
        samples = [cut.window.sample for cut in cuts if cut is not None]
        window = Sample.join(samples) if samples else None
        reference = champion.get_judge(verdict.family).reference.sample
        return render_report(verdict, reference, window, [row.verdict for row in known])


def _name(verdict: Verdict) -> str:
    """Return what the tag of a verdict's run says."""
    return f"{verdict.service}/{verdict.version}/{verdict.family}/{verdict.number}"
