"""Validation: what counts as good, what is said about the rest."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenure.contract import Contract
from tenure.errors import ContractError, TooManyBadRowsError
from tenure.featuriser import Featuriser
from tenure.project import Project
from tenure.snapshot import read_source
from tenure.validation import BAD_COLUMNS, Validated, check_bad_fraction, validate_frame

Make = Callable[..., Contract]


def check(contract: Contract, **columns: list[Any]) -> Validated:
    """Validate rows with ids 0, 1, ... and the label "Yes" unless they are given."""
    rows = len(next(iter(columns.values())))
    defaults: dict[str, list[Any]] = {"id": [str(n) for n in range(rows)], "left": ["Yes"] * rows}
    return validate_frame(pd.DataFrame({**defaults, **columns}, dtype=object), contract)


def violations(validated: Validated) -> list[tuple[Any, ...]]:
    return list(validated.bad[["row", "column", "rule", "value"]].itertuples(index=False, name=None))


def test_all_of_telco_is_good(telco_validated: Validated, project: Project) -> None:
    good = telco_validated.good
    assert (telco_validated.rows, len(good), telco_validated.bad_rows) == (7043, 7043, 0)
    assert len(telco_validated.bad) == 0
    assert tuple(telco_validated.bad.columns) == BAD_COLUMNS
    assert telco_validated.warnings == {}
    assert list(good.columns) == [column.name for column in project.contract.columns]
    dtypes = {"string": "object", "float": "float64", "integer": "Int64", "boolean": "boolean"}
    assert [str(dtype) for dtype in good.dtypes] == [dtypes[c.type] for c in project.contract.columns]
    assert good["total_charges"].isna().sum() == 11
    assert (good["churn"] == "Yes").mean() == pytest.approx(0.2654, abs=1e-4)
    assert good["customer_id"].is_unique
    check_bad_fraction(telco_validated, 0.0)


def test_validating_again_changes_nothing(telco_validated: Validated, project: Project) -> None:
    again = validate_frame(telco_validated.good, project.contract)
    pd.testing.assert_frame_equal(again.good, telco_validated.good)


def test_each_violation_is_told(project: Project) -> None:
    frame = read_source(Path(project.source.uri), None, project.contract)
    frame.loc[2, "monthly_charges"] = "-1"
    frame.loc[2, "female"] = None
    frame.loc[5, "tenure"] = "5.5"
    frame.loc[9, "churn"] = "Maybe"
    frame.loc[11, "total_charges"] = "1e9"
    frame.loc[20, "customer_id"] = "row-0000020"
    frame.loc[30, "contract"] = "Four years"
    validated = validate_frame(frame, project.contract)
    assert violations(validated) == [
        (2, "female", "missing", ""),
        (2, "monthly_charges", "minimum", "-1"),
        (5, "tenure", "type", "5.5"),
        (9, "churn", "category", "Maybe"),
        (11, "total_charges", "maximum", "1e9"),
        (19, "customer_id", "duplicate", "row-0000020"),
        (20, "customer_id", "duplicate", "row-0000020"),
    ]
    assert validated.bad["id"].tolist()[0] == "row-0000003"
    assert (validated.bad_rows, len(validated.good)) == (6, 7037)
    assert validated.warnings == {"contract": {"Four years": 1}}
    assert not set(validated.bad["id"]) & set(validated.good["customer_id"])


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("float", "1.5", 1.5),
        ("float", " -2e3 ", -2000.0),
        ("float", 3, 3.0),
        ("float", decimal.Decimal("0.1"), 0.1),
        ("float", np.float32(0.5), 0.5),
        ("integer", "7", 7),
        ("integer", "+7.0", 7),
        ("integer", 7.0, 7),
        ("integer", str(2**62 + 1), 2**62 + 1),
        ("integer", np.int8(-7), -7),
        ("boolean", "1", True),
        ("boolean", "FALSE", False),
        ("boolean", "yes", True),
        ("boolean", 0, False),
        ("boolean", 1.0, True),
        ("boolean", np.bool_(True), True),
        ("string", " a ", " a "),
        ("string", 80331, "80331"),
        ("string", "None", "None"),
    ],
)
def test_what_is_clear_is_read(make_contract: Make, type_: str, value: Any, expected: Any) -> None:
    validated = check(make_contract({"name": "x", "type": type_}), x=[value])
    assert validated.good["x"].tolist() == [expected]
    assert type(validated.good["x"].tolist()[0]) is type(expected)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("float", "1,5"), ("float", "nan"), ("float", "inf"), ("float", math.inf), ("float", "1_000"),
        ("float", True), ("float", "1e39"), ("float", b"1"), ("float", [1]), ("float", 1j),
        ("integer", "5.5"), ("integer", "five"), ("integer", False), ("integer", str(2**63)),
        ("integer", "1_0"),
        ("boolean", "2"), ("boolean", 2), ("boolean", "on"), ("boolean", 0.5), ("boolean", b"1"),
        ("string", 1.5), ("string", True), ("string", b"a"), ("string", ["a"]),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_of_the_wrong_type(make_contract: Make, type_: str, value: Any) -> None:
    contract = make_contract({"name": "x", "type": type_, "nullable": True})
    validated = validate_frame(
        pd.DataFrame({"id": ["a"], "left": ["Yes"], "x": pd.Series([value], dtype=object)}), contract
    )
    assert violations(validated) == [(0, "x", "type", str(value))]


@pytest.mark.parametrize("value", [None, math.nan, pd.NA, pd.NaT, "", "  "])
@pytest.mark.parametrize("type_", ["string", "float", "integer", "boolean"])
def test_missing_is_the_contracts_say(make_contract: Make, type_: str, value: Any) -> None:
    strict = check(make_contract({"name": "x", "type": type_}), x=[value])
    assert [line[:3] for line in violations(strict)] == [(0, "x", "missing")]
    lenient = check(make_contract({"name": "x", "type": type_, "nullable": True}), x=[value])
    assert lenient.good["x"].isna().tolist() == [True]


def test_rows_without_a_label_are_kept_where_the_contract_allows_it(make_contract: Make) -> None:
    columns: dict[str, list[Any]] = {"left": ["Yes", None], "x": [1, 2]}
    assert len(check(make_contract(), **columns).good) == 2
    assert violations(check(make_contract(nullable=False), **columns)) == [(1, "left", "missing", "")]


def test_unlisted_categories_are_counted_or_refused(make_contract: Make) -> None:
    plan = {"name": "plan", "type": "string", "categories": ["a"], "nullable": True}
    values = ["a", "c", "b", "c", None]
    validated = check(make_contract(plan), plan=values)
    assert validated.warnings == {"plan": {"c": 2, "b": 1}}
    assert list(validated.warnings["plan"]) == ["c", "b"]
    assert validated.bad_rows == 0
    validated = check(make_contract(plan | {"unseen": "reject"}), plan=values)
    assert [line[0] for line in violations(validated)] == [1, 2, 3]
    assert {line[2] for line in violations(validated)} == {"category"}
    assert validated.warnings == {}


def test_free_text_does_not_flood_the_warnings(make_contract: Make) -> None:
    contract = make_contract({"name": "note", "type": "string", "categories": ["a"]})
    validated = check(contract, note=[f"note {number:04d}" for number in range(500)])
    assert len(validated.warnings["note"]) == 100


def test_times_are_utc(make_contract: Make) -> None:
    contract = make_contract({"name": "at", "role": "time", "type": "timestamp", "nullable": True})
    berlin = datetime.timezone(datetime.timedelta(hours=2))
    validated = check(
        contract,
        x=[1] * 9,
        at=[
            "2024-05-01", "2024-05-01T12:00:00+02:00", datetime.date(2024, 5, 1), None, " ",
            datetime.datetime(2024, 5, 1, 14, tzinfo=berlin), "01/05/2024", 1714521600, "9999-12-31",
        ],
    )  # fmt: skip
    assert str(validated.good["at"].dtype) == "datetime64[ns, UTC]"
    hours = [None if pd.isna(stamp) else stamp.hour for stamp in validated.good["at"]]
    assert hours == [0, 10, 0, None, None, 12]
    assert [line[0] for line in violations(validated)] == [6, 7, 8]
    assert {line[2] for line in violations(validated)} == {"type"}


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_typed_times_are_kept(make_contract: Make, unit: str) -> None:
    contract = make_contract({"name": "at", "role": "time", "type": "timestamp"})
    for zone in (None, "Europe/Berlin"):
        stamps = pd.Series(["2024-05-01T12:00:00"]).astype(f"datetime64[{unit}]").dt.tz_localize(zone)
        frame = pd.DataFrame({"id": ["a"], "left": ["Yes"], "x": [1.0], "at": stamps})
        validated = validate_frame(frame, contract)
        assert validated.good["at"].iat[0].hour == (12 if zone is None else 10)
        assert str(validated.good["at"].dtype) == "datetime64[ns, UTC]"


def test_rows_that_share_an_id_are_all_bad(make_contract: Make) -> None:
    validated = check(make_contract(), id=["a", "b", "a", None, None, 7], x=[1, 2, 3, 4, 5, 6])
    assert violations(validated) == [
        (0, "id", "duplicate", "a"),
        (2, "id", "duplicate", "a"),
        (3, "id", "missing", ""),
        (4, "id", "missing", ""),
    ]
    assert validated.good["id"].tolist() == ["b", "7"]


def test_the_order_and_index_of_the_source_do_not_matter(make_contract: Make) -> None:
    frame = pd.DataFrame(
        {"more": ["m", "m"], "x": ["1", "?"], "left": ["No", "No"], "id": ["a", "b"]}, index=[5, 5]
    )
    validated = validate_frame(frame, make_contract())
    assert list(validated.good.columns) == ["id", "left", "x"]
    assert validated.good.index.tolist() == [0]
    assert violations(validated) == [(1, "x", "type", "?")]


def test_missing_columns_stop_everything(make_contract: Make) -> None:
    with pytest.raises(ContractError, match="lacks 'left', 'x' of the contract; its columns are: id, y"):
        validate_frame(pd.DataFrame({"id": ["a"], "y": [1]}), make_contract())


def test_no_rows_keep_their_types(make_contract: Make) -> None:
    validated = check(make_contract({"name": "b", "type": "boolean"}), b=[])
    assert validated.rows == 0
    assert str(validated.good["b"].dtype) == "boolean"
    with pytest.raises(TooManyBadRowsError, match="no rows"):
        check_bad_fraction(validated, 1)


def test_too_many_bad_rows_stop_a_run(make_contract: Make) -> None:
    values = ["1"] * 98 + ["?", "!"]
    validated = check(make_contract({"name": "x", "type": "float"}), x=values)
    check_bad_fraction(validated, 0.02)
    with pytest.raises(
        TooManyBadRowsError, match=r"2 of 100 rows \(2.00%\) .* allows 1.00%.*x: type \(2 rows\)"
    ):
        check_bad_fraction(validated, 0.01)
    with pytest.raises(TooManyBadRowsError, match="at least one row has to be left"):
        check_bad_fraction(check(make_contract(), x=["?"]), 1)


def test_no_variable_switches_the_checks_off(make_contract: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandera.config

    monkeypatch.setattr(pandera.config.CONFIG, "validation_enabled", False)
    assert check(make_contract({"name": "x", "type": "float", "minimum": 0}), x=["-1"]).bad_rows == 1


FEATURES = (
    {"name": "s", "type": "string", "categories": ["a", "b"], "unseen": "reject"},
    {"name": "f", "type": "float", "minimum": -5, "maximum": 1e30, "nullable": True},
    {"name": "i", "type": "integer", "minimum": 0},
    {"name": "b", "type": "boolean", "nullable": True},
)
value = st.one_of(
    st.sampled_from(["a", "b", "", "1", "0", "-3", "7.0", "7.5", "yes", "nan", None]),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=4),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(value, value, value, value), min_size=1, max_size=6))
def test_good_rows_pass_the_featuriser(rows: list[tuple[Any, ...]], make_contract: Make) -> None:
    """Rows are good or bad, never both or none, and what training takes is what serving takes."""
    contract = make_contract(*FEATURES)
    columns = {name: [row[at] for row in rows] for at, name in enumerate("sfib")}
    validated = check(contract, **columns)
    assert validated.rows == len(rows)
    assert set(validated.bad["row"]).isdisjoint(int(number) for number in validated.good["id"])
    assert len(set(validated.bad["row"])) + len(validated.good) == len(rows)
    matrix = Featuriser.fit(validated.good, contract).transform_frame(validated.good)
    assert matrix.shape == (len(validated.good), 4)
