"""The ledger as everybody but the detector sees it: read only, and always one consistent state."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sqlalchemy import ColumnElement, Connection, Engine, Select, func, select
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError

from clients.errors import ClientError, NotFoundError, UnreachableError
from clients.ledger import schema
from clients.ledger.engine import open_engine
from clients.ledger.instant import from_us, to_us
from clients.settings import Settings
from tenure.outcome import join_outcomes

if TYPE_CHECKING:
    import pandas as pd

_PREDICTION_TIMES = ("time",)
_MISSING = ("no such table", "does not exist")


@dataclass(frozen=True)
class TransitionRecord:
    """What the pilot did at a time.

    Attributes:
        shares: Percent of the customers by version from `at` on.
        evidence: What it was decided by.
    """

    id: str
    service: str
    at: datetime
    outcome: str
    shares: dict[str, int]
    reason: str
    evidence: dict[str, Any]


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
        query = _select_predictions(service, version, after_seq, since, until, features)
        if customer is not None:
            query = query.where(schema.predictions.c.customer_id == customer)
        with self._read() as connection:
            return _fetch_predictions(connection, query, limit, newest)

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
        query = _select_predictions(service, version, after_seq, since, until, features)
        with self._read() as connection:
            found = _fetch_predictions(connection, query.where(schema.predictions.c.customer_id.is_not(None)))
            times = found["time"]
            spans = (
                (times.min().to_pydatetime(), times.max().to_pydatetime() + horizon) if len(found) else None
            )
            labels = _fetch_labels(connection, service, as_of=as_of, true=spans) if spans else None
        if labels is None:
            labels = _frame([], _LABEL_COLUMNS, ("true_at", "known_at"))
        joined = join_outcomes(found, labels, horizon, as_of)
        known = joined["outcome"].notna()
        return found.assign(outcome=joined["outcome"], matured_at=joined["matured_at"])[known].reset_index(
            drop=True
        )

    def read_labels(
        self,
        service: str,
        *,
        as_of: datetime | None = None,
        since: datetime | None = None,
        customer: str | None = None,
    ) -> pd.DataFrame:
        """Return labels that were known at `as_of` and not before `since`, in the order of their arrival.

        Returns:
            Columns seq, customer_id, outcome, true_at and known_at (both datetime64[us, UTC]).
        """
        with self._read() as connection:
            return _fetch_labels(connection, service, as_of=as_of, since=since, customer=customer)

    def count_predictions(
        self,
        service: str,
        version: str | None = None,
        after_seq: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> int:
        """Return how many predictions `read_predictions` would."""
        rows = _select_predictions(service, version, after_seq, since, until, False).subquery()
        return self._count(select(func.count()).select_from(rows))

    def find_last_seq(self, service: str) -> int:
        """Return the newest prediction's `seq`; 0 without any."""
        table = schema.predictions.c
        return self._count(select(func.coalesce(func.max(table.seq), 0)).where(table.service == service))

    def read_transitions(self, service: str) -> list[TransitionRecord]:
        """Return what the pilot did, oldest first."""
        table = schema.transitions
        query = select(table).where(table.c.service == service).order_by(table.c.at, table.c.recorded_at)
        with self._read() as connection:
            return [_restore_transition(row) for row in connection.execute(query)]

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
    ) -> pd.DataFrame:
        """Return the newest verdicts, oldest first.

        Returns:
            The table's columns; since, until and created_at as datetime64[us, UTC], verdict as a dict.
        """
        table = schema.verdicts
        query = select(table).where(table.c.service == service)
        if version is not None:
            query = query.where(table.c.version == version)
        if family is not None:
            query = query.where(table.c.family == family)
        with self._read() as connection:
            rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit)).all()
        frame = _frame(rows[::-1], table.c.keys(), ("since", "until", "created_at"))
        return _parse(frame, "verdict")

    def read_causes(self, service: str, states: Collection[str] | None = None) -> pd.DataFrame:
        """Return the causes of runs, oldest first, in these states only.

        Returns:
            The table's columns; created_at and updated_at as datetime64[us, UTC], detail and arguments (None
            before the run is submitted) as dicts.
        """
        table = schema.causes
        query = select(table).where(table.c.service == service)
        if states is not None:
            query = query.where(table.c.state.in_(list(states)))
        with self._read() as connection:
            rows = connection.execute(query.order_by(table.c.created_at, table.c.id)).all()
        frame = _frame(rows, table.c.keys(), ("created_at", "updated_at"))
        return _parse(_parse(frame, "detail"), "arguments")

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


