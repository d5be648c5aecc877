"""Which of several detectors watches. All take in events; one judges, triggers and publishes."""

from __future__ import annotations

import logging

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from serving.detector.errors import LedgerError

logger = logging.getLogger("tenure.detector")

_LOCK = 0x7E40_0004
"""PostgreSQL's advisory lock of whoever watches."""

_KEEPALIVES = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
"""How soon the database takes a machine for dead that has vanished without a word: after 25 s."""


class Leadership:
    """The right to watch, held by a session of the ledger's database: it ends with the process.

    What the watcher does is safe with two watchers too (every step is a compare-and-set in the ledger); the
    right spares them the work of each other. SQLite has one detector, which always leads. One thread uses it.

    Args:
        engine: The ledger's.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def hold(self) -> bool:
        """Keep the right, or try to get it; says whether it is held now.

        Raises:
            LedgerError: The database does not answer; the right is lost.
        """
        if self._engine.dialect.name != "postgresql":
            return True
        try:
            if self._connection is not None:
                self._connection.execute(text("SELECT 1"))
                return True
            return self._claim()
        except SQLAlchemyError as error:
            self._drop()
            cause = getattr(error, "orig", None) or error
            raise LedgerError(
                f"whoever watches is agreed on in the ledger, and it does not answer: {str(cause).strip()}; "
                "is its database up?"
            ) from error

    def release(self) -> None:
        """Give the right back, if it is held: another one gets it from now on."""
        try:
            if self._connection is not None:
                # Closing alone would leave it held until the server has noticed.
                self._connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
        except SQLAlchemyError as error:
            logger.warning(
                "the right to watch ends with its session: %s", getattr(error, "orig", None) or error
            )
        finally:
            self._drop()

    def _drop(self) -> None:
        """End the session, and with it the right."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not back into the pool: what this session was set up for ends with it.
            connection.invalidate()
            connection.close()

    def _claim(self) -> bool:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        mine = False
        try:
            mine = bool(
                connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar()
            )
            if mine:
                self._connection = connection
        finally:
            if not mine:
                connection.close()
        if mine:
            for name, value in _KEEPALIVES.items():
                setting = {"name": name, "value": str(value)}
                connection.execute(text("SELECT set_config(:name, :value, false)"), setting)
            logger.info("this detector watches from now on")
        return mine
