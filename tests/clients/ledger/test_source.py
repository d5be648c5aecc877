"""Training rows of the ledger: the same content gives the same rows, in whatever order it came."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from clients.ledger.engine import open_engine
from clients.ledger.instant import to_us
from clients.ledger.source import Address, parse_address, read_customers
from clients.settings import Settings
from serving.detector.migration import migrate
from serving.detector.records import Label, Record, Request, Response
from serving.detector.writer import Writer
from tenure.contract import Column, Contract, Role, Type
from tenure.errors import SourceError
from tenure.snapshot import write_snapshot
from tenure.validation import validate_frame

START = datetime(2026, 3, 1, tzinfo=UTC)
HORIZON = timedelta(days=30)
SOURCE = "ledger://telco?since=2026-03-01&until=2026-05-01"
CONTRACT = Contract(
    columns=(
        Column(name="id", role=Role.ID, type=Type.STRING),
        Column(name="churn", role=Role.LABEL, type=Type.STRING, positive="Yes"),
        Column(name="asked", role=Role.TIME, type=Type.TIMESTAMP),
        Column(name="age", type=Type.INTEGER, nullable=True),
        Column(name="price", type=Type.FLOAT, nullable=True),
        Column(name="senior", type=Type.BOOLEAN),
        Column(name="plan", type=Type.STRING, nullable=True),
    )
)


def day(number: float) -> int:
    return to_us(START + timedelta(days=number))


def event(name: str, days: float, customer: str | None, **features: Any) -> list[Record]:
    row = {"age": 3, "price": 2.5, "senior": True, "plan": "a"} | features
    return [
        Request(name, "telco", "v", day(days), [customer], [row]),
        Response(name, "telco", "v", day(days), [0.5], [True]),
    ]


CONTENT = [
    event("1", 0, "ann", age=1),
    event("2", 5, "ann", age=2),
    event("3", 5, "ann", age=4),
    event("4", 40, "ann", age=5),
    event("5", 1, "bob", price=None, plan=None),
    event("6", 1, "cyd"),
    event("7", 1, None),
    event("8", 61, "dan"),
    [Label("telco", "ann", "No", day(20), day(20)), Label("telco", "bob", "Yes", day(9), day(9))],
    [Label("telco", "cyd", "Yes", day(9), day(70)), Label("telco", "dan", "Yes", day(62), day(62))],
]


@pytest.fixture
def fill(store_settings: Settings, tmp_path: Path) -> Any:
    """Write batches to a new ledger; returns settings with its address."""
    numbers = itertools.count()

    def write(batches: list[list[Record]]) -> Settings:
        url = f"sqlite:///{tmp_path}/{next(numbers)}.db"
        engine = open_engine(url)
        migrate(engine)
        for batch in batches:
            Writer(engine).write(batch)
        engine.dispose()
        return store_settings.model_copy(update={"ledger_url": SecretStr(url)})

    return write


def test_each_customer_is_learnt_from_once(fill: Any) -> None:
    frame = read_customers(fill(CONTENT), SOURCE, CONTRACT, HORIZON)
    assert list(frame.columns) == [column.name for column in CONTRACT.columns]
    assert frame["id"].tolist() == ["ann", "bob"]
    assert frame["churn"].tolist() == ["No", "Yes"]
    assert frame["age"].tolist() == [4, 3]
    assert frame["asked"].iloc[0] == START + timedelta(days=5)
    assert frame["price"].isna().tolist() == [False, True]
    validated = validate_frame(frame, CONTRACT)
    assert len(validated.good) == 2
    assert len(validated.bad) == 0


def test_the_same_content_gives_the_same_bytes(fill: Any, tmp_path: Path) -> None:
    digests = set()
    later = [event("9", 100, "ann"), [Label("telco", "ann", "Yes", day(21), day(90))]]
    for content in (CONTENT, CONTENT[::-1], [*later, *CONTENT, *CONTENT]):
        frame = read_customers(fill(content), SOURCE, CONTRACT, HORIZON)
        digests.add(write_snapshot(frame, tmp_path / "snapshot"))
    assert len(digests) == 1


def test_values_of_a_wrong_type_are_left_to_validation(fill: Any, tmp_path: Path) -> None:
    content = [*CONTENT, event("9", 6, "ann", age="old", price=7, senior="yes")]
    frame = read_customers(fill(content), SOURCE, CONTRACT, HORIZON)
    assert frame["age"].tolist() == ["old", "3"]
    assert frame["price"].tolist()[0] == 7.0
    assert frame["senior"].tolist() == ["yes", "true"]
    write_snapshot(frame, tmp_path / "snapshot")
    assert validate_frame(frame, CONTRACT).bad["column"].tolist() == ["age"]


def test_truth_values_that_came_as_numbers_are_learnt_from(fill: Any) -> None:
    content = [*CONTENT, event("9", 6, "ann", age=4.0, senior=1.0, plan="")]
    validated = validate_frame(read_customers(fill(content), SOURCE, CONTRACT, HORIZON), CONTRACT)
    assert len(validated.bad) == 0
    assert validated.good["senior"].tolist() == [True, True]
    assert validated.good["age"].tolist() == [4, 3]
    assert validated.good["plan"].isna().tolist() == [True, True]


def test_too_few_customers_are_told(fill: Any, store_settings: Settings, tmp_path: Path) -> None:
    settings = fill(CONTENT)
    assert len(read_customers(settings, f"{SOURCE}&min_rows=2", CONTRACT, HORIZON)) == 2
    with pytest.raises(SourceError, match="2 customers have a known outcome, 3 are needed"):
        read_customers(settings, f"{SOURCE}&min_rows=3", CONTRACT, HORIZON)
    with pytest.raises(SourceError, match="0 customers"):
        read_customers(settings, "ledger://other", CONTRACT, HORIZON)
    with pytest.raises(SourceError, match="no ledger is configured"):
        read_customers(store_settings, SOURCE, CONTRACT, HORIZON)
    missing = SecretStr(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(SourceError, match="does not exist yet"):
        read_customers(store_settings.model_copy(update={"ledger_url": missing}), SOURCE, CONTRACT, HORIZON)


def test_addresses_are_read() -> None:
    now = datetime(2026, 5, 31, 8, tzinfo=UTC)
    assert parse_address("ledger://telco", now) == Address("telco", now - timedelta(days=30), now, 1)
    found = parse_address("ledger://telco?days=0.5&min_rows=7&until=2026-05-30T00:00:00%2B02:00", now)
    until = datetime(2026, 5, 29, 22, tzinfo=UTC)
    assert found == Address("telco", until - timedelta(hours=12), until, 7)
    assert parse_address("ledger://telco?since=2026-01-01T00:00:00+00:00", now).since.year == 2026


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ledger://", "the form is"),
        ("ledger://telco/more", "the form is"),
        ("ledger://telco?hours=3", "hours is unknown"),
        ("ledger://telco?days=1&days=2", "once"),
        ("ledger://telco?days=1&since=2026-01-01", "either"),
        ("ledger://telco?days=many", "days cannot be read"),
        ("ledger://telco?days=1e12", "days cannot be read"),
        ("ledger://telco?since=yesterday", "since cannot be read"),
        ("ledger://telco?min_rows=1.5", "min_rows cannot be read"),
        ("ledger://telco?days=0", "before until"),
        ("ledger://telco?days", "the form is"),
    ],
)
def test_wrong_addresses_are_told(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        parse_address(text)
