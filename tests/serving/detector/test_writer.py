"""The writer: whatever order, batch and repetition events come in, the ledger ends up the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Table, select, text

from clients.ledger.engine import open_engine
from clients.ledger.schema import (
    causes,
    dead_letters,
    halves,
    labels,
    losses,
    predictions,
    transitions,
    verdicts,
)
from serving.detector.errors import LedgerError
from serving.detector.migration import migrate
from serving.detector.records import DeadLetter, Label, Record, Request, Response, Transition
from serving.detector.writer import Writer, Written


def ask(event: str, rows: int = 1, *, time: int = 1_000, service: str = "s", version: str = "v") -> Request:
    customers: list[str | None] = [f"{event}-{row}" for row in range(rows)]
    return Request(event, service, version, time, customers, [{"x": row, "y": None} for row in range(rows)])


def answer(
    event: str, rows: int = 1, *, time: int = 3_500, service: str = "s", version: str = "v"
) -> Response:
    scores = [row / 10 for row in range(rows)]
    return Response(event, service, version, time, scores, [score >= 0.5 for score in scores])


def read(engine: Engine, table: Table) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        order = list(table.primary_key)
        return [dict(row) for row in connection.execute(select(table).order_by(*order)).mappings()]


@contextmanager
def open_sqlite() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as directory:
        engine = open_engine(f"sqlite:///{directory}/ledger.db")
        migrate(engine)
        try:
            yield engine
        finally:
            engine.dispose()


@pytest.fixture
def writer(ledger_engine: Engine) -> Writer:
    return Writer(ledger_engine, clock=lambda: 9_000)


def test_both_halves_become_rows(writer: Writer, ledger_engine: Engine) -> None:
    written = writer.write([ask("a", 2), answer("a", 2, version="w")])
    assert written == Written(predictions=2, paired=1, rows={("s", "w"): 2}, newest=1_000)
    first, second = read(ledger_engine, predictions)
    assert first == {
        "seq": 1,
        "event_id": "a",
        "row": 0,
        "service": "s",
        "version": "w",
        "customer_id": "a-0",
        "time": 1_000,
        "recorded_at": 9_000,
        "features": '{"x":0,"y":null}',
        "score": 0.0,
        "churn": False,
        "latency_ms": 2.5,
    }
    assert (second["seq"], second["row"], second["score"]) == (2, 1, 0.1)
    assert read(ledger_engine, halves) == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_halves_meet_whichever_comes_first(
    writer: Writer, ledger_engine: Engine, order: tuple[int, int]
) -> None:
    both: list[Record] = [ask("a"), answer("a")]
    assert writer.write([both[order[0]]]) == Written()
    assert len(read(ledger_engine, halves)) == 1
    assert writer.write([both[order[1]]]).predictions == 1
    assert read(ledger_engine, halves) == []
    assert writer.write(both).duplicates == 2
    assert writer.write(both[:1]).duplicates == 1
    assert len(read(ledger_engine, predictions)) == 1
    assert read(ledger_engine, halves) == []


def test_first_half_of_several_counts(writer: Writer, ledger_engine: Engine) -> None:
    writer.write([ask("a", time=1)])
    assert writer.write([ask("a", time=2), answer("a", time=11), answer("a", time=12)]).duplicates == 2
    assert [(row["time"], row["latency_ms"]) for row in read(ledger_engine, predictions)] == [(1, 0.01)]


@pytest.mark.parametrize("response", [answer("a", 2), answer("a", service="other")])
def test_halves_that_do_not_fit_are_kept_as_a_letter(
    writer: Writer, ledger_engine: Engine, response: Response
) -> None:
    written = writer.write([ask("a"), response, ask("b"), answer("b")])
    assert (written.predictions, written.dead_letters) == (1, 1)
    (letter,) = read(ledger_engine, dead_letters)
    assert "do not belong together" in letter["reason"]
    assert b'"scores":' in letter["body"]
    assert read(ledger_engine, halves) == []


def test_strange_values_are_held(writer: Writer, ledger_engine: Engine) -> None:
    features = {"a": float("nan"), "b": "\ud800\0", "c": float("inf"), "d": "Größe", "e": 2**70, "f": True}
    writer.write([Request("a", "s", "v", 1, ["Zoë"], [features]), answer("a")])
    (row,) = read(ledger_engine, predictions)
    assert row["features"].startswith('{"a":null,"b":"\\ud800\\u0000","c":null,"d":"Gr')
    assert row["customer_id"] == "Zoë"


def test_labels_transitions_and_letters(writer: Writer, ledger_engine: Engine) -> None:
    label = Label("s", "c", "Yes", 5, 6)
    move = Transition("t", "s", 7, "promoted", {"v": 100}, "enough", {"n": 1})
    letter = DeadLetter("/events/s/v", "no JSON", {"Ce-Id": "1"}, b"{")
    assert writer.write([label, label, move, letter]) == Written(
        labels=1, duplicates=1, transitions=1, dead_letters=1
    )
    assert writer.write([label, move, Label("s", "c", "No", 5, 6)]) == Written(labels=1, duplicates=2)
    assert len(read(ledger_engine, labels)) == 2
    assert read(ledger_engine, transitions)[0]["shares"] == '{"v":100}'
    assert read(ledger_engine, dead_letters)[0]["headers"] == '{"Ce-Id":"1"}'


def test_more_events_than_one_statement_can_ask_for(writer: Writer, ledger_engine: Engine) -> None:
    events = [f"e{number}" for number in range(1_300)]
    writer.write([ask(event) for event in events])
    assert writer.write([answer(event) for event in events]).paired == 1_300
    assert [row["event_id"] for row in read(ledger_engine, predictions)] == events
    assert read(ledger_engine, halves) == []


def test_halves_without_the_other_are_given_up_once(ledger_engine: Engine) -> None:
    now = [100]
    writer = Writer(ledger_engine, clock=lambda: now[0])
    writer.write([ask("old")])
    now[0] = 200
    writer.write([answer("new")])
    assert writer.give_up_halves(200) == 1
    assert writer.give_up_halves(200) == 0
    assert [row["event_id"] for row in read(ledger_engine, losses)] == ["old"]
    assert [row["event_id"] for row in read(ledger_engine, halves)] == ["new"]
    writer.write([ask("old")])
    assert writer.give_up_halves(300) == 2
    assert [row["event_id"] for row in read(ledger_engine, losses)] == ["new", "old"]


def test_verdicts_are_given_once(writer: Writer, ledger_engine: Engine) -> None:
    verdict: dict[str, Any] = {
        "service": "s",
        "version": "v",
        "family": "inputs",
        "number": 1,
        "first_seq": 1,
        "last_seq": 9,
        "since": 1,
        "until": 2,
        "rows": 9,
        "alarm": True,
        "verdict": "{}",
    }
    assert writer.save_verdict(**verdict)
    assert not writer.save_verdict(**verdict | {"alarm": False})
    assert writer.set_report("s", "v", "inputs", 1, "runs:/1")
    assert not writer.set_report("s", "v", "inputs", 2, "runs:/1")
    (row,) = read(ledger_engine, verdicts)
    assert (row["alarm"], row["report_uri"], row["created_at"]) == (True, "runs:/1", 9_000)


def test_causes_change_only_from_the_expected_state(writer: Writer, ledger_engine: Engine) -> None:
    cause: dict[str, Any] = {"id": "c", "service": "s", "kind": "drift", "reason": "r", "detail": {"a": 1}}
    assert writer.save_cause(**cause)
    assert not writer.save_cause(**cause | {"reason": "other"})
    assert writer.update_cause("c", expected_state="waiting", state="submitting", arguments={"b": 2})
    assert not writer.update_cause("c", expected_state="waiting", state="dropped")
    assert writer.update_cause("c", expected_state=("waiting", "submitting"), run_id="7", note="so")
    assert not writer.update_cause("none", expected_state="waiting", note="")
    (row,) = read(ledger_engine, causes)
    assert (row["state"], row["arguments"], row["detail"]) == ("submitting", '{"b":2}', '{"a":1}')
    assert (row["run_id"], row["note"], row["reason"]) == ("7", "so", "r")
    with pytest.raises(TypeError, match="service"):
        writer.update_cause("c", expected_state="waiting", service="x")


def test_threads_share_it(writer: Writer, ledger_engine: Engine) -> None:
    def send(number: int) -> None:
        both: list[Record] = [ask(f"e{number % 20}", 3), answer(f"e{number % 20}", 3)]
        writer.write(both if number % 2 else both[::-1])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(80)))
    rows = read(ledger_engine, predictions)
    assert len(rows) == 60
    assert {(row["event_id"], row["row"]) for row in rows} == {
        (f"e{n}", row) for n in range(20) for row in range(3)
    }


def test_nothing_is_acknowledged_that_cannot_be_written(writer: Writer, ledger_engine: Engine) -> None:
    writer.write([ask("a")])
    with ledger_engine.begin() as connection:
        connection.execute(text("DROP TABLE transitions"))
    move = Transition("t", "s", 7, "promoted", {}, "", {})
    with pytest.raises(LedgerError, match="nothing was acknowledged"):
        writer.write([answer("a"), move])
    assert read(ledger_engine, predictions) == []
    assert len(read(ledger_engine, halves)) == 1
    assert writer.write([answer("a")]).predictions == 1


KILLED = """
import sys
from serving.detector.records import Request, Response
from serving.detector.writer import Writer
from clients.ledger.engine import open_engine

