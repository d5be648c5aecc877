"""What the page says of what was read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.web.chart import INTERVAL_WIDTH, Figure, draw_chart, draw_interval
from console.web.view import Links, build_service, count_steps, read_run_id, say_ago

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def test_a_canary_is_named_with_its_share(stage: Any) -> None:
    view = build_service(stage.services[0], None, None)
    assert view.mood == "busy"
    assert view.headline == "canary bbbbbbbbbbbb has 20 % of the customers"
    assert view.step.startswith("1 of 2: 20 %, then 50 %")
    assert [(one.verdict, one.mood) for one in view.signals] == [("safe", "good")]


def test_drift_of_the_newest_window_is_in_the_headline(stage: Any) -> None:
    view = build_service(stage.services[0], stage.ledger.services["telco-churn"], None)
    assert view.mood == "warn"
    assert "the newest window drifts" in view.headline
    assert [one.findings[0].finding.column for one in view.families] == ["price", "price"]
    assert view.alarms[0][1] == "/reports/0123456789abcdef0123456789abcdef"
    assert [one.title for one in view.charts] == ["ROC-AUC", "Of those flagged, how many leave"]
    assert view.charts[0].latest[0].startswith("measured 0.810")


def test_a_service_that_nobody_is_led_to_is_trouble(stage: Any) -> None:
    stage.change_shares(0, 0)
    view = build_service(stage.services[0], None, None)
    assert view.mood == "bad"
    assert "the route is missing" in view.headline


def test_a_version_with_customers_that_is_not_ready_is_trouble(stage: Any) -> None:
    reading = stage.services[0]
    variants = [reading.state.variants[0].model_copy(update={"ready": False}), *reading.state.variants[1:]]
    state = reading.state.model_copy(update={"variants": variants})
    view = build_service(replace(reading, state=state, trouble="ImagePullBackOff"), None, None)
    assert view.mood == "bad"
    assert "ImagePullBackOff" in view.headline


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("runs:/" + "a1" * 16 + "/report.html", "a1" * 16),
        ("runs:/../../admin", None),
        ("runs:/" + "A1" * 16 + "/report.html", None),
        ("javascript:/" + "a1" * 16, None),
        ("", None),
        (None, None),
    ],
)
def test_only_ids_of_runs_are_linked(uri: str | None, expected: str | None) -> None:
    assert read_run_id(uri) == expected
    assert Links(mlflow="http://m").tracked(uri) == (f"http://m/#/runs/{expected}" if expected else None)


def test_an_id_is_quoted_in_a_link() -> None:
    assert Links(kubeflow="http://k").run("a/../b?c") == "http://k/#/runs/details/a%2F..%2Fb%3Fc"
    assert Links().run("a") is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago")],
)
def test_times_are_said_as_people_do(seconds: int, text: str) -> None:
    assert say_ago(NOW - timedelta(seconds=seconds), NOW).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_run_says_how_far_it_is(stage: Any) -> None:
    assert count_steps(stage.runs[0]) == "1 of 2 steps done, at tune"


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.floats(0, 1e6))
def test_an_interval_stays_in_its_strip(low: float, width: float, tolerance: float) -> None:
    drawn = draw_interval(low + width / 2, low, low + width, tolerance)
    for place in (drawn.x, drawn.dot, drawn.zero, drawn.limit):
        assert 0 <= place <= INTERVAL_WIDTH
    assert 0 < drawn.width <= INTERVAL_WIDTH + 2
    assert drawn.zero <= drawn.limit


_figures = st.lists(
    st.builds(
        lambda version, minutes, value, width: Figure(
            version, NOW + timedelta(minutes=minutes), value, value - width, value + width
        ),
        st.sampled_from("ab"),
        st.integers(0, 10**6),
        st.floats(-1e6, 1e6) | st.just(float("nan")),
        st.floats(0, 1e6),
    )
)


@given(_figures, _figures)
def test_a_chart_stays_in_its_frame(measured: list[Figure], estimated: list[Figure]) -> None:
    chart = draw_chart("ROC-AUC", [("measured", measured), ("estimated", estimated)], [(NOW, "promoted")])
    if chart is None:
        assert all(one.value != one.value for one in measured + estimated)
        return
    for line in chart.lines:
        points = [tuple(map(float, point.split(","))) for point in f"{line.path} {line.band}".split()]
        assert all(0 <= x <= 420 and 0 <= y <= 170 for x, y in points)
    assert len(chart.lines) <= 4


def test_each_version_has_a_line_of_its_own() -> None:
    figures = [
        Figure(version, NOW + timedelta(minutes=n), 0.5, 0.4, 0.6) for n, version in enumerate("aabbab")
    ]
    chart = draw_chart("ROC-AUC", [("measured", figures)], [])
    assert chart is not None
    assert [(line.version, len(line.path.split())) for line in chart.lines] == [("a", 3), ("b", 3)]
