"""The snapshot: what one ingest read, as an immutable Parquet file named by the SHA-256 of its bytes."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenure.contract import Contract
from tenure.errors import SourceError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_source(path: Path, format: str | None, contract: Contract) -> pd.DataFrame:
    """Read the customers as they stand in the file; what they mean is validation's business.

    CSV (RFC 4180, comma, UTF-8 with or without a byte order mark): every cell is a string, an empty or blank
    one None. A cut is noticed unless it falls between two lines or into the last field of a line, where CSV
    cannot tell. Parquet keeps its types. A contract whose id is numbered by row order gets the ids
    `row-0000001`, `row-0000002` and so on, unless the file has that column already.

    Args:
        path: A local file.
        format: "csv" or "parquet"; None goes by the file's suffix.
        contract: Tells a header from a row of data.

    Returns:
        One row per customer, with all columns of the file.

    Raises:
        SourceError: The file cannot be opened, is empty, truncated, not UTF-8, of an unknown format, or has
            no header, no rows or one column name twice.
    """
    if format is None:
        format = SUFFIXES.get(path.suffix.lower())
        if format is None:
            raise SourceError(
                f"{path}: the suffix {path.suffix!r} is unknown ({', '.join(SUFFIXES)}): set source.format"
            )
    if format not in ("csv", "parquet"):
        raise SourceError(f"{path}: the format {format!r} is unknown, allowed are csv and parquet")
    try:
        size = path.stat().st_size
        if path.is_file() and size == 0:
            raise SourceError(f"{path}: the file is empty")
        frame = _read_csv(path, contract) if format == "csv" else _read_parquet(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error
    _check_header([str(name) for name in frame.columns], path, contract)
    if len(frame) == 0:
        raise SourceError(f"{path}: has a header but no rows")
    identifier = contract.id
    if identifier.from_row_order and identifier.name not in frame.columns:
        ids = [f"row-{number:07d}" for number in range(1, len(frame) + 1)]
        frame.insert(0, identifier.name, ids)
    return frame


def write_snapshot(frame: pd.DataFrame, path: Path) -> str:
    """Write a frame as Parquet; the same frame gives the same bytes wherever the same pyarrow runs.

    The file appears whole or not at all. The frame's index is not kept.

    Returns:
        SHA-256 of the file's bytes, in hex.

    Raises:
        SourceError: A column mixes types that Parquet cannot hold together.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = []
    for name in frame.columns:
        try:
            columns.append(pa.Array.from_pandas(frame[name]))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise SourceError(f"column {name!r} mixes types and cannot be stored: {error}") from error
    # Built by hand: a table made from a frame would carry the versions of pandas and pyarrow in its metadata.
    table = pa.table([_flatten(column) for column in columns], names=[str(name) for name in frame.columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        pq.write_table(
            table, temporary, compression="zstd", version="2.6", row_group_size=1 << 17, use_dictionary=True
        )
        digest = _hash_file(Path(temporary))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return digest


def read_snapshot(path: Path) -> pd.DataFrame:
    """Read what `write_snapshot` wrote: strings as objects with None, nullable integers and booleans.

    Raises:
        SourceError: The file is missing, truncated or no Parquet.
    """
    try:
        return _read_parquet(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_csv(path: Path, contract: Contract) -> pd.DataFrame:
    """Read a CSV strictly: pandas' reader would fill a short row and swallow an open quote."""
    import pandas as pd

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path}: is not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}): "
            "save it as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceError(f"{path}: line {line} holds a NUL byte: it is damaged, or not UTF-8 text")
    if not text.strip():
        raise SourceError(f"{path}: the file is empty")
    _check_separator(text.lstrip().split("\n", 1)[0], path, contract)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    header: list[str] = []
    try:
        for row in reader:
            if not row:
                continue
            if not header:
                header = row
                _check_header(header, path, contract)
            elif len(row) != len(header):
                raise SourceError(
                    f"{path}: line {reader.line_num} has {len(row)} fields where the header has "
                    f"{len(header)}: the file is truncated or damaged"
                )
            else:
                rows.append(row)
    except csv.Error as error:
        cause = "a quote is never closed" if "end of data" in str(error) else str(error)
        raise SourceError(
            f"{path}: line {reader.line_num}: {cause}: the file is truncated or damaged"
        ) from error
    cells = zip(*rows, strict=True) if rows else [()] * len(header)
    columns = {
        name: pd.Series([cell if cell and not cell.isspace() else None for cell in column], dtype=object)
        for name, column in zip(header, cells, strict=True)
    }
    return pd.DataFrame(columns, columns=pd.Index(header))


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file with types that can say missing; whatever pandas wrote beside them is ignored."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as handle:
            file = pq.ParquetFile(handle)
            _check_doubles(file.schema_arrow.names, path)
            table = file.read()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"{path}: is no Parquet file, or truncated: {error}") from error
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True, types_mapper=_map_types(pa))
    return frame


def _map_types(arrow: Any) -> Any:
    """Return the mapping from Arrow types to pandas types that keep a missing integer or boolean."""
    import pandas as pd

    mapping: dict[Any, Any] = {arrow.bool_(): pd.BooleanDtype()}
    for bits in (8, 16, 32, 64):
        mapping[getattr(arrow, f"int{bits}")()] = pd.Int64Dtype()
        mapping[getattr(arrow, f"uint{bits}")()] = pd.UInt64Dtype() if bits == 64 else pd.Int64Dtype()
    return mapping.get


def _flatten(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn dictionary-encoded values (pandas' categories) into plain ones."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def _check_header(header: list[str], path: Path, contract: Contract) -> None:
    """Refuse a first line that is no header of this contract."""
    wanted = {column.name for column in contract.columns}
    if wanted.isdisjoint(header):
        shown = ", ".join(repr(name[:30]) for name in header[:5])
        raise SourceError(
            f"{path}: the first line ({shown}) names no column of the contract: add a header line, or check "
            "source.uri"
        )
    _check_doubles(header, path)


def _check_separator(line: str, path: Path, contract: Contract) -> None:
    """Refuse a header whose fields are separated by something else than commas."""
    wanted = {column.name for column in contract.columns}
    for separator, name in _SEPARATORS.items():
        fields = [field.strip().strip('"') for field in line.split(separator)]
        if "," not in line and len(fields) > 1 and not wanted.isdisjoint(fields):
            raise SourceError(f"{path}: its fields are separated by {name}: save it with commas")


def _check_doubles(header: list[str], path: Path) -> None:
    """Refuse a name that stands twice in the header."""
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise SourceError(f"{path}: the header names {', '.join(map(repr, doubled))} more than once")


def _hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
