"""Verdicts survive JSON, and their sentence says which columns, how much and since when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from tenure.drift.verdict import Finding, Verdict

TIME = datetime(2026, 3, 1, 14, 5, tzinfo=UTC)


def make_finding(**changes: Any) -> Finding:
    return Finding.model_validate(
        {
            "column": "price",
            "kind": "covariate",
            "p_value": 1e-12,
            "level": 1e-7,
            "effect": 0.31,
            "measure": "psi",
            "threshold": 0.1,
            "scale": 4,
            "since": TIME,
            "significant": True,
            "material": True,
            **changes,
        }
    )


def make_verdict(*findings: Finding, **changes: Any) -> Verdict:
    return Verdict.model_validate(
        {
            "service": "telco",
            "version": "0123456789ab",
            "family": "inputs",
            "number": 3,
            "rows": 500,
            "since": TIME,
            "until": TIME,
            "findings": findings,
            **changes,
        }
    )


def test_survives_json() -> None:
    verdict = make_verdict(make_finding(p_value=0.0), estimate={"roc_auc": {"value": 0.84}})
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_an_alarm_is_significant_and_material() -> None:
    verdict = make_verdict(
        make_finding(column="a", material=False),
        make_finding(column="b", significant=False),
        make_finding(column="c"),
        make_finding(column="score", kind="score", effect=0.9),
    )
    assert [finding.column for finding in verdict.alarms] == ["score", "c"]
    assert verdict.kinds == ("covariate", "score")
    assert not make_finding(material=False).alarm


def test_says_that_nothing_happened() -> None:
    assert make_verdict(make_finding(material=False)).describe() == (
        "no drift of inputs in window 3 (500 rows until 2026-03-01 14:05 UTC)"
    )


def test_says_what_happened() -> None:
    one = make_verdict(make_finding())
    assert one.describe() == "covariate drift since 2026-03-01 14:05 UTC: price (PSI 0.31)"
    two = make_verdict(
        make_finding(since=TIME.replace(hour=15)),
        make_finding(column="plan", measure="l1", effect=0.5, since=TIME),
        make_finding(column="score", kind="score", effect=0.2),
    )
    assert two.describe() == (
        "covariate and score drift since 2026-03-01 14:05 UTC: plan (L1 0.50), price (PSI 0.31) "
        "and score (PSI 0.20)"
    )
    outcomes = make_verdict(
        make_finding(column="label", kind="label", measure="share", effect=-0.071, threshold=0.05),
        make_finding(column="performance", kind="performance", measure="auc", effect=0.034, threshold=0.03),
        family="outcomes",
    )
    assert outcomes.describe() == (
        "label and performance drift since 2026-03-01 14:05 UTC: 7.1 points fewer customers leave "
        "and ROC-AUC is lower by 0.034"
    )


def test_the_sentence_is_short_for_many_columns() -> None:
    verdict = make_verdict(*(make_finding(column="c" * 60 + str(number)) for number in range(40)))
    assert verdict.describe().endswith("and 36 more")
    assert len(verdict.describe()) < 400


@pytest.mark.parametrize(
    "changes",
    [
        {"p_value": float("nan")},
        {"p_value": 1.5},
        {"effect": float("inf")},
        {"scale": 0},
        {"since": datetime(2026, 1, 1)},
        {"kind": "weather"},
        {"note": ""},
    ],
)
def test_refuses_nonsense(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_finding(**changes)
