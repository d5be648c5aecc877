"""The ledger's rows as frames: queries of predictions and labels, and the types of their columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, select

from clients.ledger import schema
from clients.ledger.instant import to_us

if TYPE_CHECKING:
    import pandas as pd

LABEL_COLUMNS = ("seq", "customer_id", "outcome", "true_at", "known_at")


def select_predictions(
    service: str,
    version: str | None,
    after_seq: int,
    since: datetime | None,
    until: datetime | None,
    features: bool,
) -> Select[Any]:
    """Build the query of predictions; see `Ledger.read_predictions`."""
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


def fetch_predictions(
    connection: Connection, query: Select[Any], limit: int | None = None, newest: bool = False
) -> pd.DataFrame:
    """Run a query of `select_predictions`; `limit` keeps the oldest rows, or the newest."""
    seq = schema.predictions.c.seq
    result = connection.execute(query.order_by(seq.desc() if newest else seq).limit(limit))
    rows = result.all()
    frame = make_frame(rows[::-1] if newest else rows, list(result.keys()), ("time",))
    kinds: dict[str, Any] = {
        "seq": np.int64,
        "row": np.int64,
        "score": float,
        "churn": bool,
        "latency_ms": float,
    }
    frame = frame.astype(kinds)
    return parse_column(frame, "features") if "features" in frame else frame


def fetch_labels(
    connection: Connection,
    service: str,
    *,
    as_of: datetime | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    customer: str | None = None,
) -> pd.DataFrame:
    """Read labels that were known at `as_of` and became true from `since` to `until`, both included."""
    table = schema.labels.c
    query = select(*(table[name] for name in LABEL_COLUMNS)).where(table.service == service)
    if as_of is not None:
        query = query.where(table.known_at <= to_us(as_of))
    if since is not None:
        query = query.where(table.true_at >= to_us(since))
    if until is not None:
        query = query.where(table.true_at <= to_us(until))
    if customer is not None:
        query = query.where(table.customer_id == customer)
    rows = connection.execute(query.order_by(table.seq)).all()
    return make_frame(rows, LABEL_COLUMNS, ("true_at", "known_at"))


def make_frame(rows: Sequence[Any], columns: Sequence[str], times: Sequence[str]) -> pd.DataFrame:
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


def parse_column(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Turn a column of JSON into what it says."""
    import pandas as pd

    texts = [text if text is not None else "null" for text in frame[name]]
    # One call for all: the parser's own work is all that remains.
    return frame.assign(
        **{name: pd.Series(json.loads(f"[{','.join(texts)}]"), index=frame.index, dtype=object)}
    )
