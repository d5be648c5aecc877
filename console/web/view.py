"""What the page says, from what was read: sentences, links, drawings. No input or output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from clients.ledger.records import Share, TransitionRecord, VerdictRecord
from clients.run import Run
from console.cockpit import describe_step
from console.standing import Variant
from console.web.chart import Chart, Figure, Interval, draw_chart, draw_interval
from console.web.reading import LedgerReading, ServiceReading
from tenure.drift.verdict import Finding

FAMILIES = {"inputs": "Customers and scores", "outcomes": "Outcomes and performance"}
PERFORMANCE = {
    "roc_auc": ("ROC-AUC", False),
    "precision": ("Of those flagged, how many leave", True),
    "recall": ("Of those who leave, how many are flagged", True),
    "churn_rate": ("Share that leaves", True),
}
MEASURES = {"psi": "PSI", "l1": "L1", "share": "share", "auc": "ROC-AUC"}
METER_END = 3.0
"""Meters end at so many times the threshold."""

_BOUNDS = ("value", "low", "high")
_SHOWN_FINDINGS = 6
_SHOWN_ALARMS = 6


@dataclass(frozen=True)
class Links:
    """Other pages, as a browser reaches them; None for those that there are not."""

    kubeflow: str | None = None
    mlflow: str | None = None
    grafana: str | None = None

    def run(self, run_id: str) -> str | None:
        """Return a pipeline run's page."""
        return f"{self.kubeflow}/#/runs/details/{quote(run_id, safe='')}" if self.kubeflow else None

    def tracked(self, uri: str | None) -> str | None:
        """Return the MLflow page of `runs:/ID/...`."""
        run_id = read_run_id(uri)
        return f"{self.mlflow}/#/runs/{run_id}" if self.mlflow and run_id else None


@dataclass(frozen=True)
class VariantView:
    """A version in front of customers, with what it answered in the last day; None if that is unknown."""

    variant: Variant
    x: float
    share: Share | None


@dataclass(frozen=True)
class SignalView:
    """One signal of the canary's evidence."""

    name: str
    text: str
    estimate: float
    low: float
    high: float
    tolerance: float
    n: int
    verdict: str
    mood: str
    place: Interval


@dataclass(frozen=True)
class FindingView:
    """How one column drifts; `meter` is a share of a bar that ends at `METER_END` times the threshold."""

    finding: Finding
    measure: str
    meter: float


@dataclass(frozen=True)
class FamilyView:
    """The newest window of a family; None without any."""

    title: str
    latest: VerdictRecord | None
    findings: tuple[FindingView, ...]
    hidden: int
    report: str | None


@dataclass(frozen=True)
class ServiceView:
    """One service's part of the page."""

    reading: ServiceReading
    mood: str
    headline: str
    variants: tuple[VariantView, ...]
    step: str | None
    signals: tuple[SignalView, ...]
    ledger: LedgerReading | None
    families: tuple[FamilyView, ...]
    alarms: tuple[tuple[VerdictRecord, str | None], ...]
    charts: tuple[Chart, ...]
    watch: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The InferenceService's name."""
        return self.reading.state.name


def build_service(
    reading: ServiceReading, ledger: LedgerReading | None, detector: Mapping[str, Any] | None
) -> ServiceView:
    """Build a service's part.

    Args:
        reading: What the Kubernetes API says of it.
        ledger: What the ledger does; None if that is unknown.
        detector: What the detector's status says of all services; None if that is unknown.
    """
    state = reading.state
    latest = {family: ledger.verdicts.get(family, [])[-1:] if ledger else [] for family in FAMILIES}
    drifting = [one for rows in latest.values() for one in rows if one.alarm]
    mood, headline = _judge(reading, drifting)
    watch = ((detector or {}).get("watcher") or {}).get("services") or {}
    verdicts = [] if ledger is None else [one for rows in ledger.verdicts.values() for one in rows]
    alarms = sorted((one for one in verdicts if one.alarm), key=lambda one: one.until, reverse=True)
    flight = state.flight
    return ServiceView(
        reading=reading,
        mood=mood,
        headline=headline,
        variants=_place_variants(state.variants, ledger.tally.shares if ledger else None),
        step=describe_step(flight, reading.steps) if flight else None,
        signals=tuple(_build_signal(one) for one in flight.signals) if flight else (),
        ledger=ledger,
        families=tuple(_build_family(FAMILIES[family], rows) for family, rows in latest.items()),
        alarms=tuple((one, find_report(one.report_uri)) for one in alarms[:_SHOWN_ALARMS]),
        charts=tuple(draw_performance(ledger)) if ledger else (),
        watch=watch.get(state.name) or {},
    )


def draw_performance(ledger: LedgerReading) -> list[Chart]:
    """Draw how well the champion does: estimated at once, measured when outcomes are known."""
    marks = [
        (one.at, say_outcome(one)) for one in ledger.transitions if one.outcome in ("promoted", "rolled_back")
    ]
    charts = []
    for metric, (title, percent) in PERFORMANCE.items():
        series = [
            (name, _list_figures(ledger.verdicts.get(family, []), metric))
            for name, family in (("measured", "outcomes"), ("estimated", "inputs"))
        ]
        chart = draw_chart(title, series, marks, percent)
        if chart is not None:
            charts.append(chart)
    return charts


