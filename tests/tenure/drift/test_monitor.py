"""Windows are judged over the champion's life: significant and material, at the scale that sees it first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tenure.contract import Contract
from tenure.drift.backend import ScipyBackend
from tenure.drift.monitor import Monitor, Window
from tenure.drift.reference import Reference, Sample
from tenure.drift.spending import spend
from tenure.errors import DriftError
from tenure.monitoring import Drift, Effect

START = datetime(2026, 1, 1, tzinfo=UTC)
DRIFT = Drift()


@pytest.fixture
def make_windows(
    make_frame: Callable[..., pd.DataFrame], make_window: Callable[..., Sample]
) -> Callable[..., list[Window]]:
    """Make hours of 300 rows; `change(frame, hour)` may alter them."""

    def build(
        count: int, change: Callable[[pd.DataFrame, int], pd.DataFrame] | None = None, family: Any = "inputs"
    ) -> list[Window]:
        windows = []
        for hour in range(count):
            frame = make_frame(300, seed=1000 + hour)
            frame = frame if change is None else change(frame, hour)
            since = START + timedelta(hours=hour)
            windows.append(Window(make_window(frame, family), since, since + timedelta(hours=1)))
        return windows

    return build


@pytest.fixture
def monitor(make_reference: Callable[..., Reference]) -> Monitor:
    reference = make_reference()
    return Monitor(reference, ScipyBackend(reference), DRIFT, "inputs")


def raise_price(since: int, factor: float = 1.3) -> Callable[[pd.DataFrame, int], pd.DataFrame]:
    return lambda frame, hour: frame.assign(price=frame["price"] * factor) if hour >= since else frame


def judge_all(monitor: Monitor, windows: Sequence[Window]) -> list[set[str]]:
    return [
        {finding.column for finding in monitor.judge(number, windows[:number]) if finding.alarm}
        for number in range(1, len(windows) + 1)
    ]


def test_quiet_while_nothing_changes(monitor: Monitor, make_windows: Callable[..., list[Window]]) -> None:
    assert judge_all(monitor, make_windows(20)) == [set()] * 20


def test_sees_a_price_rise_and_since_when(
    monitor: Monitor, make_windows: Callable[..., list[Window]]
) -> None:
    windows = make_windows(12, raise_price(since=6))
    assert judge_all(monitor, windows) == [set()] * 6 + [{"price"}] * 6
    finding = monitor.judge(12, windows)[0]
    assert (finding.column, finding.kind, finding.measure) == ("price", "covariate", "psi")
    assert finding.since == START + timedelta(hours=6)
    assert finding.scale == 1
    assert finding.effect > 0.3
    assert finding.p_value <= finding.level


def test_a_small_change_takes_the_longer_scales(
    make_reference: Callable[..., Reference], make_windows: Callable[..., list[Window]]
) -> None:
    reference = make_reference()
    drift = Drift(effect=Effect(psi=0.01))
    monitor = Monitor(reference, ScipyBackend(reference), drift, "inputs")
    windows = make_windows(16, raise_price(since=0, factor=1.08))
    finding = monitor.judge(16, windows)[0]
    assert finding.alarm
    assert finding.scale > 1


def test_significant_alone_is_no_alarm(
    make_reference: Callable[..., Reference], make_windows: Callable[..., list[Window]]
) -> None:
    reference = make_reference()
    monitor = Monitor(reference, ScipyBackend(reference), Drift(effect=Effect(psi=3)), "inputs")
    finding = monitor.judge(8, make_windows(8, raise_price(since=0)))[0]
    assert finding.significant
    assert not finding.material
    assert not finding.alarm


def test_one_finding_for_each_column(monitor: Monitor, make_windows: Callable[..., list[Window]]) -> None:
    findings = monitor.judge(5, make_windows(5))
    assert [finding.column for finding in findings] == ["price", "months", "plan", "senior", "score"]
    assert [finding.kind for finding in findings] == ["covariate"] * 4 + ["score"]
    level = spend(DRIFT.alpha / 2, DRIFT.half_life, 5) / (len(DRIFT.scales) * 5)
    assert {finding.level for finding in findings} == {monitor.get_level(5)} == {level}


def test_the_whole_chance_is_alpha(make_reference: Callable[..., Reference]) -> None:
    """Every test of both families over ten thousand windows together uses less than alpha."""
    spent = 0.0
    for family in ("inputs", "outcomes"):
        reference = make_reference(family)
        monitor = Monitor(reference, ScipyBackend(reference), DRIFT, family)
        tests = len(DRIFT.scales) * len(reference.columns)
        spent += sum(monitor.get_level(number) * tests for number in range(1, 10_001))
    assert 0.9 * DRIFT.alpha < spent < DRIFT.alpha


def test_tells_labels_from_performance(
    make_reference: Callable[..., Reference], make_windows: Callable[..., list[Window]]
) -> None:
    reference = make_reference("outcomes")
    monitor = Monitor(reference, ScipyBackend(reference), DRIFT, "outcomes")

    def more_leave(frame: pd.DataFrame, hour: int) -> pd.DataFrame:
        # Score and share both grow: the model is as right as before.
        rng = np.random.default_rng(hour)
        score = np.clip(frame["score"] + 0.25, 0, 1)
        return frame.assign(score=score, label=(rng.random(len(frame)) < score).astype(float))

    def other_reasons(frame: pd.DataFrame, hour: int) -> pd.DataFrame:
        return frame.assign(score=1 - frame["score"])

    found = {
        finding.column: finding for finding in monitor.judge(16, make_windows(16, more_leave, "outcomes"))
    }
    assert found["label"].alarm
    assert found["label"].effect == pytest.approx(0.22, abs=0.1)
    found = {
        finding.column: finding for finding in monitor.judge(16, make_windows(16, other_reasons, "outcomes"))
    }
    assert found["performance"].alarm
    assert not found["label"].alarm


def test_sees_an_unseen_category_and_a_broken_column(
    monitor: Monitor, make_windows: Callable[..., list[Window]]
) -> None:
    def change(frame: pd.DataFrame, hour: int) -> pd.DataFrame:
        plan = frame["plan"].mask(np.arange(len(frame)) % 6 == 0, "gold")
        return frame.assign(plan=plan, months=None)

    assert judge_all(monitor, make_windows(3, change)) == [{"plan", "months"}] * 3


def test_fewer_windows_than_a_scale_are_enough(
    make_reference: Callable[..., Reference], make_windows: Callable[..., list[Window]]
) -> None:
    reference = make_reference()
    monitor = Monitor(reference, ScipyBackend(reference), Drift(scales=(4,)), "inputs")
    assert monitor.judge(1, make_windows(1)) == ()
    assert len(monitor.judge(4, make_windows(4))) == 5


def test_an_empty_window_is_no_alarm(
    monitor: Monitor, make_frame: Callable[..., pd.DataFrame], make_window: Callable[..., Sample]
) -> None:
    empty = Window(make_window(make_frame(0)), START, START)
    assert not any(finding.alarm for finding in monitor.judge(1, [empty]))


def test_refuses_what_does_not_fit(
    monitor: Monitor,
    contract: Contract,
    make_reference: Callable[..., Reference],
    make_windows: Callable[..., list[Window]],
) -> None:
    with pytest.raises(DriftError, match="no window"):
        monitor.judge(1, [])
    with pytest.raises(ValueError, match="count from 1"):
        monitor.judge(0, make_windows(1))
    with pytest.raises(DriftError, match="same contract and family"):
        monitor.judge(1, make_windows(1, family="outcomes"))
    reference = make_reference("outcomes")
    with pytest.raises(DriftError, match="one of outcomes"):
        Monitor(reference, ScipyBackend(reference), DRIFT, "inputs")


def test_false_alarms_keep_to_alpha(
    make_reference: Callable[..., Reference], make_windows: Callable[..., list[Window]]
) -> None:
    """Fifty references with ten windows each at a large alpha: no more significant streams than it allows.

    The benchmark does this for a thousand months; here a mistake of an order of magnitude would show.
    """
    rng = np.random.default_rng(5)
    drift = Drift(alpha=0.4, half_life=10, scales=(1, 4))
    alarms = 0
    for _ in range(50):
        pool = rng.integers(12, size=(1200 + 10 * 100)).astype(float)

        def make(rows: slice, pool: Any = pool) -> Sample:
            return Sample(
                {"label": (pool[rows] > 8).astype(int).astype(str).astype(object), "performance": pool[rows]},
                pool[rows],
                None,
            )

        reference = Reference("outcomes", {"label": "label", "performance": "performance"}, make(slice(1200)))
        monitor = Monitor(reference, ScipyBackend(reference), drift, "outcomes")
        windows = [Window(make(slice(1200 + 100 * k, 1300 + 100 * k)), START, START) for k in range(10)]
        alarms += any(
            finding.significant
            for number in range(1, 11)
            for finding in monitor.judge(number, windows[:number])
        )
    assert alarms <= 12  # expected at most 50 * .2 / 2 = 5; twelve or more has a chance below 1 in 200
