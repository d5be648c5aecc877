"""How often drift detection cries wolf in a month without drift, and how soon it sees what did change.

Null streams: customers drawn anew from the same 7,043 (with out-of-fold scores and real outcomes), 720 hourly
windows of 300, each stream with a reference of its own, so that the reference's sampling error is part of
what is measured. Every test of every window is computed from counts for a whole stream at once; whatever
comes near its level is judged by the `Monitor` that runs in production. Beside it, on the same streams: the
usual scheme, which tests each window by itself (KS and chi-squared, Bonferroni over columns, 5 % a window).

Changes, after a week without any: everybody's bill grows by .25 sd; other customers come, so that the mean
bill does; a category loses ten points; or customers with fibre pay a quarter more. Each window is judged by
the `Monitor`.

Run: python benchmarks/drift_false_alarms.py [--streams 1000] [--changes 200]
Writes docs/drift-detection.csv and docs/drift-detection.svg.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from _drift import IRRELEVANT, load_population, test_stream
from numpy.typing import NDArray
from scipy.optimize import brentq

from tenure.drift.backend import ScipyBackend
from tenure.drift.monitor import Monitor, Window
from tenure.drift.reference import FAMILIES, Sample
from tenure.drift.verdict import Finding
from tenure.monitoring import Drift

ROOT = Path(__file__).resolve().parents[1]
REFERENCE, WINDOWS, ROWS = 4225, 720, 300
DRIFT = Drift(half_life=WINDOWS)
QUIET, WATCHED = 168, 72  # windows before and after a change
NEAR = 2.0  # how far above its level a p-value still goes to the monitor
START = datetime(2026, 1, 1, tzinfo=UTC)
CURVES = ROOT / "docs" / "drift-detection"
WAYS = {"alarm": "significant and material", "significant": "significant", "usual": "each window by itself"}
ALONE = 0.05  # the usual scheme's level for one window


@dataclass(frozen=True)
class Month:
    """What one null stream raised.

    Attributes:
        significant: Whether any finding was significant.
        alarm: Whether any was material, too.
        usual: In how many windows the usual scheme raised an alarm.
        judged: How many windows came near and were judged by the monitor.
    """

    significant: bool
    alarm: bool
    usual: int
    judged: int


def run_month(seed: int) -> Month:
    """Run one null stream of both families."""
    population = load_population()
    rng = np.random.default_rng([7, seed])
    size = len(population.samples["inputs"].scores)
    known = rng.integers(size, size=REFERENCE)
    rows = rng.integers(size, size=(WINDOWS, ROWS))
    significant = alarm = False
    usual, judged = np.zeros(WINDOWS, dtype=bool), 0
    for family in FAMILIES:
        reference = population.refer(family, known)
        monitor = Monitor(reference, ScipyBackend(reference), DRIFT, family)
        levels = np.array([monitor.get_level(number) for number in range(1, WINDOWS + 1)])
        near = np.zeros(WINDOWS, dtype=bool)
        for column in reference.columns:
            p_values = test_stream(family, column, known, rows, DRIFT.scales)
            for scale in DRIFT.scales:
                near[scale - 1 :] |= p_values[scale] <= NEAR * levels[scale - 1 :]
            if family == "inputs":
                usual |= p_values[1] <= ALONE / len(reference.columns)
        judged += int(near.sum())
        for last in np.flatnonzero(near):
            first = max(0, last + 1 - max(DRIFT.scales))
            windows = [
                make_window(population.draw(family, rows[hour]), hour) for hour in range(first, last + 1)
            ]
            findings = monitor.judge(int(last) + 1, windows)
            significant |= any(finding.significant for finding in findings)
            alarm |= any(finding.alarm for finding in findings)
    return Month(significant, alarm, int(usual.sum()), judged)


def check_counts() -> None:
    """Check the p-values from counts against the production backend's; the workers inherit the population."""
    population = load_population()
    rng = np.random.default_rng(1)
    size = len(population.samples["inputs"].scores)
    known, rows = rng.integers(size, size=REFERENCE), rng.integers(size, size=(60, ROWS))
    for family in FAMILIES:
        reference = population.refer(family, known)
        backend = ScipyBackend(reference)
        found = {column: test_stream(family, column, known, rows, (1, 4)) for column in reference.columns}
        for last in range(3, 60):
            for scale in (1, 4):
                sample = population.draw(family, rows[last + 1 - scale : last + 1].ravel())
                for column, p_value in backend.test(sample).items():
                    quick = found[column][scale][last + 1 - scale]
                    assert abs(quick - p_value) < 1e-5 or (quick == 1 and p_value > IRRELEVANT * 0.99)


