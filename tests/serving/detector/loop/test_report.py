from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.detector.inspection import _rate
from serving.detector.report import draw_column, measure_ratio, render_report
from serving.detector.window import Cut, Cutter
from tenure.drift.reference import Sample
from tenure.drift.verdict import Verdict


class Reader(HTMLParser):
    """Checks that tags are balanced, and keeps the text."""

    VOID = frozenset({"meta", "line", "rect", "polyline", "path", "circle", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def judge(world: Any, traffic: Any) -> Callable[..., tuple[Verdict, Any, Cut]]:
    """Return a function that sends a window of customers and judges it."""

    def make(dearer: float, family: Any = "inputs") -> tuple[Verdict, Any, Cut]:
        traffic.send(200, seed=7, dearer=dearer)
        world.clock.move(seconds=2)
        cut = Cutter(world.ledger, world.champion, family).cut(0, world.clock())
        assert cut is not None
        judge = world.champion.get_judge(family)
        verdict = Verdict(
            service="churn",
            version=world.champion.version,
            family=family,
            number=1,
            rows=cut.rows,
            since=cut.window.since,
            until=cut.window.until,
            findings=judge.monitor.judge(1, [cut.window]),
            estimate=_rate(world.champion, cut, 1),
        )
        return verdict, judge.reference.sample, cut

    return make


@pytest.mark.parametrize("family", ["inputs", "outcomes"])
def test_page_says_what_drifts(judge: Any, family: Any) -> None:
    verdict, reference, cut = judge(1.8, family)
    history = [verdict.model_copy(update={"number": number}) for number in (1, 2, 3)]
    page = render_report(verdict, reference, cut.window.sample, history)
    if "TENURE_KEEP_REPORTS" in os.environ:
        Path(os.environ["TENURE_KEEP_REPORTS"], f"{family}.html").write_text(page)
    reader = read(page)
    text = " ".join(reader.text)
    assert verdict.describe() in text
    for finding in verdict.findings:
        assert finding.column in text
    assert reader.names.count("figure") == len(verdict.alarms)
    assert reader.names.count("polyline") == len(verdict.findings)
    assert "script" not in reader.names
    assert "http" not in page
    assert page == render_report(verdict, reference, cut.window.sample, history)


def test_calm_page_shows_the_largest_differences(judge: Any) -> None:
    verdict, reference, cut = judge(1.0)
    reader = read(render_report(verdict, reference, cut.window.sample))
    assert "No drift" in reader.text
    assert reader.names.count("figure") == 4


def test_page_without_rows_still_says_its_numbers(judge: Any) -> None:
    verdict, reference, _ = judge(1.8)
    reader = read(render_report(verdict, reference, None))
    assert "figure" not in reader.names
    assert verdict.describe() in reader.text


def test_values_from_data_are_escaped() -> None:
    evil = "<script>alert('x')</script>"
    names = np.array([evil, "b"], dtype=object)
    scores = np.array([0.1, 0.2])
    sample = Sample({"plan": names}, scores)
    chart = draw_column("plan", sample, sample)
    assert {bar.name for bar in chart.bars} == {evil, "b"}
    from tenure.drift.verdict import Finding

    now = read_time()
    finding = Finding(
        column="plan",
        kind="covariate",
        p_value=0,
        level=0.1,
        effect=1,
        measure="l1",
        threshold=0.1,
        scale=1,
        since=now,
        significant=True,
        material=True,
    )
    verdict = Verdict(
        service="<b>churn</b>",
        version="v",
        family="inputs",
        number=1,
        rows=2,
        since=now,
        until=now + timedelta(seconds=1),
        findings=(finding,),
    )
    page = render_report(verdict, sample, sample)
    assert evil not in page
    assert "<b>churn</b>" not in page
    assert "&lt;script&gt;" in page


def read_time() -> Any:
    from datetime import UTC, datetime

    return datetime(2026, 1, 1, tzinfo=UTC)


def test_missing_values_and_constants_are_drawn() -> None:
    scores = np.full(4, 0.5)
    before = Sample({"x": np.array([1.0, 1.0, 1.0, 1.0])}, scores)
    after = Sample({"x": np.array([-np.inf, -np.inf, 1.0, 1.0])}, scores)
    chart = draw_column("x", before, after)
    assert chart.bars[-1].name == "missing"
    assert (chart.bars[-1].reference, chart.bars[-1].window) == (0.0, 0.5)
    assert sum(bar.reference for bar in chart.bars) == pytest.approx(1)
    assert sum(bar.window for bar in chart.bars) == pytest.approx(1)
    nothing = Sample({"x": np.full(4, -np.inf)}, scores)
    assert draw_column("x", nothing, nothing).bars[-1].reference == 1.0


def test_many_categories_are_put_together() -> None:
    names = np.array([f"c{number:02d}" for number in range(40)], dtype=object)
    sample = Sample({"x": names}, np.full(40, 0.5))
    chart = draw_column("x", sample, sample)
    assert len(chart.bars) == 12
    assert chart.bars[-1].name == "29 others"
    assert sum(bar.window for bar in chart.bars) == pytest.approx(1)


def test_better_auc_has_no_size() -> None:
    from tenure.drift.verdict import Finding

    now = read_time()
    finding = Finding(
        column="performance",
        kind="performance",
        p_value=0.5,
        level=0.1,
        effect=-0.2,
        measure="auc",
        threshold=0.03,
        scale=1,
        since=now,
        significant=False,
        material=False,
    )
    assert measure_ratio(finding) == 0
