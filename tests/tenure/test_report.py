"""The page: complete, self-contained, well-formed, and nothing in it that somebody else wrote as markup."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from tenure.bootstrap import Interval
from tenure.chart import BOTTOM, LEFT, RIGHT, TOP, Scale, draw_histogram, draw_roc
from tenure.contract import Contract
from tenure.curve import Histogram
from tenure.evaluation import EvaluationReport, evaluate
from tenure.gate import Decision, Reason, decide
from tenure.project import Metric, Project
from tenure.report import METRIC_NAMES, render_report

EVIL = "<script>alert('1')</script>\"&amp;"


class Outline(HTMLParser):
    """Checks that elements nest, and collects attributes, ids and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += " " + " ".join(data.split())


def read(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    outline.close()
    assert outline.open == []
    return outline


@pytest.fixture(scope="module")
def make_report() -> Callable[..., EvaluationReport]:
    @functools.cache
    def build(
        champion: bool = True, value: str = "plus", metric: str = "roc_auc", rows: int = 400
    ) -> EvaluationReport:
        contract = Contract.model_validate(
            {
                "columns": [
                    {"name": "id", "role": "id", "type": "string"},
                    {"name": "left", "role": "label", "type": "boolean"},
                    {"name": "plan", "type": "string"},
                    {"name": "x", "type": "float"},
                ]
            }
        )
        project = Project.model_validate(
            {
                "name": "page",
                "source": {"uri": "rows.csv"},
                "contract": contract,
                "evaluation": {"bootstrap": 100, "min_slice_rows": 12},
                "gate": {"metric": metric},
                "rollout": {"service": "page"},
            }
        )

        def make_frame(seed: int) -> pd.DataFrame:
            rng = np.random.default_rng(seed)
            plan = np.where(rng.random(rows) < 0.5, value, "basic").astype(object)
            plan[:20] = "rare"
            left = rng.random(rows) < 0.4
            left[:20] = False
            return pd.DataFrame(
                {
                    "id": [f"{seed}-{row}" for row in range(rows)],
                    "left": pd.array(left, dtype="boolean"),
                    "plan": plan,
                    "x": rng.normal(size=rows) + left,
                }
            )

        frame = make_frame(1)
        scores = 1 / (1 + np.exp(-frame["x"].to_numpy()))
        other = (np.sqrt(scores), 0.6, EVIL) if champion else None
        return evaluate(frame, make_frame(2), scores, 0.5, other, project, challenger_version="b1234")

    return build


def test_says_everything(make_report: Callable[..., EvaluationReport]) -> None:
    report = make_report()
    decision = decide(report, Project.model_fields["gate"].default)
    page = read(render_report(report, decision))
    for words in (
        "Evaluation of page",
        "Challenger b1234",
        "400",
        "by the gate",
        "Slices",
        "rare",
        "too few",
    ):
        assert words in page.text
    for name in METRIC_NAMES.values():
        assert name.format(precision=0.6) in page.text
    for reason in decision.reasons:
        assert " ".join(reason.text.split()) in page.text
    challenger = report.models["challenger"].metrics["roc_auc"]
    assert f"{challenger.value:.4f}" in page.text
    assert f"{challenger.low:.4f} to {challenger.high:.4f}" in page.text
    matrix = report.models["champion"].confusion.to_matrix()
    for row in matrix:
        for number in row:
            assert str(number) in page.text


def test_is_self_contained(make_report: Callable[..., EvaluationReport]) -> None:
    text = render_report(make_report(), None)
    page = read(text)
    assert not {tag for tag, _ in page.seen} & {"script", "link", "img", "iframe", "object"}
    assert not {name for _, attributes in page.seen for name in attributes} & {
        "src",
        "href",
        "onclick",
        "onload",
    }
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_escapes_what_comes_from_data_and_versions(make_report: Callable[..., EvaluationReport]) -> None:
    report = make_report(value=EVIL)
    decision = Decision(approved=False, reasons=[Reason(rule=EVIL, passed=False, text=EVIL)])
    text = render_report(report, decision)
    assert "<script" not in text
    page = read(text)
    assert page.text.count(EVIL) >= 4  # version, slice, rule, reason
    assert "Rejected by the gate" in page.text


def test_pictures_and_tables_have_names(make_report: Callable[..., EvaluationReport]) -> None:
    page = read(render_report(make_report(), None))
    ids = {attributes["id"] for _, attributes in page.seen if "id" in attributes}
    pictures = [attributes for tag, attributes in page.seen if tag == "svg"]
    assert len(pictures) > 5
    for attributes in pictures:
        assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
    for tag, attributes in page.seen:
        if tag == "table":
            assert attributes.get("aria-label") or attributes["aria-labelledby"] in ids
        if tag == "th" and attributes:
            assert attributes["scope"] in ("row", "col")


def test_a_first_model(make_report: Callable[..., EvaluationReport]) -> None:
    page = read(render_report(make_report(champion=False), None))
    assert "there is no champion yet" in page.text
    assert "Champion" not in page.text
    assert "by the gate" not in page.text


def test_no_slices(make_report: Callable[..., EvaluationReport]) -> None:
    report = make_report(champion=False)
    models = {name: model.model_copy(update={"slices": []}) for name, model in report.models.items()}
    page = read(render_report(report.model_copy(update={"models": models}), None))
    assert "No slice has enough customers" in page.text


def test_a_lower_log_loss_is_called_better(make_report: Callable[..., EvaluationReport]) -> None:
    report = make_report(metric="log_loss")
    assert report.metric is Metric.LOG_LOSS
    difference = report.differences["challenger-champion"]["log_loss"]
    assert difference.high < 0  # the champion's scores are badly calibrated
    page = read(render_report(report, None))
    assert f"\N{MINUS SIGN}{abs(difference.value):.4f} better" in page.text


def test_repeats_itself_through_json(make_report: Callable[..., EvaluationReport]) -> None:
    report = make_report()
    again = EvaluationReport.model_validate_json(report.model_dump_json())
    assert render_report(report, None) == render_report(again, None)


def test_curves_stay_in_their_box(make_report: Callable[..., EvaluationReport]) -> None:
    report = make_report()
    text = render_report(report, None)
    for points in re.findall(r'points="([^"]*)"', text):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert LEFT <= x <= RIGHT
            assert TOP <= y <= BOTTOM
    chart = draw_roc(report.models)
    assert chart.lines[0].points.startswith(f"{LEFT},{BOTTOM} ")
    assert chart.lines[0].points.endswith(f" {RIGHT},{TOP}")


def test_an_empty_histogram_and_a_single_point_are_drawn() -> None:
    bins = draw_histogram(Histogram(edges=[0, 0.5, 1], leavers=[0, 0], stayers=[0, 0]))
    assert [part.leavers_top for part in bins] == [BOTTOM, BOTTOM]
    point = Interval(value=0, low=0, high=0)
    assert Scale([point]).draw(point).value == pytest.approx(110)
    assert Scale([]).low < 0 < 1 < Scale([]).high
