"""What each scenario does to a model that was trained before it, and to one that was trained after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tenure.bundle import Bundle, load_bundle, write_bundle
from tenure.evaluation import evaluate
from tenure.featuriser import encode_labels
from tenure.gate import decide
from tenure.metrics import compute_metrics
from tenure.partition import Part, assign_parts
from tenure.project import Project
from tenure.scorer import Scorer, to_columns
from tenure.simulation.scenario import SCENARIOS, Scenario
from tenure.simulation.stream import Stream, Visit
from tenure.training import train
from tenure.validation import Validated, validate_frame


@pytest.fixture(scope="module")
def base(telco_validated: Validated, project: Project) -> Stream:
    return Stream.build(telco_validated.good, project, Scenario(), 5)


@pytest.fixture(scope="module")
def strangers(base: Stream, telco_parts: dict[Part, pd.DataFrame]) -> Stream:
    """A stream of the held-out customers: no model, neither old nor retrained, has met any of them."""
    return replace(base, customers=telco_parts[Part.HELD_OUT], seed=6)


def play(stream: Stream, scenario: str, count: int) -> list[Visit]:
    return list(islice(replace(stream, scenario=SCENARIOS[scenario]), count))


def score(bundle: Bundle, visits: Sequence[Visit]) -> np.ndarray:
    names = [column.name for column in bundle.contract.features]
    return Scorer(bundle).score_columns(to_columns([visit.features for visit in visits], names))


def measure(bundle: Bundle, visits: Sequence[Visit]) -> float:
    left = np.array([visit.left for visit in visits], dtype=float)
    return compute_metrics(left, score(bundle, visits), 0.5)["roc_auc"]


def collect(visits: Sequence[Visit], project: Project) -> pd.DataFrame:
    """The visits as a retraining reads them back from the ledger."""
    rows = [{"customer_id": one.customer_id, "churn": one.outcome, **one.features} for one in visits]
    validated = validate_frame(pd.DataFrame(rows), project.contract)
    assert not validated.bad_rows
    return validated.good


def test_without_a_scenario_the_champion_holds(bundle: Bundle, base: Stream) -> None:
    assert measure(bundle, play(base, "none", 3000)) > 0.83


def test_a_price_rise_is_forgotten_by_the_champion_and_learned_by_its_successor(
    bundle: Bundle, base: Stream, strangers: Stream, quick_project: Project, tmp_path: Any
) -> None:
    assert measure(bundle, play(base, "price-rise", 3000)) < 0.72
    assert measure(bundle, play(strangers, "price-rise", 3000)) < 0.72

    frame = collect(play(base, "price-rise", 2000), quick_project)
    parts = assign_parts(frame, quick_project.contract, quick_project.split, quick_project.name)
    rows, held_out = (
        frame[parts == part.value].reset_index(drop=True) for part in (Part.TRAIN, Part.HELD_OUT)
    )
    digest = write_bundle(
        tmp_path / "bundle",
        train(rows, quick_project),
        project=quick_project,
        snapshot="6" * 64,
        code_version="0" * 16,
    )
    challenger = load_bundle(tmp_path / "bundle", digest)
    names = [column.name for column in quick_project.contract.features]
    columns = {name: held_out[name].to_numpy(object) for name in names}
    report = evaluate(
        held_out,
        rows,
        Scorer(challenger).score_columns(columns),
        challenger.threshold,
        (Scorer(bundle).score_columns(columns), bundle.threshold, "champion"),
        quick_project,
    )
    decision = decide(report, quick_project.gate)
    assert decision.approved, [reason.text for reason in decision.reasons if not reason.passed]
    # The customers that come back are copies of the stream's: strangers tell what was really learned.
    assert measure(challenger, play(strangers, "price-rise", 3000)) > 0.85


def test_reasons_change_while_customers_do_not(bundle: Bundle, base: Stream) -> None:
    calm, changed = play(base, "none", 3000), play(base, "concept", 3000)
    assert [one.features for one in calm] == [one.features for one in changed]
    assert measure(bundle, changed) < 0.6


def test_another_mix_of_contracts_keeps_the_reasons(base: Stream, project: Project) -> None:
    calm, mixed = (collect(play(base, name, 3000), project) for name in ("none", "contract-mix"))
    shares = [(frame["contract"] == "Two year").mean() for frame in (calm, mixed)]
    assert shares[1] > shares[0] + 0.25
    rates = [
        encode_labels(frame, project.contract)[frame["contract"] == "Two year"].mean()
        for frame in (calm, mixed)
    ]
    assert rates[0] == pytest.approx(rates[1], abs=0.03)


def test_a_new_way_of_paying_changes_nobodys_fate(bundle: Bundle, base: Stream) -> None:
    calm, changed = play(base, "none", 3000), play(base, "unseen-category", 3000)
    assert [one.left for one in calm] == [one.left for one in changed]
    share = np.mean([one.features["payment_method"] == "Digital wallet" for one in changed])
    assert share == pytest.approx(0.3, abs=0.03)


def test_a_broken_column_is_sent_and_not_lived(bundle: Bundle, base: Stream) -> None:
    calm, changed = play(base, "none", 3000), play(base, "broken-column", 3000)
    assert [one.left for one in calm] == [one.left for one in changed]
    assert {one.features["monthly_charges"] for one in changed} == {0.0}
    assert {one.features["total_charges"] for one in changed} == {None}


def test_a_price_rise_only_touches_those_with_internet(base: Stream) -> None:
    for calm, changed in zip(play(base, "none", 1000), play(base, "price-rise", 1000), strict=True):
        before, after = calm.features["monthly_charges"], changed.features["monthly_charges"]
        offline = calm.features["internet_service"] == "No"
        assert after == (before if offline else pytest.approx(before * 1.3, abs=0.006))
        assert changed.left >= calm.left
        assert calm.left == changed.left or not offline
