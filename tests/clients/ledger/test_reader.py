"""The reader: what was written comes back, bounded, typed, and as of any moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from clients.errors import NotFoundError, UnreachableError
from clients.ledger.instant import to_us
from clients.ledger.reader import Ledger
from clients.settings import Settings
from serving.detector.records import DeadLetter, Label, Record, Request, Response, Transition
from serving.detector.writer import Writer
from tenure.drift.verdict import Verdict

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
HORIZON = timedelta(days=30)


def at(days: float) -> datetime:
    return START + timedelta(days=days)


def predict(
    writer: Writer,
    event: str,
    days: float,
    customers: list[str | None],
    version: str = "v1",
    service: str = "telco",
    features: list[dict[str, Any]] | None = None,
) -> None:
    time = to_us(at(days))
    rows = features or [{"age": number, "plan": None} for number in range(len(customers))]
    scores = [0.25] * len(customers)
    items: list[Record] = [
        Request(event, service, version, time, customers, rows),
        Response(event, service, version, time + 1_500, scores, [False] * len(customers)),
    ]
    writer.write(items)


def label(writer: Writer, customer: str, outcome: str, true: float, known: float | None = None) -> None:
    moment = to_us(at(true if known is None else known))
    writer.write([Label("telco", customer, outcome, to_us(at(true)), moment)])


def test_predictions_come_back(writer: Writer, ledger: Ledger) -> None:
    predict(writer, "e1", 0, ["a", None])
    predict(writer, "e2", 1, ["b"], version="v2")
    predict(writer, "e3", 2, ["x"], service="other")
    frame = ledger.read_predictions("telco")
    assert frame["event_id"].tolist() == ["e1", "e1", "e2"]
    assert frame["row"].tolist() == [0, 1, 0]
    assert frame["customer_id"].tolist() == ["a", None, "b"]
    assert frame["version"].tolist() == ["v1", "v1", "v2"]
    assert str(frame["time"].dtype) == "datetime64[us, UTC]"
    assert frame["time"].iloc[2].to_pydatetime() == at(1)
    assert frame["score"].tolist() == [0.25] * 3
    assert frame["churn"].dtype == bool
    assert frame["latency_ms"].tolist() == [1.5] * 3
    assert frame["features"].tolist()[1] == {"age": 1, "plan": None}
    columns = ledger.expand_features(frame, ["plan", "age", "unknown"])
    assert columns["age"].tolist() == [0, 1, 0]
    assert columns["plan"].tolist() == [None] * 3
    assert columns["unknown"].shape == (3,)
    assert "features" not in ledger.read_predictions("telco", features=False)


def test_an_empty_answer_has_the_same_types(writer: Writer, ledger: Ledger) -> None:
    predict(writer, "e1", 0, ["a"])
    full, empty = ledger.read_predictions("telco"), ledger.read_predictions("none")
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    assert len(empty) == 0
    outcomes = ledger.read_outcomes("none", as_of=at(99), horizon=HORIZON)
    assert list(outcomes.columns) == [*list(empty.columns.drop("features")), "outcome", "matured_at"]
    assert ledger.expand_features(empty, ["age"])["age"].dtype == np.dtype(object)
    assert ledger.find_last_seq("none") == 0
    assert len(ledger.read_labels("none")) == 0


def test_reading_is_bounded(writer: Writer, ledger: Ledger) -> None:
    for number in range(6):
        predict(writer, f"e{number}", number, ["a"], version=f"v{number % 2}")

    def find(*arguments: Any, **bounds: Any) -> list[int]:
        frame = ledger.read_predictions("telco", *arguments, **bounds)
        return [int(name[1:]) for name in frame["event_id"]]

    third = int(ledger.read_predictions("telco", limit=3)["seq"].iloc[-1])
    assert find(limit=2) == [0, 1]
    assert find(limit=2, newest=True) == [4, 5]
    assert find("v1", limit=2, newest=True) == [3, 5]
    assert find(after_seq=third) == [3, 4, 5]
    assert find(since=at(1), until=at(3)) == [1, 2]
    assert find(customer="b") == []
    assert ledger.count_predictions("telco") == 6
    assert ledger.count_predictions("telco", "v0", third, at(2)) == 1
    assert ledger.find_last_seq("telco") == third + 3


def test_outcomes_as_of_any_moment(writer: Writer, ledger: Ledger) -> None:
    predict(writer, "e1", 0, ["a", "b", None])
    predict(writer, "e2", 10, ["a"], version="v2")
    label(writer, "a", "No", 5, 6)
    label(writer, "a", "Yes", 20, 25)
    label(writer, "b", "Yes", 31)

    def known(days: float, **bounds: Any) -> list[tuple[str, str, str]]:
        frame = ledger.read_outcomes("telco", as_of=at(days), horizon=HORIZON, **bounds)
        return list(zip(frame["event_id"], frame["customer_id"], frame["outcome"], strict=True))

    assert known(5) == []
    assert known(6) == [("e1", "a", "No")]
    assert known(25) == known(99) == [("e1", "a", "Yes"), ("e2", "a", "Yes")]
    assert known(99, version="v2") == [("e2", "a", "Yes")]
    assert known(99, until=at(10)) == [("e1", "a", "Yes")]
    frame = ledger.read_outcomes("telco", as_of=at(99), horizon=HORIZON, features=True)
    assert [time.to_pydatetime() for time in frame["matured_at"]] == [at(25), at(25)]
    assert frame["features"].iloc[0] == {"age": 0, "plan": None}


def test_labels_come_back(writer: Writer, ledger: Ledger) -> None:
    label(writer, "a", "No", 5, 6)
    label(writer, "b", "Yes", 20, 7)
    assert ledger.read_labels("telco")["outcome"].tolist() == ["No", "Yes"]
    assert ledger.read_labels("telco", as_of=at(6))["customer_id"].tolist() == ["a"]
    assert ledger.read_labels("telco", since=at(6))["customer_id"].tolist() == ["b"]
    frame = ledger.read_labels("telco", customer="b")
    assert frame["true_at"].iloc[0].to_pydatetime() == at(20)
    assert str(frame["known_at"].dtype) == "datetime64[us, UTC]"


def test_what_was_live_at_any_time(writer: Writer, ledger: Ledger) -> None:
    moves = [
        Transition("t2", "telco", to_us(at(2)), "promoted", {"v2": 100}, "enough", {"n": 2}),
        Transition("t1", "telco", to_us(at(1)), "step", {"v1": 80, "v2": 20}, "begun", {}),
    ]
    writer.write(moves)
    assert [move.id for move in ledger.read_transitions("telco")] == ["t1", "t2"]
    assert ledger.read_transitions("telco")[1].evidence == {"n": 2}
    assert ledger.read_transitions("telco")[1].at == at(2)
    assert ledger.find_live("telco", at(0)) is None
    assert ledger.find_live("telco", at(1)) == {"v1": 80, "v2": 20}
    assert ledger.find_live("telco", at(9)) == {"v2": 100}


def test_verdicts_and_causes_come_back(writer: Writer, ledger: Ledger) -> None:
    for number in (1, 2, 3):
        verdict = Verdict(
            service="telco",
            version="v1",
            family="inputs",
            number=number,
            rows=10,
            since=at(number),
            until=at(number + 1),
            findings=(),
        )
        writer.save_verdict(
            service="telco",
            version="v1",
            family="inputs",
            number=number,
            first_seq=number * 10,
            last_seq=number * 10 + 9,
            since=verdict.since,
            until=verdict.until,
            rows=10,
            alarm=False,
            verdict=verdict.model_dump_json(),
        )
    found = ledger.read_verdicts("telco", "v1", "inputs", limit=2)
    assert [(one.number, one.last_seq, one.since, one.report_uri) for one in found] == [
        (2, 29, at(2), None),
        (3, 39, at(3), None),
    ]
    assert found[0].verdict.until == at(3)
    assert ledger.read_verdicts("telco", "v1", "outcomes") == []
    writer.save_cause(id="c", service="telco", kind="drift", reason="r", detail={"a": [1]})
    (cause,) = ledger.read_causes("telco")
    assert (cause["detail"], cause["arguments"], cause["run_id"]) == ({"a": [1]}, None, None)
    assert cause["created_at"] == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    writer.update_cause("c", expected_state="waiting", state="running", arguments={"b": 1})
    assert ledger.read_causes("telco", ["waiting"]) == []
    assert ledger.read_causes("telco", ["running", "failed"])[0]["arguments"] == {"b": 1}


def test_what_was_lost_is_counted(writer: Writer, ledger: Ledger) -> None:
    writer.write([Request("e", "telco", "v1", to_us(at(1)), ["a"], [{}]), DeadLetter("/", "x", {}, b"")])
    writer.give_up_halves(1 << 60)
    assert ledger.count_losses("telco") == ledger.count_losses("telco", since=at(1)) == 1
    assert ledger.count_losses("telco", since=at(2)) == ledger.count_losses("other") == 0
    assert ledger.count_dead_letters() == 1
    assert ledger.count_dead_letters(since=at(0)) == 0


def test_no_ledger_is_told(store_settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="TENURE_LEDGER_URL"):
        Ledger.connect(store_settings)
    missing = f"sqlite:///{tmp_path}/none.db"
    ledger = Ledger.connect(store_settings.model_copy(update={"ledger_url": SecretStr(missing)}))
    for _ in range(2):
        with pytest.raises(NotFoundError, match="does not exist yet"):
            ledger.find_last_seq("telco")


def test_no_tables_are_told(ledger_url: str) -> None:
    from clients.ledger.engine import open_engine

    engine = open_engine(ledger_url)
    with engine.begin():
        pass
    engine.dispose()
    ledger = Ledger(ledger_url)
    with pytest.raises(NotFoundError, match="does not exist yet"):
        ledger.read_predictions("telco")
    ledger.close()


def test_a_database_that_is_down_is_told() -> None:
    ledger = Ledger("postgresql://tenure:secret@127.0.0.1:9/ledger")
    with pytest.raises(UnreachableError, match="is its database up") as found:
        ledger.find_last_seq("telco")
    assert "secret" not in str(found.value)


def test_a_tally_counts_each_version_and_what_became_known(writer: Writer, ledger: Ledger) -> None:
    predict(writer, "e1", 0, ["a"])
    predict(writer, "e2", 1, ["b", "c"])
    predict(writer, "e3", 2, ["d"], version="v2")
    predict(writer, "e4", 2, ["x"], service="other")
    moment = to_us(at(3))
    writer.write(
        [
            Request("e5", "telco", "v2", moment, ["e", "f"], [{}, {}]),
            Response("e5", "telco", "v2", moment + 1, [0.75, 0.95], [True, True]),
        ]
    )
    label(writer, "a", "Yes", true=0, known=0)
    label(writer, "b", "Yes", true=0, known=2)
    found = ledger.tally("telco", at(1))
    assert [(one.version, one.predictions, one.flagged) for one in found.shares] == [
        ("v2", 3, 2),
        ("v1", 2, 0),
    ]
    assert found.shares[0].score == pytest.approx(0.65)
    assert found.labels == 1
    nothing = ledger.tally("telco", at(9))
    assert (nothing.shares, nothing.labels) == ((), 0)
