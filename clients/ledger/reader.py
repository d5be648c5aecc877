"""The ledger as everybody but the detector sees it: read only, and always one consistent state."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sqlalchemy import Connection, Engine, Select, case, func, select
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError

from clients.errors import ClientError, NotFoundError, UnreachableError
from clients.ledger import schema
from clients.ledger.engine import open_engine
from clients.ledger.frames import (
    fetch_labels,
    fetch_predictions,
    select_predictions,
)
from clients.ledger.instant import to_us
from clients.ledger.records import (
    Share,
    Tally,
    TransitionRecord,
    VerdictRecord,
    restore_cause,
    restore_transition,
    restore_verdict,
)
from clients.settings import Settings
from tenure.outcome import join_outcomes

if TYPE_CHECKING:
    import pandas as pd

_MISSING = ("no such table", "does not exist")


class Ledger:
    """Reads predictions, labels and decisions; thread-safe, connects when something is asked.

    Moments are datetimes with a time zone. Spans hold their beginning and not their end. Every method raises
    NotFoundError when there is no ledger yet, and UnreachableError when its database does not answer.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: Engine | None = None

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Build the reader; reads nothing yet.

        Raises:
            NotFoundError: No ledger is configured.
        """
        if settings.ledger_url is None:
            raise NotFoundError(
                "no ledger is configured: set TENURE_LEDGER_URL (sqlite:///... or postgresql://...)"
            )
        return cls(settings.ledger_url.get_secret_value())

    def read_predictions(
        self,
        service: str,
        version: str | None = None,
        *,
        after_seq: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        newest: bool = False,
        customer: str | None = None,
        features: bool = True,
    ) -> pd.DataFrame:
        """Return predictions in the order of their arrival.

        Args:
            service: InferenceService.
            version: Only of this bundle version.
            after_seq: Only what arrived after this `seq`.
            since: Only what was asked then or later.
            until: Only what was asked before.
            limit: At most so many: the oldest of these, or the newest.
            newest: Which ones `limit` keeps.
            customer: Only this customer's.
            features: Whether to read the features, the largest part.

        Returns:
            Columns seq, event_id, row, customer_id (None if unknown), version, time (datetime64[us, UTC]),
            score, churn, latency_ms (NaN if unknown), and features (a dict each).
        """
        query = select_predictions(service, version, after_seq, since, until, features)
        if customer is not None:
            query = query.where(schema.predictions.c.customer_id == customer)
        with self._read() as connection:
            return fetch_predictions(connection, query, limit, newest)

    def read_outcomes(
        self,
        service: str,
        *,
        as_of: datetime,
        horizon: timedelta,
        version: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after_seq: int = 0,
        features: bool = False,
    ) -> pd.DataFrame:
        """Return the predictions whose outcome was known `as_of`; see `tenure.outcome.join_outcomes`.

        Returns:
            As `read_predictions`, with outcome and matured_at (datetime64[us, UTC]).
        """
        query = select_predictions(service, version, after_seq, since, until, features)
        with self._read() as connection:
            found = fetch_predictions(connection, query.where(schema.predictions.c.customer_id.is_not(None)))
            if not len(found):
                return found.assign(outcome=None, matured_at=found["time"])
            first, last = found["time"].min().to_pydatetime(), found["time"].max().to_pydatetime()
            labels = fetch_labels(connection, service, as_of=as_of, since=first, until=last + horizon)
        joined = join_outcomes(found, labels, horizon, as_of)
        found = found.assign(outcome=joined["outcome"], matured_at=joined["matured_at"])
        return found[found["outcome"].notna()].reset_index(drop=True)

    def read_labels(
        self,
        service: str,
        *,
        as_of: datetime | None = None,
        since: datetime | None = None,
        customer: str | None = None,
    ) -> pd.DataFrame:
        """Return labels that were known at `as_of` and became true at `since` or later, in order of arrival.

        Returns:
            Columns seq, customer_id, outcome, true_at and known_at (both datetime64[us, UTC]).
        """
        with self._read() as connection:
            return fetch_labels(connection, service, as_of=as_of, since=since, customer=customer)

    @staticmethod
    def expand_features(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the features of `read_predictions` by name: objects of shape [rows], None for missing."""
        rows = list(frame["features"])
        columns = {}
        for name in names:
            column = np.empty(len(rows), dtype=object)
            column[:] = [row.get(name) for row in rows]
            columns[name] = column
        return columns

    def count_predictions(
        self,
        service: str,
        version: str | None = None,
        after_seq: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> int:
        """Return how many predictions `read_predictions` would."""
        rows = select_predictions(service, version, after_seq, since, until, False).subquery()
        return self._count(select(func.count()).select_from(rows))

    def tally(self, service: str, since: datetime) -> Tally:
        """Return how many customers each version scored since then, and how many outcomes became known."""
        table, moment = schema.predictions.c, to_us(since)
        flagged = func.sum(case((table.churn, 1), else_=0))
        query = (
            select(table.version, func.count(), flagged, func.avg(table.score))
            .where(table.service == service, table.time >= moment)
            .group_by(table.version)
            .order_by(func.count().desc(), table.version)
        )
        labels = schema.labels.c
        known = select(func.count()).where(labels.service == service, labels.known_at >= moment)
        with self._read() as connection:
            shares = tuple(
                Share(str(version), int(count), int(left), float(score))
                for version, count, left, score in connection.execute(query)
            )
            return Tally(shares, int(connection.execute(known).scalar_one()))

    def find_last_seq(self, service: str) -> int:
        """Return the newest prediction's `seq`; 0 without any."""
        table = schema.predictions.c
        return self._count(select(func.coalesce(func.max(table.seq), 0)).where(table.service == service))

    def read_transitions(self, service: str) -> list[TransitionRecord]:
        """Return what the pilot did, oldest first."""
        table = schema.transitions
        query = select(table).where(table.c.service == service).order_by(table.c.at, table.c.recorded_at)
        with self._read() as connection:
            return [restore_transition(row) for row in connection.execute(query)]

    def find_live(self, service: str, at: datetime) -> dict[str, int] | None:
        """Return each version's share of the customers (percent) at a time; None before the first."""
        table = schema.transitions
        query = select(table.c.shares).where(table.c.service == service, table.c.at <= to_us(at))
        with self._read() as connection:
            shares = connection.execute(
                query.order_by(table.c.at.desc(), table.c.recorded_at.desc()).limit(1)
            ).scalar()
        return None if shares is None else json.loads(shares)

    def read_verdicts(
        self, service: str, version: str | None = None, family: str | None = None, limit: int | None = 100
    ) -> list[VerdictRecord]:
        """Return the newest verdicts, oldest first."""
        table = schema.verdicts
        query = select(table).where(table.c.service == service)
        if version is not None:
            query = query.where(table.c.version == version)
        if family is not None:
            query = query.where(table.c.family == family)
        with self._read() as connection:
            rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit)).all()
        return [restore_verdict(row) for row in reversed(rows)]

    def read_causes(self, service: str, states: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Return the causes of runs, oldest first, in these states only.

        Each is a row of the table, with datetimes, and `detail` and `arguments` (None before the run is
        submitted) as dicts.
        """
        table = schema.causes
        query = select(table).where(table.c.service == service)
        if states is not None:
            query = query.where(table.c.state.in_(list(states)))
        with self._read() as connection:
            rows = connection.execute(query.order_by(table.c.created_at, table.c.id)).mappings().all()
        return [restore_cause(row) for row in rows]

    def count_losses(self, service: str, since: datetime | None = None) -> int:
        """Return how many events lost one half for good."""
        table = schema.losses.c
        query = select(func.count()).where(table.service == service)
        return self._count(query if since is None else query.where(table.time >= to_us(since)))

    def count_dead_letters(self, since: datetime | None = None) -> int:
        """Return how many events and labels nobody could understand."""
        table = schema.dead_letters.c
        query = select(func.count(table.id))
        return self._count(query if since is None else query.where(table.received_at >= to_us(since)))

    def close(self) -> None:
        """Close the connections; the next question opens new ones."""
        if self._engine is not None:
            self._engine.dispose()

    def _count(self, query: Select[Any]) -> int:
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """Enter a transaction that sees one state, and turn the database's exceptions into ours."""
        if self._engine is None:
            self._engine = open_engine(self._url, read_only=True)
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _explain(error, self._engine) from error


def _explain(error: SQLAlchemyError, engine: Engine) -> ClientError:
    """Return our exception; never the URL's password."""
    where = engine.url.render_as_string(hide_password=True)
    cause = str(getattr(error, "orig", None) or error).strip()
    if isinstance(error, OperationalError | ProgrammingError) and any(text in cause for text in _MISSING):
        return NotFoundError(
            f"the ledger {where} does not exist yet: it is made when the detector starts (`tenure up`)"
        )
    return UnreachableError(f"the ledger {where}: {cause}; is its database up?")
