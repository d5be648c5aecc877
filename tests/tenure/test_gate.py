"""The gate: both outcomes of every rule, ties, directions, and what it cannot judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.bootstrap import Interval
from tenure.contract import Contract
from tenure.curve import CalibrationBin, Confusion, Histogram, PrecisionRecallCurve, RocCurve
from tenure.errors import EvaluationError
from tenure.evaluation import EvaluationReport, ModelEvaluation, Slice, evaluate
from tenure.gate import Decision, Reason, decide
from tenure.metrics import METRICS
from tenure.project import Gate, Metric, Project

Bounds = tuple[float, float, float]


def make_report(
    champion: Bounds | None = (0.0, 0.0, 0.0),
    baseline: Bounds = (0.01, 0.0, 0.02),
    slices: dict[str, Bounds | None] | None = None,
    value: float = 0.85,
    metric: Metric = Metric.ROC_AUC,
) -> EvaluationReport:
    """A report with the given differences (value, low, high) of challenger minus the other."""

    def make_model(level: float) -> ModelEvaluation:
        return ModelEvaluation(
            version="v",
            metrics={name: Interval(value=level, low=level - 0.02, high=level + 0.02) for name in METRICS},
            slices=[],
            roc=RocCurve(fpr=[0, 1], tpr=[0, 1], thresholds=[1, 0]),
            precision_recall=PrecisionRecallCurve(recall=[0, 1], precision=[1, 0.3], thresholds=[1, 0]),
            confusion=Confusion(
                threshold=0.5, true_negatives=1, false_positives=2, false_negatives=3, true_positives=4
            ),
            calibration=[CalibrationBin(rows=10, score=0.3, share=0.4)],
            histogram=Histogram(edges=[0, 0.5, 1], leavers=[1, 2], stayers=[3, 4]),
        )

    def make_interval(bounds: Bounds) -> Interval:
        return Interval(value=bounds[0], low=bounds[1], high=bounds[2])

    others = {"baseline": baseline} | ({"champion": champion} if champion else {})
    return EvaluationReport(
        project="p",
        metric=metric,
        precision=0.6,
        rows=1000,
        positives=300,
        train_rows=3000,
        resamples=1000,
        models={"challenger": make_model(value)}
        | {name: make_model(value - bounds[0]) for name, bounds in others.items()},
        differences={
            f"challenger-{name}": {metric_name: make_interval(bounds) for metric_name in METRICS}
            for name, bounds in others.items()
        },
        slice_differences=[
            Slice(
                column="plan",
                value=name,
                rows=200,
                positives=60,
                interval=None if bounds is None else make_interval(bounds),
            )
            for name, bounds in (slices or {}).items()
        ],
    )


def find(decision: Decision, rule: str) -> Reason:
    return next(reason for reason in decision.reasons if reason.rule == rule)


@pytest.mark.parametrize(
    ("rule", "margin", "bounds", "passes"),
    [
        ("non_inferior", 0.01, (0.002, -0.005, 0.009), True),
        ("non_inferior", 0.01, (0.002, -0.011, 0.015), False),
        ("non_inferior", 0.01, (0.0, -0.01, 0.01), True),  # the bound itself is still allowed
        ("non_inferior", 0.0, (0.0, 0.0, 0.0), True),  # the same scores
        ("non_inferior", 0.01, (-0.02, -0.03, -0.011), False),
        ("superior", 0.01, (0.02, 0.011, 0.03), True),
        ("superior", 0.01, (0.02, 0.005, 0.035), False),
        ("superior", 0.01, (0.02, 0.01, 0.03), False),  # above the margin, not at it
        ("superior", 0.0, (0.0, 0.0, 0.0), False),  # the same scores
        ("superior", 0.0, (0.01, 0.001, 0.02), True),
        ("superior", 0.0, (-0.01, -0.02, -0.001), False),
    ],
)
def test_against_the_champion(rule: Any, margin: float, bounds: Bounds, passes: bool) -> None:
    decision = decide(make_report(bounds), Gate(rule=rule, margin=margin))
    assert decision.approved is passes
    assert find(decision, "champion").passed is passes


def test_says_whether_more_rows_could_help() -> None:
    gate = Gate(rule="non_inferior", margin=0.01)
    assert "undecided" in find(decide(make_report((0.0, -0.03, 0.03)), gate), "champion").text
    assert "undecided" not in find(decide(make_report((-0.05, -0.07, -0.03)), gate), "champion").text
    assert "undecided" not in find(decide(make_report((0.0, 0.0, 0.0)), gate), "champion").text


@pytest.mark.parametrize(
    ("bounds", "passes"),
    [
        ((-0.10, -0.14, -0.06), False),  # wholly beyond the margin
        ((-0.10, -0.16, -0.04), True),  # looks bad, but it is not shown to be beyond the margin
        ((-0.03, -0.04, -0.02), True),  # shown to be worse, but by less than is allowed
        ((-0.08, -0.11, -0.05), True),  # the margin itself is still allowed
        (None, True),  # too few rows of a class
    ],
)
def test_on_slices(bounds: Bounds | None, passes: bool) -> None:
    report = make_report(slices={"a": (0.0, -0.1, 0.1), "b": bounds})
    decision = decide(report, Gate(slice_margin=0.05))
    assert decision.approved is passes
    assert passes or "plan = b (200 rows)" in find(decision, "slices").text


def test_bad_slices_are_named_worst_first_and_unjudged_ones_counted() -> None:
    slices: dict[str, Bounds | None] = {f"s{step}": (-0.1 - step / 100, -0.3, -0.09) for step in range(7)}
    reason = find(decide(make_report(slices=slices | {"t": None}), Gate(slice_margin=0.05)), "slices")
    assert not reason.passed
    assert "on 7 of 7 slices" in reason.text
    assert reason.text.index("plan = s6") < reason.text.index("plan = s2")
    assert "plan = s1" not in reason.text
    assert "and 2 more" in reason.text
    assert "1 with too few rows of a class were not judged" in reason.text


def test_no_slice_passes() -> None:
    reason = find(decide(make_report(slices={}), Gate()), "slices")
    assert reason.passed
    assert "none of 0 slices" in reason.text


@pytest.mark.parametrize(
    ("bounds", "passes"),
    [
        ((-0.02, -0.03, -0.005), False),  # beyond chance, and beyond the margin
        ((-0.02, -0.05, 0.01), True),  # may be chance
        ((-0.008, -0.01, -0.006), True),  # beyond chance, but allowed
        ((-0.01, -0.012, -0.008), True),  # the margin itself is still allowed
        ((0.02, 0.01, 0.03), True),
        ((0.0, 0.0, 0.0), True),
    ],
)
@pytest.mark.parametrize("champion", [None, (0.0, 0.0, 0.0)])
def test_against_logistic_regression(bounds: Bounds, passes: bool, champion: Bounds | None) -> None:
    decision = decide(make_report(champion, baseline=bounds), Gate(baseline_margin=0.01))
    assert decision.approved is passes
    assert find(decision, "baseline").passed is passes


@pytest.mark.parametrize(
    ("floors", "failed"),
    [
        ({}, []),
        ({"roc_auc": 0.8}, []),
        ({"roc_auc": 0.85}, []),  # the floor itself is enough
        ({"roc_auc": 0.84}, []),  # the value counts, not its lower bound of .83
        ({"roc_auc": 0.86}, ["floor:roc_auc"]),
        ({"log_loss": 0.9}, []),
        ({"log_loss": 0.8}, ["floor:log_loss"]),
        (
            {"roc_auc": 0.9, "average_precision": 0.8, "recall_at_precision": 0.9},
            ["floor:roc_auc", "floor:recall_at_precision"],
        ),
    ],
)
def test_floors(floors: dict[str, float], failed: list[str]) -> None:
    decision = decide(make_report(value=0.85), Gate.model_validate({"floors": floors}))
    assert [reason.rule for reason in decision.reasons if not reason.passed] == failed
    assert decision.approved == (failed == [])


def test_a_first_model_faces_floors_and_baseline_only() -> None:
    decision = decide(make_report(None), Gate(rule="superior", margin=0.5, floors={Metric.ROC_AUC: 0.8}))
    assert decision.approved
    assert [reason.rule for reason in decision.reasons] == ["champion", "floor:roc_auc", "baseline"]
    assert "no champion yet" in find(decision, "champion").text
    assert not decide(make_report(None, value=0.7), Gate(floors={Metric.ROC_AUC: 0.8})).approved


def test_lower_is_better_for_log_loss() -> None:
    """The same differences mean the opposite."""

    def judge(champion: Bounds, baseline: Bounds = (0, 0, 0), slices: Any = None, **gate: Any) -> Decision:
        report = make_report(champion, baseline, slices, metric=Metric.LOG_LOSS)
        return decide(report, Gate.model_validate({"metric": "log_loss", **gate}))

    assert judge((-0.02, -0.03, -0.011), rule="superior").approved
    assert not judge((0.02, 0.011, 0.03), rule="superior").approved
    assert judge((0.005, -0.001, 0.009)).approved
    assert not judge((0.005, -0.001, 0.011)).approved
    assert not judge((0, 0, 0), baseline=(0.02, 0.005, 0.03)).approved
    assert judge((0, 0, 0), baseline=(-0.02, -0.03, -0.005)).approved
    assert not judge((0, 0, 0), slices={"a": (0.1, 0.06, 0.14)}).approved
    assert judge((0, 0, 0), slices={"a": (-0.1, -0.14, -0.06)}).approved
    assert (
        "a gain of -0.0200 (95 % interval -0.0300 to -0.0110)" in judge((0.02, 0.011, 0.03)).reasons[0].text
    )


@given(
    st.tuples(*[st.floats(-0.2, 0.2)] * 3).map(lambda three: (sorted(three)[1], min(three), max(three))),
    st.floats(0, 0.1),
    st.floats(0, 0.1),
)
def test_a_superior_model_is_non_inferior(bounds: Bounds, small: float, large: float) -> None:
    report = make_report(bounds)
    small, large = sorted((small, large))
    if decide(report, Gate(rule="superior", margin=small)).approved:
        assert decide(report, Gate(rule="non_inferior", margin=small)).approved
    if decide(report, Gate(rule="non_inferior", margin=small)).approved:
        assert decide(report, Gate(rule="non_inferior", margin=large)).approved
    if decide(report, Gate(rule="superior", margin=large)).approved:
        assert decide(report, Gate(rule="superior", margin=small)).approved


def test_a_report_in_another_metric_is_refused() -> None:
    report = make_report(slices={"a": (0, 0, 0)}, metric=Metric.LOG_LOSS)
    with pytest.raises(EvaluationError, match="measured in log_loss, but the gate compares roc_auc"):
        decide(report, Gate())


def test_a_report_without_a_comparison_is_refused() -> None:
    report = make_report()
    report = report.model_copy(update={"differences": {}})
    with pytest.raises(EvaluationError, match="does not compare the challenger with 'champion'"):
        decide(report, Gate())


def test_markdown_has_every_reason_failures_first_and_no_markup_of_others() -> None:
    report = make_report(slices={"a|b <script>`x`\n# no": (-0.2, -0.3, -0.1)})
    text = decide(report, Gate(floors={Metric.ROC_AUC: 0.8})).to_markdown()
    lines = text.splitlines()
    assert lines[0] == "# Rejected"
    assert lines[4].startswith("| **failed** | slices |")
    assert len(lines) == 8
    assert r"a\|b \<script\>\`x\` # no" in text
    assert all(line.replace(r"\|", "").count("|") == 4 for line in lines[2:])
    assert decide(make_report(), Gate()).to_markdown().startswith("# Approved\n")


def test_decision_survives_json() -> None:
    decision = decide(make_report(), Gate())
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


# With real numbers


@pytest.fixture
def world(make_contract: Callable[..., Contract]) -> Callable[..., Decision]:
    """Judge scores on 1,500 customers of two regions; the champion's scores come from the true logit."""
    contract = make_contract({"name": "region", "type": "string"}, {"name": "x", "type": "float"})

    def make_frame(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
        rng = np.random.default_rng(seed)
        logit = 1.5 * rng.normal(size=rows) - 1
        y = rng.random(rows) < 1 / (1 + np.exp(-logit))
        frame = pd.DataFrame(
            {
                "id": [f"{seed}-{row}" for row in range(rows)],
                "left": np.where(y, "Yes", "No").astype(object),
                "region": np.where(rng.random(rows) < 0.2, "north", "south").astype(object),
                "x": logit + rng.normal(size=rows),
            }
        )
        return frame, logit

    def judge(
        spoil: Callable[[np.ndarray, pd.DataFrame], np.ndarray], first: bool = False, **gate: Any
    ) -> Decision:
        project = Project.model_validate(
            {
                "name": "world",
                "source": {"uri": "rows.csv"},
                "contract": contract,
                "evaluation": {"bootstrap": 200},
                "gate": gate,
                "rollout": {"service": "world"},
            }
        )
        frame, logit = make_frame(1500, 2)
        champion, challenger = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-spoil(logit, frame)))
        report = evaluate(
            frame, make_frame(800, 1)[0], challenger, 0.5, None if first else (champion, 0.5, "a"), project
        )
        return decide(report, project.gate)

    return judge