def make_window(sample: Sample, hour: int) -> Window:
    since = START + timedelta(hours=int(hour))
    return Window(sample, since, since + timedelta(hours=1))


Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Change:
    """What changes: which column, how the cells of drawn rows do, and who is drawn."""

    column: str
    apply: Callable[[Columns, np.random.Generator], None] | None = None
    weigh: Callable[[Columns], NDArray[np.float64]] | None = None


def shift_charges(columns: Columns, rng: np.random.Generator) -> None:
    deviation = load_population().samples["inputs"].columns["monthly_charges"].std()
    columns["monthly_charges"] = columns["monthly_charges"] + 0.25 * deviation


def prefer_dear(columns: Columns) -> NDArray[np.float64]:
    """Weigh customers by the exponential of their bill, so that its mean moves by .25 sd."""
    bills = columns["monthly_charges"]
    standard = (bills - bills.mean()) / bills.std()

    def tilt(strength: float) -> NDArray[np.float64]:
        weights = np.exp(strength * standard)
        return np.asarray(weights / weights.sum())

    return tilt(brentq(lambda strength: tilt(strength) @ standard - 0.25, 0, 1))


def move_category(columns: Columns, rng: np.random.Generator) -> None:
    values = columns["contract"].copy()
    monthly = load_population().samples["inputs"].columns["contract"] == "Month-to-month"
    leaving = (values == "Month-to-month") & (rng.random(len(values)) < 0.1 / monthly.mean())
    values[leaving] = "Two year"
    columns["contract"] = values


def raise_price(columns: Columns, rng: np.random.Generator) -> None:
    fibre = columns["internet_service"] == "Fiber optic"
    columns["monthly_charges"] = np.where(fibre, 1.25, 1.0) * columns["monthly_charges"]


CHANGES = {
    "everybody's bill grows by .25 sd": Change("monthly_charges", shift_charges),
    "other customers: mean bill + .25 sd": Change("monthly_charges", weigh=prefer_dear),
    "a category loses 10 points": Change("contract", move_category),
    "fibre costs 25 % more": Change("monthly_charges", raise_price),
}


@dataclass(frozen=True)
class Detection:
    """After how many windows a change was seen; None if it was not.

    Attributes:
        significant: When the changed column was significant.
        alarm: When it was material, too.
        usual: When the usual scheme raised an alarm in that column.
        effect: The size of the difference at the alarm.
        onset: By how many windows `since` of the first alarm was off; negative is too early.
    """

    significant: int | None
    alarm: int | None
    usual: int | None
    effect: float | None
    onset: float | None


def run_change(name: str, seed: int) -> Detection:
    """Run a stream with a change after a week, until it is seen."""
    change = CHANGES[name]
    population = load_population()
    rng = np.random.default_rng([11, seed])
    size = len(population.samples["inputs"].scores)
    weights = None if change.weigh is None else change.weigh(dict(population.samples["inputs"].columns))
    reference = population.refer("inputs", rng.integers(size, size=REFERENCE))
    backend = ScipyBackend(reference)
    monitor = Monitor(reference, backend, DRIFT, "inputs")
    usual_level = ALONE / len(reference.columns)
    windows: list[Window] = []
    significant = usual = None
    for hour in range(QUIET - max(DRIFT.scales), QUIET + WATCHED):
        rows = rng.choice(size, size=ROWS, p=weights if hour >= QUIET else None)
        sample = population.draw("inputs", rows)
        windows.append(make_window(change_sample(sample, change, rng) if hour >= QUIET else sample, hour))
        windows = windows[-max(DRIFT.scales) :]
        if hour < QUIET:
            continue
        after = hour - QUIET + 1
        finding = next(found for found in monitor.judge(hour + 1, windows) if found.column == change.column)
        if usual is None and backend.test(windows[-1].sample)[change.column] <= usual_level:
            usual = after
        if significant is None and finding.significant:
            significant = after
        if finding.alarm:
            return Detection(significant, after, usual, finding.effect, measure_onset(finding))
    return Detection(significant, None, usual, None, None)


def change_sample(sample: Sample, change: Change, rng: np.random.Generator) -> Sample:
    columns = dict(sample.columns)
    if change.apply is not None:
        change.apply(columns, rng)
    return Sample(columns, sample.scores, sample.labels)


