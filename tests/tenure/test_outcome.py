"""Outcomes: any order of arrival gives identical figures, and what is known stays known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.contract import Column, Contract, Role, Type
from tenure.outcome import encode_outcomes, join_outcomes

START = datetime(2026, 1, 1, tzinfo=UTC)
HORIZON = timedelta(days=10)
Known = tuple[str, str, int, int]

customers = st.sampled_from(["a", "b", "c"])
days = st.integers(0, 30)
label = st.tuples(customers, st.sampled_from(["Yes", "No", "Perhaps"]), days, days)
prediction = st.tuples(st.sampled_from(["a", "b", "c", "d", None]), days)
predicted = st.lists(prediction, max_size=12)
labelled = st.lists(label, max_size=12)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def make_predictions(rows: list[tuple[str | None, int]]) -> pd.DataFrame:
    times = pd.Series([pd.Timestamp(day(time)) for _, time in rows], dtype="datetime64[us, UTC]")
    return pd.DataFrame({"customer_id": pd.Series([name for name, _ in rows], dtype=object), "time": times})


def make_labels(rows: list[Known]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["customer_id", "outcome", "true_at", "known_at"])
    for name in ("true_at", "known_at"):
        times = [pd.Timestamp(day(value)) for value in frame[name]]
        frame[name] = pd.Series(times, dtype="datetime64[us, UTC]")
    return frame


def join(rows: list[tuple[str | None, int]], known: list[Known], as_of: float) -> pd.DataFrame:
    return join_outcomes(make_predictions(rows), make_labels(known), HORIZON, day(as_of))


def find_plainly(
    row: tuple[str | None, int], known: list[Known], as_of: float
) -> tuple[str, datetime] | None:
    """The rule, word by word."""
    candidates = [
        (true, told, outcome)
        for name, outcome, true, told in known
        if name == row[0] and row[1] < true <= row[1] + 10 and true <= as_of and told <= as_of
    ]
    if not candidates:
        return None
    true, told, outcome = max(candidates)
    return outcome, day(max(true, told))


@given(predicted, labelled, days)
def test_it_is_the_rule(rows: list[tuple[str | None, int]], known: list[Known], as_of: int) -> None:
    joined = join(rows, known, as_of)
    expected = [find_plainly(row, known, as_of) for row in rows]
    assert list(joined["outcome"]) == [None if found is None else found[0] for found in expected]
    assert [None if pd.isna(time) else time.to_pydatetime() for time in joined["matured_at"]] == [
        None if found is None else found[1] for found in expected
    ]


@given(predicted, labelled, days, st.data())
def test_order_and_repetition_change_nothing(
    rows: list[tuple[str | None, int]], known: list[Known], as_of: int, data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(known), max_size=6)) if known else []
    shuffled = data.draw(st.permutations([*known, *again]))
    pd.testing.assert_frame_equal(join(rows, known, as_of), join(rows, shuffled, as_of))


@given(predicted, labelled, days, days)
def test_what_is_known_stays_known(
    rows: list[tuple[str | None, int]], known: list[Known], one: int, other: int
) -> None:
    early, late = sorted([one, other])
    before, after = join(rows, known, early), join(rows, known, late)
    assert not (before["outcome"].notna() & after["outcome"].isna()).any()
    # Nothing that was learnt later changes what was known before.
    then = [row for row in known if row[2] <= early and row[3] <= early]
    pd.testing.assert_frame_equal(before, join(rows, then, early))
    assert (before["matured_at"].dropna() <= pd.Timestamp(day(early))).all()


@pytest.mark.parametrize(
    ("known", "as_of", "outcome"),
    [
        pytest.param([("a", "Yes", 0, 5)], 30, None, id="true at the prediction itself"),
        pytest.param([("a", "Yes", 10, 12)], 30, "Yes", id="true at the last moment"),
        pytest.param([("a", "Yes", 11, 12)], 30, None, id="true too late"),
        pytest.param([("a", "Yes", 5, 12)], 11, None, id="not known yet"),
        pytest.param([("a", "Yes", 9, 1)], 8, None, id="announced, not true yet"),
        pytest.param([("a", "Yes", 5, 5), ("a", "No", 5, 7)], 30, "No", id="corrected"),
        pytest.param([("a", "Yes", 5, 5), ("a", "No", 5, 7)], 6, "Yes", id="before the correction"),
        pytest.param([("a", "No", 4, 9), ("a", "Yes", 5, 5)], 30, "Yes", id="the later fact wins"),
        pytest.param([("b", "Yes", 5, 5)], 30, None, id="somebody else's"),
    ],
)
def test_cases(known: list[Known], as_of: float, outcome: str | None) -> None:
    assert join([("a", 0)], known, as_of)["outcome"].tolist() == [outcome]


def test_index_and_types_are_kept() -> None:
    predictions = make_predictions([("a", 0), (None, 0)]).set_index(pd.Index([7, 3]))
    joined = join_outcomes(predictions, make_labels([("a", "Yes", 5, 5)]), HORIZON, day(30))
    assert joined.index.tolist() == [7, 3]
    assert str(joined["matured_at"].dtype) == "datetime64[us, UTC]"
    nothing = join([], [], 30)
    assert len(nothing) == 0
    assert str(nothing["matured_at"].dtype) == "datetime64[us, UTC]"


def test_many_labels_of_one_customer_are_quick() -> None:
    known: list[Known] = [("a", "Yes", number % 31, number % 29) for number in range(3_000)]
    rows: list[tuple[str | None, int]] = [("a", number % 25) for number in range(3_000)]
    assert join(rows, known, 30)["outcome"].notna().all()


def make_contract(label: Column) -> Contract:
    name = Column(name="id", role=Role.ID, type=Type.STRING)
    return Contract(columns=(name, label, Column(name="age", type=Type.INTEGER)))


def test_outcomes_are_the_labels_values() -> None:
    contract = make_contract(Column(name="churn", role=Role.LABEL, type=Type.STRING, positive="Yes"))
    assert encode_outcomes(["Yes", "No", "yes"], contract).tolist() == [1.0, 0.0, 0.0]
    assert encode_outcomes([], contract).shape == (0,)


def test_outcomes_of_a_truth_value_are_read_as_in_a_file() -> None:
    contract = make_contract(Column(name="left", role=Role.LABEL, type=Type.BOOLEAN))
    outcomes = ["true", "True", "1", " yes", "false", "0", "No"]
    assert encode_outcomes(outcomes, contract).tolist() == [1.0] * 4 + [0.0] * 3
