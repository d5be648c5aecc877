"""The ledger's tables, brought to what this code expects: alembic's revisions lie in `migrations/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from clients.ledger.schema import metadata
from serving.detector.errors import LedgerError

_SCRIPTS = Path(__file__).resolve().parent / "migrations"
_LOCK = 0x7E40_0002
"""PostgreSQL's advisory lock of whoever migrates."""


def migrate(engine: Engine) -> str:
    """Create or upgrade the tables, all in one transaction; several may try at once.

    Returns:
        The revision that the ledger has now.

    Raises:
        LedgerError: The database does not answer, or its tables are newer than this code.
    """
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()

    def plan(revision: Any, _: Any) -> Any:
        return script._upgrade_revs("head", revision)

    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            with EnvironmentContext(config, script, fn=plan, destination_rev="head") as context:
                # One transaction for all, SQLite's too: another detector waits for its end.
                context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
                context.run_migrations()
    except CommandError as error:
        raise LedgerError(
            f"the ledger cannot be migrated: {error}; if a newer Tenure has migrated it, run that one"
        ) from error
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerError(
            f"the ledger cannot be migrated: {str(cause).strip()}; is its database up, and may its user "
            "create tables?"
        ) from error
    return str(head)
