"""The evaluation as a whole: on the real customers, and on rows made to be awkward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, confusion_matrix, roc_auc_score

from tenure.bootstrap import bootstrap_difference, bootstrap_metrics
from tenure.contract import Contract
from tenure.curve import bin_calibration, count_confusion, count_scores, trace_precision_recall, trace_roc
from tenure.errors import EvaluationError
from tenure.evaluation import EvaluationReport, evaluate
from tenure.featuriser import encode_labels
from tenure.metrics import METRICS, compute_metrics
from tenure.partition import Part, assign_parts
from tenure.project import Project
from tenure.slice import find_slices

Parts = tuple[pd.DataFrame, pd.DataFrame, np.ndarray]


@pytest.fixture(scope="module")
def parts(telco_validated: object, project: Project) -> Parts:
    """Training rows, held-out rows and the latter's labels."""
    frame = telco_validated.good  # type: ignore[attr-defined]
    part = assign_parts(frame, project.contract, project.split, project.name)
    train, held_out = frame[part == Part.TRAIN], frame[part == Part.HELD_OUT]
    return train, held_out, encode_labels(held_out, project.contract)


def guess(y: np.ndarray, seed: int, noise: float = 1.0) -> np.ndarray:
    """Scores that know something about the labels."""
    logit = 2 * y - 1.7 + noise * np.random.default_rng(seed).normal(size=len(y))
    return 1 / (1 + np.exp(-logit))


@pytest.fixture(scope="module")
def report(parts: Parts, project: Project) -> EvaluationReport:
    train, held_out, y = parts
    champion = (guess(y, 2, 1.2), 0.35, "abc123")
    return evaluate(held_out, train, guess(y, 1), 0.4, champion, project, challenger_version="def456")


def test_holds_every_model_metric_and_difference(report: EvaluationReport, parts: Parts) -> None:
    train, held_out, y = parts
    assert list(report.models) == ["challenger", "champion", "baseline", "default_xgboost"]
    assert report.models["challenger"].version == "def456"
    assert report.models["champion"].version == "abc123"
    assert set(report.differences) == {
        "challenger-champion",
        "challenger-baseline",
        "challenger-default_xgboost",
    }
    for model in report.models.values():
        assert tuple(model.metrics) == METRICS
    for difference in report.differences.values():
        assert tuple(difference) == METRICS
    assert (report.rows, report.positives, report.train_rows) == (len(held_out), y.sum(), len(train))


def test_equals_the_bootstrap_of_the_scores(report: EvaluationReport, parts: Parts, project: Project) -> None:
    _, _, y = parts
    settings = {"resamples": project.evaluation.bootstrap, "seed": project.evaluation.seed, "precision": 0.6}
    ours, theirs = (guess(y, 1), 0.4), (guess(y, 2, 1.2), 0.35)
    assert report.models["challenger"].metrics == bootstrap_metrics(y, *ours, **settings)
    assert report.differences["challenger-champion"] == bootstrap_difference(y, ours, theirs, **settings)


def test_logistic_regression_is_where_it_is_known_to_be(report: EvaluationReport) -> None:
    """About .845 on these customers; default XGBoost is worse."""
    assert 0.82 < report.models["baseline"].metrics["roc_auc"].value < 0.87
    assert (
        report.models["default_xgboost"].metrics["roc_auc"].value
        < report.models["baseline"].metrics["roc_auc"].value
    )


def test_survives_json_and_repeats_itself(report: EvaluationReport, parts: Parts, project: Project) -> None:
    text = report.model_dump_json()
    assert EvaluationReport.model_validate_json(text) == report
    train, held_out, y = parts
    champion = (guess(y, 2, 1.2), 0.35, "abc123")
    again = evaluate(held_out, train, guess(y, 1), 0.4, champion, project, challenger_version="def456")
    assert again.model_dump_json() == text
    assert len(text) < 300_000


def test_slices_are_the_rows_with_a_value(report: EvaluationReport, parts: Parts) -> None:
    _, held_out, y = parts
    slices = {(part.column, part.value): part for part in report.models["challenger"].slices}
    columns = {column for column, _ in slices}
    assert {"contract", "senior_citizen", "payment_method"} <= columns
    assert not {"tenure", "monthly_charges", "total_charges"} & columns
    part = slices["contract", "Two year"]
    mask = (held_out["contract"] == "Two year").to_numpy()
    assert (part.rows, part.positives) == (mask.sum(), y[mask].sum())
    assert part.interval is not None
    assert part.interval.value == pytest.approx(roc_auc_score(y[mask], guess(y, 1)[mask]))
    assert part.interval.low < part.interval.value < part.interval.high
    assert all(part.rows >= 100 for part in slices.values())


