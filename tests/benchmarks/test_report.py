"""The judgement of the goals."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def measured(load: ModuleType, report: ModuleType) -> Any:
    """Two rounds: ours takes 100 us and 1 ms, kserve 800 us and 2 ms; FastAPI is slow but for its p99."""

    def make(server: str, kind: str, cpu: float, rate: float, p99: float) -> Any:
        loads = [load.Load(rate * slow, cpu * slow, p99 / 2, p99, 100, 10.0) for slow in (1.0, 1.5)]
        return report.Cell(server, kind, 1, 8, loads)

    found = report.Report({})
    found.cells = [
        make(report.OURS, "json", 100, 8000, 1.0),
        make(report.STOCK, "json", 800, 1000, 2.0),
        make(report.USUAL, "rows", 8000, 100, 0.5),
    ]
    found.starts = {
        report.OURS: report.Start([1.0, 2.0, 1.2], [100.0], 120.0),
        report.STOCK: report.Start([3.0], [100.0], 240.0),
    }
    return found


def test_goals_are_judged_by_the_rounds_ratios(measured: Any, report: ModuleType) -> None:
    reached = {goal.goal: goal.reached for goal in report.judge(measured)}
    assert reached == {
        "CPU a request at most 1/7 of kserve's": pytest.approx(8 / 7),
        "p99 below every peer's": pytest.approx(0.5),
        "40 times the usual pipeline": pytest.approx(2),
        "memory below kserve's": pytest.approx(2),
        "ready within 1.5 s": pytest.approx(1.25),
    }


def test_a_load_that_failed_is_not_judged(measured: Any, report: ModuleType) -> None:
    measured.cells[1].loads = [None, None]
    goals = {goal.goal: goal for goal in report.judge(measured)}
    assert goals["CPU a request at most 1/7 of kserve's"].verdict == "not measured"
    assert goals["40 times the usual pipeline"].verdict.startswith("yes")


def test_report_is_printed_and_stored(
    measured: Any, report: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    measured.machine = dict.fromkeys(
        ("trees", "depth", "features", "cores", "load_average", "rounds", "seconds", "minutes"), 1
    )
    measured.goals = report.judge(measured)
    report.print_report(measured)
    printed = capsys.readouterr().out
    assert "| kserve | json | 8 | 1,250 | 1.00 | 2.00 | 1,000 |" in printed
    assert "| kserve | json | 1 | 8 | x 8.0 | 1/8.0 | 1/2.0 |" in printed
    assert measured.to_document()["cells"][1]["loads"][0]["cpu_us"] == 800
