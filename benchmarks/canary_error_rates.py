"""How often harmless canaries are taken back, and how soon harmful ones are.

    python benchmarks/canary_error_rates.py [--null 1000] [--harmful 100] [--svg docs/canary_error_rates.svg]

Plays whole rollouts (5, 20, 50 %, 500 answers of the canary each, alpha .05) request by request and judges
after every single one. What `tenure.judgement.judge` would say is found without asking it each time:
necessary conditions are computed for all looks at once, and wherever they hold `judge` itself decides.

Each request is drawn: arm, failure, duration (lognormal; its fifth slowest in the stable version is slow),
customer, both versions' scores; the outcome is known 500 requests later. The canary of an A/A rollout is a
twin of the stable version: its scores have noise of their own and what evaluation expects of their
difference is itself estimated on 1,733 customers. In "rough weather" outages and busy times strike both
arms alike.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from _canary_chart import draw_chart

from tenure.canary import Rollout, Tolerance
from tenure.judgement import Evidence, Judgement, Progress, Traffic, compute_profits, judge
from tenure.monitoring import Value
from tenure.sequence import follow_mean, weigh_excess, weigh_mean, weigh_shortfall

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALPHA = 0.05
LEVEL = ALPHA / 5
LAG = 500
CHUNK = 2_000
SPREAD = 0.415  # of log-durations: the predictor's p50 of 2.4 ms and p99 of 6.3 ms
SLOW = math.exp(0.8416 * SPREAD)
THRESHOLD = 0.4
VALUE = Value()


@dataclass(frozen=True)
class Scenario:
    """What is wrong with a canary.

    Attributes:
        errors: Added to its chance of failing (the stable version's is .01).
        factor: Its durations are so many times as long.
        shift: Added to its log-odds.
        foreseen: Whether evaluation found the shift.
        rough: Whether outages and busy times strike both arms.
        tolerance: The project's.
        horizon: Requests after which a rollout that still waits is given up.
    """

    name: str
    errors: float = 0.0
    factor: float = 1.0
    shift: float = 0.0
    foreseen: bool = True
    rough: bool = False
    tolerance: Tolerance = field(default_factory=Tolerance)
    horizon: int = 30_000


@dataclass(frozen=True)
class Outcome:
    """How one rollout ended: after how many answers of the canary and requests, and by which signals."""

    action: str
    answers: int
    requests: int
    signals: tuple[str, ...]
    labelled: int
    crossed: bool


NULLS = (Scenario("A/A"), Scenario("A/A in rough weather", rough=True))
HARMFUL = (
    Scenario("errors +1 point, .02 tolerated", errors=0.01, horizon=100_000),
    Scenario(
        "errors +1 point, .005 tolerated", errors=0.01, tolerance=Tolerance(errors=0.005), horizon=100_000
    ),
    Scenario("errors +2 points", errors=0.02),
    Scenario("errors +5 points", errors=0.05),
    Scenario("errors +30 points", errors=0.3),
    Scenario("latency x1.5", factor=1.5),
    Scenario("miscalibrated, unforeseen", shift=1.0, foreseen=False),
    Scenario("miscalibrated, as evaluated", shift=1.0),
)


def squash(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def draw_scores(scenario: Scenario, rng: np.random.Generator, rows: int) -> tuple[np.ndarray, ...]:
    """Draw customers: both versions' scores, and whether they leave."""
    z = 1.5 * rng.normal(size=rows) - 1.3
    canary = squash(z + 0.15 * rng.normal(size=rows) + scenario.shift)
    stable = squash(z + 0.15 * rng.normal(size=rows))
    return canary, stable, (rng.random(rows) < squash(z)).astype(float)


class Play:
    """One rollout: everything that happened so far, request by request."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario, self.rng = scenario, np.random.default_rng(seed)
        self.rollout = Rollout(service="telco-churn", alpha=ALPHA, tolerance=scenario.tolerance)
        evaluated = scenario if scenario.foreseen else NULLS[0]
        canary, stable, _ = draw_scores(evaluated, self.rng, 1_733)
        self.expected = float(canary.mean() - stable.mean())
        self.progress = Progress(canary="c", digest="c", step=0, began=NOW, since=NOW, slow_ms=SLOW)
        self.columns = {
            name: np.empty(0)
            for name in ("canary", "error", "slow", "difference", "residual", "profit", "ones")
        }
        self.begin = 0  # of this step
        # Weather: when an outage begins, and the busy time's phase.
        self.outage, self.phase = int(self.rng.integers(0, 12_000)), self.rng.uniform(0, 2 * math.pi)

    def __len__(self) -> int:
        return len(self.columns["canary"])

    def draw(self, rows: int) -> None:
        """Draw so many more requests."""
        rng, scenario = self.rng, self.scenario
        at = len(self) + np.arange(rows)
        canary = rng.random(rows) < self.rollout.steps[self.progress.step] / 100
        chance, busy = np.full(rows, 0.01), np.ones(rows)
        if scenario.rough:
            chance = np.where((at >= self.outage) & (at < self.outage + 300), 0.5, 0.002)
            busy = np.exp(0.5 * np.sin(at / 700 + self.phase))
        error = rng.random(rows) < np.minimum(chance + scenario.errors * canary, 1)
        duration = np.exp(SPREAD * rng.normal(size=rows)) * busy * np.where(canary, scenario.factor, 1)
        ours, theirs, outcome = draw_scores(scenario, rng, rows)
        score = np.where(canary, ours, theirs)
        new = {
            "canary": canary,
            "error": error,
            "slow": duration > SLOW,
            "difference": ours - theirs,
            "residual": outcome - score,
            "profit": compute_profits(score, score >= THRESHOLD, outcome, VALUE),
            "ones": np.ones(rows),
        }
        self.columns = {
            name: np.concatenate([values, new[name].astype(float)]) for name, values in self.columns.items()
        }

    def count(self, hits: str) -> np.ndarray:
        """Count this step's hits and trials after each of its requests, beside the finished steps'.

        Returns:
            Shape [requests, strata, 4].
        """
        arm, hit = self.columns["canary"][self.begin :], self.columns[hits][self.begin :]
        newest = np.cumsum(np.stack([arm * hit, arm, (1 - arm) * hit, 1 - arm], axis=-1), axis=0)
        names = ("errors", "requests") if hits == "error" else ("slow", "timed")
        old = [
            [getattr(traffic, name) for traffic in (stage.canary, stage.stable) for name in names]
            for stage in self.progress.finished
        ]
        strata = [np.broadcast_to(np.array(stage, dtype=float), newest.shape) for stage in old]
        return np.stack([*strata, newest], axis=1)

    def gather(self, end: int) -> Evidence:
        """Gather what the pilot knows after `end` requests."""
        c = {name: values[:end] for name, values in self.columns.items()}
        arms = c["canary"] == 1
        traffic = [
            Traffic(
                requests=int(arm.sum()),
                errors=int(c["error"][arm].sum()),
                timed=int(arm.sum()),
                slow=int(c["slow"][arm].sum()),
            )
            for arm in (arms, ~arms)
        ]
        mature = slice(0, max(end - LAG, 0))
        known = arms[mature]
        return Evidence(
            *traffic,
            c["difference"][arms],
            self.expected,
            0,
            (c["residual"][mature][known], c["residual"][mature][~known]),
            (c["profit"][mature][known], c["profit"][mature][~known]),
            int(arms[self.begin :].sum()),
            VALUE,
        )

    def judge(self, end: int) -> Judgement:
        return judge(self.rollout, self.gather(end), self.progress, NOW)

    def finish_step(self, end: int) -> None:
        """Forget what was drawn after `end` and go on to the next step."""
        self.columns = {name: values[:end] for name, values in self.columns.items()}
        self.progress = self.progress.advance(self.gather(end), NOW)
        self.begin = end


def find_excess(strata: np.ndarray, tolerance: float | None) -> Iterator[int]:
    """Yield the looks at which the canary's share surely exceeds the stable one's (and the tolerance).

    The e-value is a mixture of likelihood ratios of (arm, hit) given the hits, so it never exceeds the
    greatest one, which is exp(G / 2) with the G statistic of the tables: quickly computed for all looks.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        h, n, k, m = np.moveaxis(strata, -1, 0)
        total = n + m
        cells = (
            (h, n * (h + k)),
            (n - h, n * (total - h - k)),
            (k, m * (h + k)),
            (m - k, m * (total - h - k)),
        )
        half_g = sum(np.where(o > 0, o * np.log(o * total / e), 0) for o, e in cells).sum(axis=-1)
        h, n, k, m = strata.sum(axis=1).T
        excess = h / n - k / m
    possible = half_g >= -math.log(LEVEL)
    if tolerance is not None:
        possible &= excess > tolerance
    looks = np.flatnonzero(possible)
    for block in np.array_split(looks, range(8, len(looks), 64)):
        yield from block[weigh_excess(strata[block], 0.0) >= -math.log(LEVEL)]


def find_harm(play: Play, start: int, stop: int) -> Iterator[tuple[int, bool]]:
    """Yield (requests, whether labels matter) of the looks in (start, stop] at which harm is possible."""
    c = {name: values[:stop] for name, values in play.columns.items()}
    tolerance, offset = play.rollout.tolerance, play.begin
    for hits, limit in (("error", tolerance.errors), ("slow", tolerance.latency)):
        for look in find_excess(play.count(hits)[start - offset : stop - offset], limit):
            yield start + int(look) + 1, False
    arms = c["canary"] == 1
    rows, values = np.flatnonzero(arms), c["difference"][arms]
    for sign in (1, -1):
        logs = follow_mean(sign * values, sign * play.expected + tolerance.score, -1.0)
        for row in rows[(logs >= -math.log(LEVEL / 2)) & (rows >= start)]:
            yield int(row) + 1, False
    yield from find_late_harm(play, arms, start, stop)


def find_late_harm(play: Play, arms: np.ndarray, start: int, stop: int) -> Iterator[tuple[int, bool]]:
    """Yield the looks at which calibration or profit may be harm."""
    tolerance, mature = play.rollout.tolerance, max(stop - LAG, 0)
    arms = arms[:mature]
    numbers = np.cumsum(arms), np.cumsum(~arms)

    def follow(name: str) -> list[np.ndarray]:
        values = play.columns[name][:mature]
        with np.errstate(divide="ignore", invalid="ignore"):
            return [
                np.cumsum(np.where(m, values, 0)) / n for m, n in zip((arms, ~arms), numbers, strict=True)
            ]

    ours, theirs = follow("residual")
    possible = (np.abs(ours) - np.abs(theirs) > tolerance.calibration) & (numbers[0] > 0)
    residuals = play.columns["residual"][:mature][arms]
    if possible.any():
        logs = np.maximum(follow_mean(residuals, 0.0, -1.0), follow_mean(-residuals, 0.0, -1.0))
        possible &= np.where(numbers[0] > 0, logs[numbers[0] - 1], 0) >= -math.log(LEVEL / 4)
    for row in np.flatnonzero(possible):
        if start < row + 1 + LAG <= stop:
            yield int(row) + 1 + LAG, True
    ours, theirs = follow("profit")
    profits, most = play.columns["profit"][:mature][arms], VALUE.success * VALUE.saved - VALUE.contact
    for row in np.flatnonzero((theirs - ours > tolerance.profit) & (theirs < most) & (numbers[0] > 0)):
        if not start < row + 1 + LAG <= stop:
            continue
        if weigh_mean(-profits[: numbers[0][row]], -theirs[row], -most) >= -math.log(LEVEL / 2):
            yield int(row) + 1 + LAG, True


def find_advance(play: Play, start: int, stop: int) -> int | None:
    """Return the first look in (start, stop], every 50 requests, at which `judge` lets the canary go on."""
    tolerance, need = play.rollout.tolerance, -math.log(ALPHA)
    arms = play.columns["canary"] == 1
    answers = np.cumsum(arms[play.begin :])
    enough = play.begin + int(np.searchsorted(answers, play.rollout.min_requests)) + 1
    errors, slow = play.count("error"), play.count("slow")
    ends = np.arange(max(start + 1, enough), stop + 1, 50)
    for block in np.array_split(ends, range(1, len(ends), 16)):
        for counts, tolerated in ((errors, tolerance.errors), (slow, tolerance.latency)):
            if len(block):
                block = block[weigh_shortfall(counts[block - play.begin - 1], tolerated) >= need]
        for end in block:
            if play.judge(int(end)).action in ("advance", "promote"):
                return int(end)
    return None


def simulate(scenario: Scenario, seed: int) -> Outcome:
    """Play one rollout to its end, or to the horizon."""
    play, crossed = Play(scenario, seed), False
    while len(play) < scenario.horizon:
        start = len(play)
        play.draw(max(CHUNK, start // 3))
        advance = find_advance(play, start, len(play))
        stop = advance or len(play)
        for hits in ("error", "slow"):
            looks = slice(start - play.begin, stop - play.begin)
            crossed |= next(find_excess(play.count(hits)[looks], None), None) is not None
        ended, checked = None, -math.inf
        stride = 1 if scenario in NULLS else 20
        for end, late in sorted(find_harm(play, start, stop)):
            if late and end < checked + stride:
                continue
            verdict = play.judge(end)
            checked = end if late else checked
            if verdict.action == "rollback":
                ended = end, verdict
                break
        if ended:
            end, verdict = ended
            names = tuple(signal.name for signal in verdict.harms)
            return describe(play, "rollback", end, names, crossed)
        if advance:
            if play.progress.step + 1 == len(play.rollout.steps):
                return describe(play, "promote", advance, (), crossed)
            play.finish_step(advance)
    return describe(play, "wait", len(play), (), crossed)


def describe(play: Play, action: str, end: int, signals: tuple[str, ...], crossed: bool) -> Outcome:
    arms = play.columns["canary"][:end]
    labelled = int(arms[: max(end - LAG, 0)].sum())
    return Outcome(action, int(arms.sum()), end, signals, labelled, crossed)


def summarise(scenario: Scenario, outcomes: list[Outcome]) -> None:
    """Print one line of the table."""
    taken = [o for o in outcomes if o.action == "rollback"]
    share = {a: sum(o.action == a for o in outcomes) / len(outcomes) for a in ("rollback", "promote", "wait")}
    answers, requests = (
        [f"{np.quantile([getattr(o, name) for o in taken], q):.0f}" for q in (0.5, 0.9)]
        if taken
        else ["", ""]
        for name in ("answers", "requests")
    )
    by: dict[str, int] = {}
    for name in (name for o in taken for name in o.signals):
        by[name] = by.get(name, 0) + 1
    reasons = ", ".join(f"{name} {count}" for name, count in sorted(by.items(), key=lambda item: -item[1]))
    print(
        f"{scenario.name:34s} {len(outcomes):5d} {share['rollback']:7.1%} {share['promote']:7.1%} "
        f"{share['wait']:7.1%}  {answers[0]:>6s} {answers[1]:>6s}  {requests[0]:>6s} {requests[1]:>6s}  "
        f"{reasons}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--null", type=int, default=1000, help="rollouts of harmless canaries")
    parser.add_argument("--harmful", type=int, default=100, help="rollouts of each harmful canary")
    parser.add_argument("--svg", type=Path, default=Path("docs/canary_error_rates.svg"))
    options = parser.parse_args()
    started = time.perf_counter()
    print(f"{'':46s}taken                   answers till then  requests till then")
    print(f"{'canary':34s} {'plays':>5s}    back promoted waiting  median    90 %  median    90 %  by signal")
    results = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for scenario in (*NULLS, *HARMFUL):
            plays = options.null if scenario in NULLS else options.harmful
            outcomes = list(pool.map(partial(simulate, scenario), range(plays), chunksize=5))
            summarise(scenario, outcomes)
            results[scenario.name] = outcomes
            if scenario in NULLS:
                crossed = sum(o.crossed for o in outcomes) / plays
                print(
                    f"{'':4s}a lower bound of errors or latency was ever above 0: {crossed:.1%} "
                    f"(allowed {2 * LEVEL:.0%})"
                )
    draw_chart(results, ALPHA, options.svg)
    print(f"{time.perf_counter() - started:.0f} s; curves in {options.svg}")
    worst = max(sum(o.action == "rollback" for o in results[s.name]) / options.null for s in NULLS)
    if worst > ALPHA:
        raise SystemExit(f"{worst:.1%} of harmless canaries were taken back, more than {ALPHA:.0%}")


if __name__ == "__main__":
    main()