def measure_onset(finding: Finding) -> float:
    return (finding.since - START) / timedelta(hours=1) - QUIET


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--streams", type=int, default=1000, help="months without drift")
    parser.add_argument("--changes", type=int, default=200, help="streams of each change")
    arguments = parser.parse_args()
    check_counts()
    started = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        months = list(
            show_progress(pool.map(run_month, range(arguments.streams)), arguments.streams, "months")
        )
        print_months(months)
        found: dict[str, list[Detection]] = {}
        for name in CHANGES:
            runs = pool.map(run_change, [name] * arguments.changes, range(arguments.changes))
            found[name] = list(show_progress(runs, arguments.changes, name))
    print_changes(found)
    write_curves(found)
    draw_curves()
    print(f"{time.monotonic() - started:.0f} s")


def show_progress(results: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    """Pass results on and say every fifth part how many there are."""
    for number, result in enumerate(results, 1):
        yield result
        if number % max(total // 5, 1) == 0:
            print(f"  {what}: {number} of {total}", flush=True)


def print_months(months: list[Month]) -> None:
    count = len(months)
    usual = np.array([month.usual for month in months])

    def show(hits: int) -> str:
        half = 1.96 * np.sqrt(hits / count * (1 - hits / count) / count)
        return f"{hits / count:6.1%}  (± {half:.1%})"

    print(f"\n{count} months of {WINDOWS} windows of {ROWS} without any drift: share with at least one alarm")
    print(f"  significant and material   {show(sum(month.alarm for month in months))}")
    print(f"  significant alone          {show(sum(month.significant for month in months))}")
    print(f"  each window by itself      {show(int((usual > 0).sum()))}")
    print(
        f"  ... which means {usual.mean():.1f} alarms a month (quartiles {np.quantile(usual, 0.25):.0f} to "
        f"{np.quantile(usual, 0.75):.0f}, up to {usual.max()})"
    )
    print(f"  (the monitor judged {sum(month.judged for month in months)} windows that came near)\n")


def print_changes(found: dict[str, list[Detection]]) -> None:
    print(f"\nwindows of {ROWS} until a change is seen: median (90 %), and share seen within {WATCHED}")
    for name, runs in found.items():
        print(f"  {name}")
        for way in WAYS:
            delays = np.array([getattr(run, way) or np.inf for run in runs])
            middle, late = np.quantile(delays, [0.5, 0.9], method="inverted_cdf")
            print(f"    {way:12} {middle:4.0f} ({late:.0f})   {np.isfinite(delays).mean():.0%}")
        effects = [run.effect for run in runs if run.effect is not None]
        onsets = [run.onset for run in runs if run.onset is not None]
        if effects:
            print(
                f"    effect {np.median(effects):.2f}; `since` off by {np.median(onsets):+.0f} windows "
                f"(10 % to 90 %: {np.quantile(onsets, 0.1):+.0f} to {np.quantile(onsets, 0.9):+.0f})"
            )


def write_curves(found: dict[str, list[Detection]]) -> None:
    """Write the share of streams in which a change was seen after so many windows."""
    with CURVES.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["change", "windows", *WAYS])
        for name, runs in found.items():
            delays = {way: np.array([getattr(run, way) or np.inf for run in runs]) for way in WAYS}
            for hour in range(1, WATCHED + 1):
                writer.writerow([name, hour, *(f"{(delays[way] <= hour).mean():.3f}" for way in WAYS)])


def draw_curves() -> None:
    """Draw the curves that were written."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "tenure", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot as plt

    with CURVES.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axes = plt.subplots(1, len(CHANGES), figsize=(11, 2.8), sharey=True, layout="constrained")
    for axis, name in zip(axes, CHANGES, strict=True):
        curve = [row for row in rows if row["change"] == name]
        hours = [int(row["windows"]) for row in curve]
        for (way, label), style in zip(WAYS.items(), ("-", "--", ":"), strict=True):
            axis.step(hours, [float(row[way]) for row in curve], style, where="post", label=label)
        axis.set_title(name, fontsize=9)
        axis.set(xlabel=f"windows of {ROWS} since then", xscale="log", ylim=(0, 1.02))
        axis.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axis.minorticks_off()
    axes[0].set_ylabel("share of streams in which it was seen")
    axes[-1].legend(loc="lower right", frameon=False, fontsize=8)
    figure.savefig(CURVES.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
