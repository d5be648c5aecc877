"""What leaves the ledger for the object store: Parquet files, partitioned by day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from clients.ledger.instant import from_us
from clients.ledger.schema import exports, labels, predictions
from clients.store import Store
from serving.detector.errors import LedgerError
from serving.detector.writer import Writer, insert_new

ROWS = 20_000
"""Rows that are read and stored at once: some tens of megabytes of memory."""

_LOCK = 0x7E40_0003
"""PostgreSQL's advisory lock of whoever exports: two at once would overwrite each other's files."""


@dataclass(frozen=True)
class Kind:
    """What is exported, and the column whose time decides on the day."""

    name: str
    table: Table
    day: str
    times: tuple[str, ...]


KINDS = (
    Kind("predictions", predictions, "time", ("time", "recorded_at")),
    Kind("labels", labels, "known_at", ("true_at", "known_at", "recorded_at")),
)


class Exporter:
    """Stores the rows of predictions and labels that are new since the last export.

    A file is named after the number of the first row that it may hold. The ledger remembers a step when all
    its files are stored, so whoever begins anew after a crash writes the same names again, with the same
    rows and perhaps some newer ones: none is lost, and none is in two files.

    Args:
        engine: Read only.
        writer: Records what was stored.
        store: Where to.
        clock: Microseconds of now.
    """

    def __init__(self, engine: Engine, writer: Writer, store: Store, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._writer = writer
        self._store = store
        self._clock = clock

    def export(self, kind: Kind, is_stopped: Callable[[], bool] = lambda: False) -> int:
        """Store everything that is new, step by step; returns how many rows.

        Raises:
            LedgerError: The ledger cannot be read or written.
            clients.errors.ClientError: The store.
        """
        total = 0
        with self._claim() as mine:
            while mine and not is_stopped():
                rows = self._export_some(kind)
                if not rows:
                    break
                total += rows
        return total

    def find_last(self, kind: Kind) -> int:
        """Return the last row (`seq`) that is stored; 0 before the first.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        query = select(func.coalesce(func.max(exports.c.last_seq), 0)).where(exports.c.kind == kind.name)
        with read(self._engine) as connection:
            return int(connection.execute(query).scalar_one())

    def _export_some(self, kind: Kind) -> int:
        last = self.find_last(kind)
        query = select(kind.table).where(kind.table.c.seq > last).order_by(kind.table.c.seq).limit(ROWS)
        with read(self._engine) as connection:
            rows = connection.execute(query).all()
        if not rows:
            return 0
        days: defaultdict[date, list[Any]] = defaultdict(list)
        for row in rows:
            days[from_us(getattr(row, kind.day)).date()].append(row)
        stored = []
        for day, some in sorted(days.items()):
            uri = f"s3://{self._store.bucket}/ledger/{kind.name}/day={day}/{last + 1:020d}.parquet"
            self._store.put_bytes(_encode(kind, some), uri)
            stored.append(
                {
                    "uri": uri,
                    "kind": kind.name,
                    "last_seq": rows[-1].seq,
                    "rows": len(some),
                    "created_at": self._clock(),
                }
            )
        with self._writer.begin() as connection:
            insert_new(connection, exports, stored)
        return len(rows)

    @contextmanager
    def _claim(self) -> Iterator[bool]:
        """Hold the right to export; whether nobody else does. SQLite has one detector."""
        with read(self._engine) as connection:
            if connection.dialect.name != "postgresql":
                yield True
                return
            key = {"key": _LOCK}
            mine = bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar())
            connection.commit()
            try:
                yield mine
            finally:
                if mine:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """Enter a transaction that reads.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerError(f"the ledger cannot be read: {str(cause).strip()}; is its database up?") from error


def _encode(kind: Kind, rows: Sequence[Any]) -> bytes:
    """Return rows as Parquet, the same rows as the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    fields = []
    for column in kind.table.columns:
        moment = pa.timestamp("us", tz="UTC")
        fields.append(
            pa.field(column.name, moment if column.name in kind.times else types[column.type.python_type])
        )
    arrays = [
        pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), fields, strict=True)
    ]
    output = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=pa.schema(fields)), output, compression="zstd", version="2.6"
    )
    return bytes(output.getvalue().to_pybytes())