writer = Writer(open_engine(sys.argv[1]))
number = 0
while True:
    event = (f"e{number}", "s", "v", 1)
    writer.write([Request(*event, ["c"] * 3, [{}] * 3), Response(*event, [0.5] * 3, [True] * 3)])
    print(number, flush=True)
    number += 1
"""


def test_what_was_acknowledged_survives_a_kill(
    ledger_engine: Engine, ledger_url: str, tmp_path: Path
) -> None:
    program = tmp_path / "write.py"
    program.write_text(KILLED)
    root = str(Path(__file__).resolve().parents[3])
    command = [sys.executable, str(program), ledger_url]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}, cwd=tmp_path
    )
    assert process.stdout is not None
    with process.stdout as lines:
        acknowledged = next(int(line) for line in lines if int(line) >= 40)
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in lines)])
    process.wait(30)
    rows = read(ledger_engine, predictions)
    assert {row["event_id"] for row in rows} >= {f"e{number}" for number in range(acknowledged + 1)}
    assert len(rows) % 3 == 0
    assert Writer(ledger_engine).write([ask("e0", 3), answer("e0", 3)]).duplicates == 2


@given(data=st.data())
@settings(max_examples=25)
def test_any_order_batches_and_repetition_give_the_same_rows(data: st.DataObject) -> None:
    sizes = data.draw(
        st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3), min_size=1), "rows of events"
    )
    lost = data.draw(st.sets(st.sampled_from(sorted(sizes))), "events that have no response")
    sent: list[Record] = [ask(event, rows) for event, rows in sizes.items()]
    sent += [answer(event, rows) for event, rows in sizes.items() if event not in lost]
    again = data.draw(st.lists(st.sampled_from(sent), max_size=8), "sent again")
    order = data.draw(st.permutations([*sent, *again]), "order")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4), "batches"))
    with open_sqlite() as engine:
        writer = Writer(engine)
        parts = [order[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]
        written = [writer.write(part) for part in parts]
        rows = read(engine, predictions)
        assert sorted((row["event_id"], row["row"], row["score"]) for row in rows) == sorted(
            (event, row, row / 10)
            for event, size in sizes.items()
            if event not in lost
            for row in range(size)
        )
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        assert {row["event_id"] for row in read(engine, halves)} == lost
        assert sum(part.duplicates for part in written) == len(again)
        assert sum(part.predictions for part in written) == len(rows)
        assert writer.give_up_halves(1 << 60) == len(lost)


def test_a_reader_sees_no_hole_while_rows_are_written(writer: Writer, ledger_url: str) -> None:
    """Whoever goes on after the last row that it saw misses none."""
    from clients.ledger.reader import Ledger

    def fill(part: int) -> None:
        for number in range(15):
            event = f"{part}-{number}"
            writer.write([ask(event, 2), answer(event, 2)])

    threads = [threading.Thread(target=fill, args=[part]) for part in range(3)]
    for thread in threads:
        thread.start()
    ledger, seen, last = Ledger(ledger_url), 0, 0
    while any(thread.is_alive() for thread in threads) or ledger.find_last_seq("s") > last:
        frame = ledger.read_predictions("s", after_seq=last, limit=7)
        seen += len(frame)
        last = int(frame["seq"].max()) if len(frame) else last
    for thread in threads:
        thread.join()
    ledger.close()
    assert seen == 90