def test_the_same_model_again(world: Callable[..., Decision]) -> None:
    assert world(lambda logit, frame: logit).approved
    assert not world(lambda logit, frame: logit, rule="superior", margin=0.0).approved


def test_a_model_that_is_worse_everywhere(world: Callable[..., Decision]) -> None:
    decision = world(lambda logit, frame: logit + 2 * np.random.default_rng(0).normal(size=len(logit)))
    assert not find(decision, "champion").passed


def test_a_model_that_is_worse_in_one_region_only(world: Callable[..., Decision]) -> None:
    def spoil(logit: np.ndarray, frame: pd.DataFrame) -> np.ndarray:
        noise = np.random.default_rng(0).normal(size=len(logit))
        return np.where(frame["region"] == "north", 3 * noise - 1, logit)

    decision = world(spoil, margin=0.2)
    assert find(decision, "champion").passed
    assert not find(decision, "slices").passed
    assert "region = north" in find(decision, "slices").text
    assert not decision.approved


def test_a_first_model_worse_than_logistic_regression(world: Callable[..., Decision]) -> None:
    decision = world(lambda logit, frame: 3 * np.random.default_rng(0).normal(size=len(logit)), first=True)
    assert not find(decision, "baseline").passed
    assert not decision.approved


def test_a_model_that_knows_nothing(world: Callable[..., Decision]) -> None:
    """All scores tied: half of the pairs, no error, and no way in."""
    decision = world(lambda logit, frame: np.zeros(len(logit)), floors={"roc_auc": 0.6})
    assert not decision.approved
    assert "roc_auc is 0.5000 (95 % interval 0.5000 to 0.5000)" in find(decision, "floor:roc_auc").text