def test_slice_differences_are_paired(report: EvaluationReport) -> None:
    ours, theirs = report.models["challenger"].slices, report.models["champion"].slices
    assert len(report.slice_differences) == len(ours) == len(theirs) > 30
    for one, two, both in zip(ours, theirs, report.slice_differences, strict=True):
        assert (one.column, one.value, one.rows) == (both.column, both.value, both.rows)
        assert one.interval is not None
        assert two.interval is not None
        assert both.interval is not None
        assert both.interval.value == pytest.approx(one.interval.value - two.interval.value)


def test_without_a_champion(parts: Parts, project: Project) -> None:
    train, held_out, y = parts
    report = evaluate(held_out, train, guess(y, 1), 0.4, None, project)
    assert list(report.models) == ["challenger", "baseline", "default_xgboost"]
    assert "challenger-champion" not in report.differences
    assert report.slice_differences == []
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize("broken", [np.nan, np.inf, -0.1, 1.1])
def test_impossible_scores_are_refused_by_name(parts: Parts, project: Project, broken: float) -> None:
    train, held_out, y = parts
    good, bad = guess(y, 1), guess(y, 1)
    bad[17] = broken
    with pytest.raises(EvaluationError, match=r"challenger: 1 of \d+ scores .* in row 17"):
        evaluate(held_out, train, bad, 0.4, None, project)
    with pytest.raises(EvaluationError, match=r"champion: 1 of \d+ scores .* in row 17"):
        evaluate(held_out, train, good, 0.4, (bad, 0.4, "a"), project)


def test_scores_of_other_rows_are_refused(parts: Parts, project: Project) -> None:
    train, held_out, y = parts
    with pytest.raises(EvaluationError, match="champion: labels have shape"):
        evaluate(held_out, train, guess(y, 1), 0.4, (guess(y, 1)[1:], 0.4, "a"), project)


def test_customers_of_the_training_part_are_refused(parts: Parts, project: Project) -> None:
    train, held_out, y = parts
    leaked = pd.concat([train, held_out.iloc[[5]]])
    with pytest.raises(EvaluationError, match="1 customers are in both"):
        evaluate(held_out, leaked, guess(y, 1), 0.4, None, project)


def test_rows_without_a_label_are_refused(parts: Parts, project: Project) -> None:
    train, held_out, y = parts
    held_out = held_out.copy()
    held_out.iloc[3, held_out.columns.get_loc("churn")] = None
    with pytest.raises(EvaluationError, match=r"1 of \d+ held-out rows have no label"):
        evaluate(held_out, train, guess(y, 1), 0.4, None, project)


@pytest.mark.parametrize("leavers", [0, 9])
def test_too_few_of_a_class_are_refused(parts: Parts, project: Project, leavers: int) -> None:
    train, held_out, y = parts
    few = np.append(np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:leavers])
    with pytest.raises(EvaluationError, match=f"has {leavers} leavers .* at least 10 of each"):
        evaluate(held_out.iloc[few], train, guess(y, 1)[few], 0.4, None, project)


# Slices on awkward rows


def make_small(
    make_contract: Callable[..., Contract], rows: int, **evaluation: object
) -> tuple[pd.DataFrame, Project]:
    contract = make_contract(
        {"name": "plan", "type": "string", "nullable": True},
        {"name": "loud", "type": "boolean", "nullable": True},
        {"name": "spend", "type": "float", "nullable": True},
    )
    rng = np.random.default_rng(rows)
    frame = pd.DataFrame(
        {
            "id": [f"{rows}-{row}" for row in range(rows)],
            "left": np.where(rng.random(rows) < 0.4, "Yes", "No").astype(object),
            "plan": np.array(["a", "b", None], dtype=object)[rng.integers(0, 3, rows)],
            "loud": pd.array(rng.choice([True, False, None], rows), dtype="boolean"),
            "spend": np.where(rng.random(rows) < 0.2, np.nan, rng.integers(0, 9, rows) * 1.0),
        }
    )
    project = {
        "name": "small",
        "source": {"uri": "rows.csv"},
        "contract": contract,
        "evaluation": {"bootstrap": 100, **evaluation},
        "rollout": {"service": "small"},
    }
    return frame, Project.model_validate(project)


