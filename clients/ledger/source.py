"""Customers of the ledger as training rows: `ledger://SERVICE?days=30&since=ISO&until=ISO&min_rows=N`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from clients.errors import NotFoundError
from clients.ledger.instant import parse_time
from clients.ledger.reader import Ledger
from clients.settings import Settings
from tenure.contract import Column, Contract, Type
from tenure.errors import SourceError
from tenure.normalisation import normalise_truth

if TYPE_CHECKING:
    import pandas as pd

SCHEME = "ledger://"
DAYS = 30.0
"""How far back a source looks that does not say."""

_FORM = f"the form is {SCHEME}SERVICE?days=30&since=ISO&until=ISO&min_rows=N"


@dataclass(frozen=True)
class Address:
    """Which predictions of a service are meant: those asked from `since` up to, but not including, `until`.

    Attributes:
        min_rows: How many customers there must be.
    """

    service: str
    since: datetime
    until: datetime
    min_rows: int


def parse_address(text: str, now: datetime | None = None) -> Address:
    """Read a source's address. `until` is now if it is not said, and `since` is `days` before it.

    Raises:
        SourceError: It has another form.
    """
    parts = urlsplit(text)
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise SourceError(f"{text}: {error}: {_FORM}") from error
    options = dict(pairs)
    unknown = sorted(options.keys() - {"days", "since", "until", "min_rows"})
    if parts.scheme != "ledger" or not parts.netloc or parts.path.strip("/") or unknown:
        raise SourceError(f"{text}: {_FORM}" + (f"; {', '.join(unknown)} is unknown" if unknown else ""))
    if len(options) != len(pairs) or {"days", "since"} <= options.keys():
        raise SourceError(f"{text}: say each option once, and either days or since")
    name = ""
    try:
        until, since = now or datetime.now(UTC), None
        for name, value in options.items():
            # A + in a query is a blank to whoever reads it, and was a time zone's sign to whoever wrote it.
            if name == "until":
                until = parse_time(value.replace(" 0", "+0"))
            elif name == "since":
                since = parse_time(value.replace(" 0", "+0"))
        name = "days"
        since = since or until - timedelta(days=float(options.get("days", DAYS)))
        name = "min_rows"
        min_rows = int(options.get("min_rows", "1"))
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{text}: {name} cannot be read ({error}): {_FORM}") from error
    if since >= until or min_rows < 1:
        raise SourceError(f"{text}: since must be before until, and min_rows at least 1")
    return Address(parts.netloc, since, until, min_rows)


def read_customers(settings: Settings, text: str, contract: Contract, horizon: timedelta) -> pd.DataFrame:
    """Return each customer's latest prediction whose outcome was known at `until`, as a row to learn from.

    The same address (with since and until) and the same content of the ledger give the same frame, in
    whatever order that content arrived.

    Args:
        settings: Where the ledger is.
        text: The source's address.
        contract: Names the columns.
        horizon: How long after a prediction an outcome still belongs to it.

    Returns:
        The contract's columns, ordered by customer. A feature whose values are all of its type is of that
        type; any other is text, for validation to judge row by row.

    Raises:
        SourceError: The address, no ledger, or too few customers.
        clients.errors.UnreachableError: The ledger's database does not answer.
    """
    address = parse_address(text)
    try:
        ledger = Ledger.connect(settings)
        rows = ledger.read_outcomes(
            address.service,
            as_of=address.until,
            horizon=horizon,
            since=address.since,
            until=address.until,
            features=True,
        )
        ledger.close()
    except NotFoundError as error:
        raise SourceError(f"{text}: {error}") from error
    # Not by seq, which is the order of arrival.
    rows = rows.sort_values(["customer_id", "time", "event_id", "row"], kind="stable")
    rows = rows.drop_duplicates("customer_id", keep="last").reset_index(drop=True)
    if len(rows) < address.min_rows:
        raise SourceError(
            f"{text}: {len(rows)} customers have a known outcome, {address.min_rows} are needed: wait for "
            "more labels (`tenure labels add`), or look further back"
        )
    return _arrange(rows, contract)


def _arrange(rows: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {}
    for column in contract.columns:
        if column is contract.id:
            columns[column.name] = rows["customer_id"].astype(object)
        elif column is contract.label:
            columns[column.name] = rows["outcome"].astype(object)
        elif column is contract.time:
            columns[column.name] = rows["time"]
        else:
            columns[column.name] = _type([row.get(column.name) for row in rows["features"]], column)
    return pd.DataFrame(columns, index=rows.index)


def _type(values: list[Any], column: Column) -> pd.Series[Any]:
    import pandas as pd

    kinds, dtype = _TYPES[column.type]
    if column.type is Type.BOOLEAN:
        values = [normalise_truth(value) for value in values]
    # In Python a boolean is an integer; here it is not.
    if all(value is None or type(value) in kinds for value in values):
        if column.type is Type.FLOAT:
            values = [None if value is None else float(value) for value in values]
        return pd.Series(values, dtype=dtype)
    return pd.Series([_write(value) for value in values], dtype=object)


_TYPES: dict[Type, tuple[tuple[type, ...], Any]] = {
    Type.STRING: ((str,), object),
    Type.FLOAT: ((float, int), "float64"),
    Type.INTEGER: ((int,), "Int64"),
    Type.BOOLEAN: ((bool,), "boolean"),
    Type.TIMESTAMP: ((str,), object),
}


def _write(value: Any) -> str | None:
    """Return a value as text that validation reads."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)
