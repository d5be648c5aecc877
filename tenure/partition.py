"""Who is trained on, who is judged on, who is simulated: three parts of the customers, fixed for ever."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.contract import Contract, Type
from tenure.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from tenure.project import Split


class Part(StrEnum):
    """A part of the customers."""

    TRAIN = "train"
    HELD_OUT = "held_out"
    STREAM = "stream"


def assign_parts(frame: pd.DataFrame, contract: Contract, split: Split, salt: str) -> NDArray[np.str_]:
    """Say for each row of a canonical frame which part it belongs to.

    Without a time column the id alone decides, so that a customer keeps the part in every later snapshot.
    With one, rows go by age: the oldest train, the next are held out, the newest are streamed; rows of the
    same time are ordered by the hash of their id, and rows without a time count as oldest. Neither depends
    on the order of the rows.

    Args:
        frame: Rows with the contract's id and, if it has one, its time column.
        contract: Names those columns.
        split: The three shares.
        salt: The project's name: two projects over the same customers split them independently.

    Returns:
        Array of shape [rows] holding `Part` values.

    Raises:
        ContractError: The id or time column is missing, or an id is.
    """
    wanted = [contract.id] if contract.time is None else [contract.id, contract.time]
    for column in wanted:
        if column.name not in frame.columns:
            raise ContractError(
                f"column {column.name!r} ({column.role}) is missing: rows cannot be split without it"
            )
    hashes = hash_ids(frame[contract.id.name], salt, integer=contract.id.type is Type.INTEGER)
    # Rounding may leave train + held_out a hair under 1: without a stream the last share has no upper end.
    edges = (split.train, split.train + split.held_out if split.stream else 1.0)
    if contract.time is None:
        positions = hashes
    else:
        times = _count_nanoseconds(frame[contract.time.name])
        order = np.lexsort((hashes, times))
        positions = np.empty(len(order), dtype=np.float64)
        positions[order] = np.arange(len(order)) / max(len(order), 1)
    parts = np.array([Part.TRAIN.value, Part.HELD_OUT.value, Part.STREAM.value])
    # `positions` may be a rounding error under an edge that is meant to be met: 0.6 * 5 rows are 3 rows.
    index = np.searchsorted(np.asarray(edges), positions + (0.0 if contract.time is None else 1e-9), "right")
    return parts[np.minimum(index, 2)]


def hash_ids(ids: Iterable[Any], salt: str, *, integer: bool = False) -> NDArray[np.float64]:
    """Map each id to [0, 1): the first 53 bits of SHA-256 over `salt:id`.

    Args:
        ids: The ids; integers count by their decimal digits.
        salt: Goes before the id, so that different salts give independent numbers.
        integer: The ids are integers, however they are stored (3, 3.0 and numpy's 3 are the same id).

    Returns:
        Array of shape [ids].

    Raises:
        ContractError: An id is missing.
    """
    prefix = hashlib.sha256(f"{salt}:".encode())
    numbers = []
    for position, value in enumerate(ids):
        if value is None or value != value:  # None or NaN
            raise ContractError(f"the id in row {position} is missing: validate the rows first")
        hasher = prefix.copy()
        hasher.update(str(int(value) if integer else value).encode())
        numbers.append(int.from_bytes(hasher.digest()[:8], "big") >> 11)
    return np.array(numbers, dtype=np.float64) / 2.0**53


def _count_nanoseconds(times: pd.Series[Any]) -> NDArray[np.int64]:
    """Return timestamps as integers; a missing one becomes the smallest integer, thus the oldest."""
    import pandas as pd

    stamps = pd.to_datetime(times, utc=True)
    numbers: NDArray[np.int64] = stamps.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    return numbers