def find_report(uri: str | None) -> str | None:
    """Return where the page serves a verdict's report; None while it is not published."""
    run_id = read_run_id(uri)
    return f"/reports/{run_id}" if run_id else None


def read_run_id(uri: str | None) -> str | None:
    """Return the run's id in `runs:/ID/...`; None if there is none (MLflow's are 32 hexadecimal digits)."""
    scheme, _, rest = (uri or "").partition(":/")
    run_id = rest.partition("/")[0]
    digits = set("0123456789abcdef")
    return run_id if scheme == "runs" and len(run_id) == 32 and set(run_id) <= digits else None


def say_outcome(transition: TransitionRecord) -> str:
    """Say what the pilot did in a word or two."""
    return transition.outcome.replace("_", " ")


def say_ago(moment: datetime | None, now: datetime) -> str:
    """Say how long ago a moment was, as a person does."""
    if moment is None:
        return "never"
    seconds = (now - moment).total_seconds()
    if seconds < 0:
        return "just now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size or size == 1:
            return f"{int(seconds // size)}\N{NO-BREAK SPACE}{unit} ago"
    return "just now"


def say_time(moment: datetime | None) -> str:
    """Write a moment to the second."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def say_number(value: float) -> str:
    """Write a figure with a sign and four digits, with a true minus sign."""
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def count_steps(run: Run) -> str:
    """Say how far a run has come."""
    if not run.steps:
        return ""
    done = sum(step.finished is not None for step in run.steps)
    now = ", ".join(step.name for step in run.steps if step.started and not step.finished)
    return f"{done} of {len(run.steps)} steps done{f', at {now}' if now else ''}"


def _judge(reading: ServiceReading, drifting: Sequence[VerdictRecord]) -> tuple[str, str]:
    """Return how a service is, and a sentence that says it."""
    state = reading.state
    canaries = [one for one in state.variants if one.role == "canary"]
    silent = [one for one in state.variants if one.weight and not one.ready]
    if silent:
        names = ", ".join(one.name for one in silent)
        return (
            "bad",
            f"{names} has customers, but is not ready: {reading.trouble or 'its server is starting'}",
        )
    if not any(one.weight for one in state.variants):
        return "bad", "no customer is led to any version: the route is missing or empty"
    parts = []
    mood = "good"
    if canaries:
        share = ", ".join(f"{one.version} has {one.weight} %" for one in canaries)
        parts.append(f"canary {share} of the customers")
        mood = "busy"
    else:
        parts.append(f"{state.variants[0].version} serves all customers")
    if drifting:
        mood = "warn"
        parts.append("the newest window drifts")
    if state.paused:
        parts.append("shares are paused")
    return mood, "; ".join(parts)


def _place_variants(variants: Sequence[Variant], shares: Sequence[Share] | None) -> tuple[VariantView, ...]:
    known = {one.version: one for one in shares or ()}
    placed, x = [], 0.0
    for variant in variants:
        nothing = Share(variant.version, 0, 0, 0.0) if shares is not None else None
        placed.append(VariantView(variant, x, known.get(variant.version, nothing)))
        x += variant.weight
    return tuple(placed)


def _build_signal(signal: Mapping[str, Any]) -> SignalView:
    verdict, mood = "not yet sure", "busy"
    if signal["harm"]:
        verdict, mood = "harm", "bad"
    elif signal["safe"]:
        verdict, mood = "safe", "good"
    fields = {name: signal[name] for name in ("name", "text", "estimate", "low", "high", "tolerance", "n")}
    numbers = (signal[name] for name in ("estimate", "low", "high", "tolerance"))
    return SignalView(**fields, verdict=verdict, mood=mood, place=draw_interval(*numbers))


def _build_family(title: str, rows: Sequence[VerdictRecord]) -> FamilyView:
    latest = rows[-1] if rows else None
    if latest is None:
        return FamilyView(title, None, (), 0, None)
    ordered = sorted(latest.verdict.findings, key=lambda one: (not one.alarm, -_measure_ratio(one)))
    shown = ordered[: max(_SHOWN_FINDINGS, len(latest.verdict.alarms))]
    return FamilyView(
        title=title,
        latest=latest,
        findings=tuple(
            FindingView(
                one, MEASURES.get(one.measure, one.measure), min(_measure_ratio(one) / METER_END, 1.0)
            )
            for one in shown
        ),
        hidden=len(ordered) - len(shown),
        report=find_report(latest.report_uri),
    )


def _measure_ratio(finding: Finding) -> float:
    """Return a finding's effect as a multiple of its threshold; a better AUC counts as none."""
    size = max(finding.effect, 0.0) if finding.measure == "auc" else abs(finding.effect)
    return size / finding.threshold if finding.threshold else METER_END


def _list_figures(verdicts: Sequence[VerdictRecord], metric: str) -> list[Figure]:
    figures = []
    for one in verdicts:
        found = (one.verdict.estimate or {}).get(metric)
        if isinstance(found, Mapping) and all(found.get(key) is not None for key in _BOUNDS):
            numbers = (float(found[key]) for key in _BOUNDS)
            figures.append(Figure(one.version, one.until, *numbers))
    return figures
