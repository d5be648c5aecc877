"""Migrations: they lead to the schema that the code speaks of, and two that begin at once do no harm."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from clients.ledger.engine import open_engine
from clients.ledger.schema import metadata
from serving.detector.errors import LedgerError
from serving.detector.migration import migrate


def test_migrated_ledger_is_what_the_schema_says(ledger_engine: Engine) -> None:
    with ledger_engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        found = inspect(connection)
        for name, table in metadata.tables.items():
            assert {
                index["name"] for index in found.get_indexes(name) if not index.get("duplicates_constraint")
            } == {index.name for index in table.indexes}
            assert found.get_pk_constraint(name)["constrained_columns"] == [
                column.name for column in table.primary_key
            ]


def test_a_deleted_number_is_never_given_again(ledger_engine: Engine) -> None:
    insert = text(
        "INSERT INTO labels (service, customer_id, outcome, true_at, known_at, recorded_at) "
        "VALUES ('a', 'b', 'Yes', 1, 1, 1)"
    )
    for expected in (1, 2):
        with ledger_engine.begin() as connection:
            connection.execute(insert)
            assert connection.execute(text("SELECT max(seq) FROM labels")).scalar() == expected
            connection.execute(text("DELETE FROM labels"))


def test_several_may_migrate_at_once(ledger_url: str, at_once: Any) -> None:
    def start() -> str:
        engine = open_engine(ledger_url)
        try:
            return migrate(engine)
        finally:
            engine.dispose()

    revisions = at_once([start] * 4)
    assert len(set(revisions)) == 1
    engine = open_engine(ledger_url)
    with engine.connect() as connection:
        assert (
            connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
            == revisions[:1]
        )
    engine.dispose()


def test_again_changes_nothing(ledger_engine: Engine) -> None:
    assert migrate(ledger_engine) == migrate(ledger_engine)


def test_a_newer_ledger_is_refused(ledger_engine: Engine) -> None:
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match="newer Tenure"):
        migrate(ledger_engine)


def test_a_database_that_is_down_is_told() -> None:
    engine = open_engine("postgresql://tenure:secret@127.0.0.1:9/ledger")
    with pytest.raises(LedgerError, match="is its database up") as found:
        migrate(engine)
    assert "secret" not in str(found.value)