def test_missing_values_are_a_slice_and_small_ones_are_none(make_contract: Callable[..., Contract]) -> None:
    frame, project = make_small(make_contract, 300, min_slice_rows=20)
    frame.loc[:15, "plan"] = "rare"
    found = {(column, value): mask for column, value, mask in find_slices(frame, project)}
    assert list(found) == [
        ("plan", "a"),
        ("plan", "b"),
        ("plan", "(missing)"),
        ("loud", "false"),
        ("loud", "true"),
        ("loud", "(missing)"),
    ]
    np.testing.assert_array_equal(found["plan", "(missing)"], frame["plan"].isna())
    np.testing.assert_array_equal(found["loud", "true"], frame["loud"].fillna(False).astype(bool))
    assert (
        found["loud", "(missing)"].sum() + found["loud", "true"].sum() + found["loud", "false"].sum() == 300
    )


def test_numbers_are_cut_at_quartiles_when_asked_for(make_contract: Callable[..., Contract]) -> None:
    frame, project = make_small(make_contract, 400, min_slice_rows=2, slices=["spend"])
    slices = find_slices(frame, project)
    assert {column for column, _, _ in slices} == {"spend"}
    assert slices[-1][1] == "(missing)"
    assert np.sum([mask for _, _, mask in slices], axis=0).tolist() == [1] * 400
    assert slices[0][1].startswith("up to ")
    frame["spend"] = 3.0
    assert [(value, mask.sum()) for _, value, mask in find_slices(frame, project)] == [("up to 3", 400)]
    frame["spend"] = np.nan
    assert [(value, mask.sum()) for _, value, mask in find_slices(frame, project)] == [("(missing)", 400)]


def test_a_slice_with_too_few_of_a_class_is_shown_without_interval(
    make_contract: Callable[..., Contract],
) -> None:
    frame, project = make_small(make_contract, 300, min_slice_rows=20)
    train, _ = make_small(make_contract, 301)
    plan_b = np.flatnonzero(frame["plan"] == "b")
    frame.loc[plan_b, "left"] = "No"
    frame.loc[plan_b[:9], "left"] = "Yes"
    p = np.random.default_rng(0).random(300)
    report = evaluate(frame, train, p, 0.5, (p, 0.5, "same"), project)
    for parts in (report.slice_differences, *(model.slices for model in report.models.values())):
        part = next(part for part in parts if (part.column, part.value) == ("plan", "b"))
        assert part.interval is None
        assert part.positives == 9
        assert sum(part.interval is not None for part in parts) == 5
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report


def test_no_slice_at_all(make_contract: Callable[..., Contract]) -> None:
    frame, project = make_small(make_contract, 300, min_slice_rows=1000)
    train, _ = make_small(make_contract, 301)
    p = np.random.default_rng(0).random(300)
    report = evaluate(frame, train, p, 0.5, (p, 0.5, "same"), project)
    assert report.models["challenger"].slices == []
    assert report.slice_differences == []


# Curves


def test_curves_are_thinned_without_losing_their_shape() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(5000) < 0.3).astype(float)
    p = guess(y, 3)
    roc, pr = trace_roc(y, p), trace_precision_recall(y, p)
    assert len(roc.fpr) == len(roc.tpr) == len(roc.thresholds) <= 200
    assert len(pr.recall) == len(pr.precision) == len(pr.thresholds) <= 200
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0, 0, 1, 1)
    assert auc(roc.fpr, roc.tpr) == pytest.approx(roc_auc_score(y, p), abs=5e-4)
    assert (pr.recall[0], pr.recall[-1]) == (0, 1)
    assert pr.precision[-1] == pytest.approx(y.mean())
    for thresholds in (roc.thresholds, pr.thresholds):
        assert thresholds == sorted(thresholds, reverse=True)
    flagged = p >= roc.thresholds[50]
    assert roc.tpr[50] == pytest.approx(y[flagged].sum() / y.sum())


def test_curves_of_equal_scores_are_two_points() -> None:
    roc = trace_roc(np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    assert (roc.fpr, roc.tpr, roc.thresholds) == ([0, 1], [0, 1], [1, 0.5])


def test_confusion_calibration_and_histogram_count_every_row() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(500) < 0.3).astype(float)
    p = np.round(guess(y, 3), 1)
    confusion = count_confusion(y, p, 0.4)
    assert confusion.to_matrix() == confusion_matrix(y, p >= 0.4).tolist()
    bins = bin_calibration(y, p)
    assert sum(part.rows for part in bins) == 500
    error = sum(part.rows * abs(part.score - part.share) for part in bins) / 500
    assert error == pytest.approx(compute_metrics(y, p, 0.4)["calibration_error"])
    histogram = count_scores(y, p)
    assert sum(histogram.leavers) == y.sum()
    assert sum(histogram.stayers) == 500 - y.sum()
    assert len(histogram.edges) == 21
