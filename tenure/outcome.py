"""Which outcome belongs to a prediction, as of any moment, and what it says."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from tenure.contract import Type
from tenure.normalisation import TRUE_TEXTS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tenure.contract import Contract

Array = np.ndarray[Any, Any]


def join_outcomes(
    predictions: pd.DataFrame, labels: pd.DataFrame, horizon: timedelta, as_of: datetime
) -> pd.DataFrame:
    """Find each prediction's outcome among the labels of its customer.

    A label counts if it became true after the prediction and at most `horizon` later, and if it was true and
    known at `as_of`. Of several the one that became true last wins, then the one that was known last, then
    the greatest outcome: a rule on the labels' content alone, so that the order in which they arrived, and
    how often, changes nothing. An outcome once known stays known as `as_of` grows; a later label may
    correct it.

    Args:
        predictions: Columns customer_id (None if unknown) and time (datetime64 with a time zone).
        labels: Columns customer_id, outcome, true_at and known_at (both like time).
        horizon: How long after a prediction an outcome still belongs to it.
        as_of: The moment from which is looked back.

    Returns:
        The predictions' index; outcome (object, None if there is none yet) and matured_at (when the outcome
        was both true and known; datetime64[us, UTC], NaT if there is none).
    """
    import pandas as pd

    outcomes = np.full(len(predictions), None, dtype=object)
    matured = np.full(len(predictions), np.datetime64("NaT"), dtype="datetime64[us]")
    true_at, known_at = _to_us(labels["true_at"]), _to_us(labels["known_at"])
    now = np.int64(_to_us(pd.Series([pd.Timestamp(as_of)]))[0])
    seen = (true_at <= now) & (known_at <= now) & labels["customer_id"].notna().to_numpy()
    if len(predictions) and seen.any():
        customers = labels["customer_id"].to_numpy(dtype=object)[seen]
        codes, names = pd.factorize(customers)
        true_at, known_at = true_at[seen], known_at[seen]
        values = labels["outcome"].to_numpy(dtype=object)[seen]
        order = _sort(codes, true_at, known_at, values)
        codes, true_at, known_at, values = codes[order], true_at[order], known_at[order], values[order]
        asked = _to_us(predictions["time"])
        latest = asked + horizon // timedelta(microseconds=1)
        owners = pd.Index(names).get_indexer(pd.Index(predictions["customer_id"], dtype=object))
        place = _find_last(codes, true_at, owners, latest)
        # A customer without labels finds the one before it; so does one whose labels are all later.
        found = (owners >= 0) & (place >= 0)
        found &= (codes[place] == owners) & (true_at[place] > asked)
        chosen = place[found]
        outcomes[found] = values[chosen]
        matured[found] = np.maximum(true_at[chosen], known_at[chosen]).astype("datetime64[us]")
    return pd.DataFrame(
        {"outcome": outcomes, "matured_at": pd.Series(matured).dt.tz_localize("UTC").array},
        index=predictions.index,
    )


def encode_outcomes(outcomes: Iterable[str], contract: Contract) -> NDArray[np.float64]:
    """Return 1 for those who left and 0 for the others, shape [rows].

    A boolean label's outcomes are texts here, and mean what they would mean in a file to train on.
    """
    label = contract.label
    if label.type is Type.BOOLEAN:
        return np.array([float(outcome.strip().lower() in TRUE_TEXTS) for outcome in outcomes])
    return np.array([float(outcome == label.positive) for outcome in outcomes])


def _sort(codes: Array, true_at: Array, known_at: Array, values: Array) -> Array:
    """Return the order by customer, then by who wins: the last of a customer's labels."""
    ranks = np.unique(values.astype(str), return_inverse=True)[1]
    return np.lexsort((ranks, known_at, true_at, codes))


def _find_last(codes: Array, true_at: Array, owners: Array, latest: Array) -> Array:
    """Return for each (owner, latest) the last place whose (code, true_at) is not greater; -1 if none is.

    Both keys fit no 64 bits together, so times are replaced by their ranks.
    """
    moments = np.unique(true_at)
    width = np.int64(len(moments) + 1)
    keys = codes.astype(np.int64) * width + np.searchsorted(moments, true_at, side="right")
    wanted = owners.astype(np.int64) * width + np.searchsorted(moments, latest, side="right")
    return np.asarray(np.searchsorted(keys, wanted, side="right") - 1)


def _to_us(times: pd.Series[Any]) -> Array:
    """Return microseconds since 1970, shape [rows]."""
    moments = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    return np.asarray(moments.astype(np.int64), dtype=np.int64)
