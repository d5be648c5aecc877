"""Which of several detectors watches: one at a time, and another one as soon as it is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from clients.ledger.engine import open_engine
from serving.detector.errors import LedgerError
from serving.detector.leadership import Leadership


@pytest.fixture
def engines(ledger_url: str) -> Iterator[tuple[Engine, Engine]]:
    both = open_engine(ledger_url), open_engine(ledger_url)
    yield both
    for engine in both:
        engine.dispose()


on_postgresql = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_the_only_detector_leads(engines: tuple[Engine, Engine]) -> None:
    lonely = Leadership(engines[0])
    assert lonely.hold()
    lonely.release()
    assert lonely.hold()


@on_postgresql
def test_one_leads_until_it_resigns(engines: tuple[Engine, Engine]) -> None:
    one, other = (Leadership(engine) for engine in engines)
    assert one.hold()
    assert one.hold()
    for _ in range(50):  # at once: nobody waits for the server to notice that a session has ended
        assert not other.hold()
        one.release()
        assert other.hold()
        assert not one.hold()
        one, other = other, one
    one.release()


def end_holder(engine: Engine) -> None:
    """Let the server end the session that holds the right, and wait until it has ended."""
    held = (
        "SELECT pid FROM pg_locks JOIN pg_database ON oid = database "
        "WHERE locktype = 'advisory' AND datname = current_database()"
    )
    with engine.connect() as connection:
        (pid,) = connection.execute(text(held)).scalars()
        connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})


@on_postgresql
def test_a_lost_session_is_noticed_and_another_leads(engines: tuple[Engine, Engine]) -> None:
    one, other = (Leadership(engine) for engine in engines)
    assert one.hold()
    end_holder(engines[1])
    assert other.hold()
    with pytest.raises(LedgerError, match="is its database up"):
        one.hold()
    assert not one.hold()
    other.release()
    assert one.hold()
    one.release()


@on_postgresql
def test_resigning_after_the_session_is_lost(
    engines: tuple[Engine, Engine], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = (Leadership(engine) for engine in engines)
    assert one.hold()
    end_holder(engines[1])
    one.release()
    assert "ends with its session" in caplog.text
    assert other.hold()
    other.release()


@on_postgresql
def test_a_follower_keeps_no_connection(engines: tuple[Engine, Engine]) -> None:
    one, other = (Leadership(engine) for engine in engines)
    assert one.hold()
    for _ in range(30):
        assert not other.hold()
    assert engines[1].pool.checkedout() == 0  # type: ignore[attr-defined]
    one.release()
