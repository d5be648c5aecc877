"""What the pilot does about a canary: what takes it back, what lets it go on, and what it waits for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tenure.canary import Rollout, Tolerance
from tenure.judgement import Evidence, Judgement, Progress, Signal, Traffic, compute_profits, judge
from tenure.monitoring import Value

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
RNG = np.random.default_rng(7)


def make_rollout(**settings: Any) -> Rollout:
    return Rollout(
        **{
            "service": "telco-churn",
            "steps": (20, 50),
            "min_requests": 400,
            "tolerance": Tolerance(errors=0.03),
            **settings,
        }
    )


def make_progress(**fields: Any) -> Progress:
    return Progress(
        **{
            "canary": "c" * 12,
            "digest": "c" * 64,
            "step": 0,
            "began": NOW,
            "since": NOW,
            "slow_ms": 5.0,
            **fields,
        }
    )


def make_evidence(answers: int = 400, **fields: Any) -> Evidence:
    """A canary at 20 % that is as good as the stable version."""
    canary = Traffic(requests=answers, timed=answers, slow=answers // 5)
    stable = Traffic(requests=4 * answers, timed=4 * answers, slow=4 * answers // 5)
    differences = np.random.default_rng(1).normal(0.01, 0.05, answers).clip(-1, 1)
    evidence = Evidence(canary, stable, differences, 0.01, step_requests=answers)
    return replace(evidence, **fields)


def find(judgement: Judgement, name: str) -> Signal:
    return next(signal for signal in judgement.signals if signal.name == name)


# -- going on ---------------------------------------------------------------------------------------------


def test_four_hundred_good_answers_at_twenty_percent_are_enough() -> None:
    judgement = judge(make_rollout(), make_evidence(), make_progress(), NOW)
    assert judgement.action == "advance"
    assert "50 %" in judgement.text
    assert [signal.name for signal in judgement.signals] == ["errors", "latency", "score", "mismatch"]
    assert all(signal.safe and not signal.harm for signal in judgement.signals)


@pytest.mark.parametrize(
    ("logged", "action"), [(None, "advance"), (0, "wait"), (199, "wait"), (200, "advance")]
)
def test_what_the_log_does_not_hold_is_waited_for(logged: int | None, action: str) -> None:
    """No logged score is wrong where none is logged: that is no proof."""
    judgement = judge(make_rollout(), make_evidence(logged=logged), make_progress(), NOW)
    assert judgement.action == action
    if action == "wait":
        assert f"the log of its predictions ({logged} of 400 answers have arrived)" in judgement.text
        assert not judgement.harms
        demands = make_rollout(on_deadline="rollback", deadline_minutes=60)
        late = judge(demands, make_evidence(logged=logged), make_progress(), NOW + timedelta(hours=2))
        assert late.action == "rollback"


def test_failed_requests_have_no_prediction_to_log() -> None:
    canary = Traffic(requests=400, errors=300, timed=100, slow=20)
    stable = Traffic(requests=1600, errors=1200, timed=400, slow=80)
    evidence = make_evidence(canary=canary, stable=stable, logged=100)
    assert "the log of its predictions" not in judge(make_rollout(), evidence, make_progress(), NOW).text


@pytest.mark.parametrize(("promotion", "action"), [("automatic", "promote"), ("manual", "hold")])
def test_the_last_step_promotes_or_leaves_it_to_a_person(promotion: str, action: str) -> None:
    rollout = make_rollout(promotion=promotion)
    assert judge(rollout, make_evidence(), make_progress(step=1), NOW).action == action


def test_it_says_what_it_waits_for() -> None:
    judgement = judge(make_rollout(min_minutes=3), make_evidence(90), make_progress(), NOW)
    assert judgement.action == "wait"
    for words in ("310 more answers", "3.0 more minutes", "surer errors"):
        assert words in judgement.text


def test_nothing_seen_yet_waits() -> None:
    judgement = judge(make_rollout(), Evidence(Traffic(), Traffic()), make_progress(), NOW)
    assert judgement.action == "wait"
    assert not any(signal.safe or signal.harm for signal in judgement.signals)


@pytest.mark.parametrize(
    ("on_deadline", "promotion", "action"),
    [
        ("hold", "automatic", "hold"),
        ("promote", "automatic", "promote"),
        ("promote", "manual", "hold"),
        ("rollback", "automatic", "rollback"),
    ],
)
def test_past_the_deadline_the_project_decides(on_deadline: str, promotion: str, action: str) -> None:
    rollout = make_rollout(deadline_minutes=60, on_deadline=on_deadline, promotion=promotion)
    evidence = make_evidence(10)
    assert judge(rollout, evidence, make_progress(), NOW + timedelta(minutes=59)).action == "wait"
    late = judge(rollout, evidence, make_progress(), NOW + timedelta(minutes=60))
    assert late.action == action
    assert "deadline" in late.text


def test_the_dark_launch_needs_copied_requests() -> None:
    rollout = make_rollout(mirror_percent=100, mirror_requests=300)
    dark = make_progress(step=-1)
    assert "100 more copied requests" in judge(rollout, make_evidence(200), dark, NOW).text
    judgement = judge(rollout, make_evidence(300), dark, NOW)
    assert judgement.action == "advance"
    assert "20 %" in judgement.text


def test_a_canary_without_steps_is_promoted_from_the_dark_or_by_a_person() -> None:
    rollout = make_rollout(steps=(), mirror_percent=100)
    assert judge(rollout, make_evidence(), make_progress(step=-1), NOW).action == "promote"
    assert judge(make_rollout(steps=()), make_evidence(), make_progress(), NOW).action == "hold"


def test_without_a_ledger_only_errors_and_latency_count() -> None:
    judgement = judge(make_rollout(), make_evidence(differences=None), make_progress(), NOW)
    assert [signal.name for signal in judgement.signals] == ["errors", "latency"]
    assert judgement.action == "advance"


def test_without_an_expectation_scores_are_only_checked_for_being_the_bundles_own() -> None:
    judgement = judge(make_rollout(), make_evidence(expected_difference=None), make_progress(), NOW)
    assert [signal.name for signal in judgement.signals] == ["errors", "latency", "mismatch"]


# -- harm -------------------------------------------------------------------------------------------------


def test_a_canary_failing_a_third_is_taken_back_within_a_few_dozen_requests() -> None:
    evidence = make_evidence(24, canary=Traffic(requests=24, errors=7), stable=Traffic(requests=96))
    judgement = judge(make_rollout(), evidence, make_progress(), NOW)
    assert judgement.action == "rollback"
    assert [signal.name for signal in judgement.harms] == ["errors"]
    assert "29.17%" in judgement.text


def test_a_slow_canary_is_taken_back_within_a_few_hundred() -> None:
    canary = Traffic(requests=200, timed=200, slow=108)  # lognormal durations x1.5, sigma .415
    stable = Traffic(requests=800, timed=800, slow=160)
    judgement = judge(make_rollout(), make_evidence(canary=canary, stable=stable), make_progress(), NOW)
    assert judgement.action == "rollback"
    assert [signal.name for signal in judgement.harms] == ["latency"]


def test_surely_worse_but_within_the_tolerance_is_no_harm() -> None:
    canary, stable = Traffic(requests=20_000, errors=300), Traffic(requests=80_000, errors=400)
    errors = find(
        judge(make_rollout(), make_evidence(canary=canary, stable=stable), make_progress(), NOW), "errors"
    )
    assert errors.low > 0
    assert (errors.harm, errors.safe) == (False, True)


def test_one_score_that_is_not_the_bundles_own_is_harm() -> None:
    judgement = judge(make_rollout(), make_evidence(mismatches=1), make_progress(), NOW)
    assert judgement.action == "rollback"
    assert "not what the canary's bundle gives" in judgement.text


@pytest.mark.parametrize("shift", [-0.15, 0.15])
def test_scores_that_evaluation_did_not_foresee_are_harm(shift: float) -> None:
    differences = np.random.default_rng(2).normal(shift, 0.05, 200).clip(-1, 1)
    judgement = judge(make_rollout(), make_evidence(differences=differences), make_progress(), NOW)
    assert [signal.name for signal in judgement.harms] == ["score"]
    foreseen = make_evidence(differences=differences, expected_difference=shift)
    assert judge(make_rollout(), foreseen, make_progress(), NOW).action != "rollback"


def test_a_miscalibrated_canary_is_taken_back_once_labels_come() -> None:
    residuals = RNG.normal(-0.2, 0.3, 400).clip(-1, 1), RNG.normal(0, 0.3, 1600).clip(-1, 1)
    judgement = judge(make_rollout(), make_evidence(residuals=residuals), make_progress(), NOW)
    assert [signal.name for signal in judgement.harms] == ["calibration"]


def test_a_world_that_changes_for_both_is_not_the_canarys_fault() -> None:
    residuals = RNG.normal(0.3, 0.3, 2000).clip(-1, 1), RNG.normal(0.3, 0.3, 2000).clip(-1, 1)
    assert judge(make_rollout(), make_evidence(residuals=residuals), make_progress(), NOW).action == "advance"


def test_a_canary_that_earns_less_is_taken_back() -> None:
    profits = RNG.choice([-10.0, 0.0], 500), RNG.choice([-10.0, 50.0], 2000)
    judgement = judge(make_rollout(), make_evidence(profits=profits), make_progress(), NOW)
    assert [signal.name for signal in judgement.harms] == ["profit"]


def test_late_signals_never_hold_a_canary_up() -> None:
    few = make_evidence(
        residuals=(np.array([0.5]), np.array([0.1])), profits=(np.array([0.0]), np.array([50.0]))
    )
    judgement = judge(make_rollout(), few, make_progress(), NOW)
    assert not find(judgement, "calibration").safe
    assert not find(judgement, "profit").safe
    assert judgement.action == "advance"


def test_worthless_decisions_give_no_profit_to_compare() -> None:
    nothing = Value(contact=0, saved=0)
    evidence = make_evidence(profits=(np.zeros(5), np.zeros(9)), value=nothing)
    assert find(judge(make_rollout(), evidence, make_progress(), NOW), "profit").harm is False


# -- steps ------------------------------------------------------------------------------------------------


def test_an_outage_that_strikes_both_during_a_later_step_is_not_laid_at_the_canarys_door() -> None:
    first = make_evidence(400, canary=Traffic(requests=400), stable=Traffic(requests=8000))
    progress = make_progress().advance(first, NOW)
    both = {"canary": Traffic(requests=1400, errors=300), "stable": Traffic(requests=9000, errors=300)}
    whole = make_evidence(1400, **both)
    assert judge(make_rollout(), whole, progress, NOW).action == "wait"
    assert judge(make_rollout(), whole, make_progress(), NOW).action == "rollback"  # were it not parted


def test_progress_keeps_each_steps_traffic_and_survives_json() -> None:
    progress = make_progress(counters={"canary": {"requests": 12}})
    for count in (100, 250):
        progress = progress.advance(make_evidence(count), NOW + timedelta(minutes=count))
    assert progress.step == 2
    assert [stage.canary.requests for stage in progress.finished] == [100, 150]
    assert progress.since == NOW + timedelta(minutes=250)
    assert Progress.model_validate_json(progress.model_dump_json()) == progress


def test_a_failure_counted_before_its_request_leaves_no_negative_traffic() -> None:
    left = Traffic(requests=10, errors=4, timed=9, slow=3).subtract(
        Traffic(requests=9, errors=1, timed=9, slow=1)
    )
    assert left == Traffic(requests=3, errors=3, timed=2, slow=2)


def test_a_judgement_survives_json() -> None:
    residuals = RNG.normal(0, 0.3, 40).clip(-1, 1), RNG.normal(0, 0.3, 90).clip(-1, 1)
    judgement = judge(make_rollout(), make_evidence(90, residuals=residuals), make_progress(), NOW)
    assert Judgement.model_validate_json(judgement.model_dump_json()) == judgement


# -- profits ----------------------------------------------------------------------------------------------


def test_a_decision_brings_what_a_contact_is_worth() -> None:
    profits = compute_profits([0.9, 0.9, 0.1, 0.1], [1, 1, 0, 0], [1, 0, 1, 0], Value())
    assert profits.tolist() == [50.0, -10.0, 0.0, 0.0]


def test_an_unknown_outcome_has_no_profit() -> None:
    assert np.isnan(compute_profits([0.9, 0.1], [True, False], [np.nan, np.nan], Value())).all()


def test_profits_need_equal_shapes() -> None:
    with pytest.raises(ValueError, match="differ"):
        compute_profits([0.9], [True, False], [1, 0], Value())