_LABEL_COLUMNS = ("seq", "customer_id", "outcome", "true_at", "known_at")


def expand_features(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the features of `read_predictions` by name, each of shape [rows], objects with None for missing."""
    rows = list(frame["features"])
    columns = {}
    for name in names:
        column = np.empty(len(rows), dtype=object)
        column[:] = [row.get(name) for row in rows]
        columns[name] = column
    return columns


def _select_predictions(
    service: str,
    version: str | None,
    after_seq: int,
    since: datetime | None,
    until: datetime | None,
    features: bool,
) -> Select[Any]:
    table = schema.predictions.c
    columns: list[ColumnElement[Any]] = [
        table.seq,
        table.event_id,
        table.row,
        table.customer_id,
        table.version,
        table.time,
        table.score,
        table.churn,
        table.latency_ms,
    ]
    query = select(*columns, *([table.features] if features else [])).where(table.service == service)
    if version is not None:
        query = query.where(table.version == version)
    if after_seq:
        query = query.where(table.seq > after_seq)
    if since is not None:
        query = query.where(table.time >= to_us(since))
    if until is not None:
        query = query.where(table.time < to_us(until))
    return query


def _fetch_predictions(
    connection: Connection, query: Select[Any], limit: int | None = None, newest: bool = False
) -> pd.DataFrame:
    seq = schema.predictions.c.seq
    result = connection.execute(query.order_by(seq.desc() if newest else seq).limit(limit))
    rows = result.all()
    frame = _frame(rows[::-1] if newest else rows, list(result.keys()), _PREDICTION_TIMES)
    kinds: dict[str, Any] = {
        "seq": np.int64,
        "row": np.int64,
        "score": float,
        "churn": bool,
        "latency_ms": float,
    }
    frame = frame.astype(kinds)
    return _parse(frame, "features") if "features" in frame else frame


def _fetch_labels(
    connection: Connection,
    service: str,
    *,
    as_of: datetime | None = None,
    since: datetime | None = None,
    true: tuple[datetime, datetime] | None = None,
    customer: str | None = None,
) -> pd.DataFrame:
    """Read labels; `true` bounds when they became true, both ends included."""
    table = schema.labels.c
    query = select(*(table[name] for name in _LABEL_COLUMNS)).where(table.service == service)
    if as_of is not None:
        query = query.where(table.known_at <= to_us(as_of))
    if since is not None:
        query = query.where(table.known_at >= to_us(since))
    if true is not None:
        query = query.where(table.true_at.between(to_us(true[0]), to_us(true[1])))
    if customer is not None:
        query = query.where(table.customer_id == customer)
    rows = connection.execute(query.order_by(table.seq)).all()
    return _frame(rows, _LABEL_COLUMNS, ("true_at", "known_at"))


def _frame(rows: Sequence[Any], columns: Sequence[str], times: Sequence[str]) -> pd.DataFrame:
    """Build a frame whose integers of microseconds become datetime64[us, UTC]; texts stay objects."""
    import pandas as pd

    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    frame = pd.DataFrame(index=pd.RangeIndex(len(rows)))
    for name, column in zip(columns, values, strict=True):
        if name in times:
            moments = np.array(column, dtype=np.int64).astype("datetime64[us]")
            frame[name] = pd.Series(moments).dt.tz_localize("UTC")
        else:
            frame[name] = pd.Series(
                column, dtype=None if column and isinstance(column[0], int | float) else object
            )
    return frame


def _parse(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Turn a column of JSON into what it says."""
    import pandas as pd

    texts = [text if text is not None else "null" for text in frame[name]]
    # One call for all: the parser's own work is all that remains.
    return frame.assign(
        **{name: pd.Series(json.loads(f"[{','.join(texts)}]"), index=frame.index, dtype=object)}
    )


def _restore_transition(row: Any) -> TransitionRecord:
    return TransitionRecord(
        id=row.id,
        service=row.service,
        at=from_us(row.at),
        outcome=row.outcome,
        shares=json.loads(row.shares),
        reason=row.reason,
        evidence=json.loads(row.evidence),
    )


def _explain(error: SQLAlchemyError, engine: Engine) -> ClientError:
    """Return our exception; never the URL's password."""
    where = engine.url.render_as_string(hide_password=True)
    cause = str(getattr(error, "orig", None) or error).strip()
    if isinstance(error, OperationalError | ProgrammingError) and any(text in cause for text in _MISSING):
        return NotFoundError(
            f"the ledger {where} does not exist yet: it is made when the detector starts (`tenure up`)"
        )
    return UnreachableError(f"the ledger {where}: {cause}; is its database up?")
