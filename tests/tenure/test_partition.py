"""The split of the customers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.contract import Contract
from tenure.errors import ContractError
from tenure.partition import Part, assign_parts, hash_ids
from tenure.project import Project, Split

TIME = {"name": "at", "role": "time", "type": "timestamp", "nullable": True}


def test_telco_splits_near_its_shares(telco: pd.DataFrame, project: Project) -> None:
    parts = assign_parts(telco, project.contract, project.split, project.name)
    shares = pd.Series(parts).value_counts(normalize=True)
    assert set(shares.index) == {"train", "held_out", "stream"}
    for part, share in (("train", 0.6), ("held_out", 0.25), ("stream", 0.15)):
        # four standard errors of a share of 7,043
        assert shares[part] == pytest.approx(share, abs=4 * (share * (1 - share) / len(telco)) ** 0.5)
    assert (parts == Part.TRAIN).sum() + (parts == Part.HELD_OUT).sum() + (parts == Part.STREAM).sum() == 7043


def test_a_customer_keeps_the_part_in_any_snapshot(telco: pd.DataFrame, project: Project) -> None:
    contract, split = project.contract, project.split
    whole = pd.Series(assign_parts(telco, contract, split, project.name), index=telco["customer_id"])
    sample = telco.sample(frac=0.3, random_state=1)
    parts = assign_parts(sample, contract, split, project.name)
    assert (whole[sample["customer_id"]].to_numpy() == parts).all()


def test_another_project_splits_independently(telco: pd.DataFrame, project: Project) -> None:
    here = assign_parts(telco, project.contract, project.split, "here")
    there = assign_parts(telco, project.contract, project.split, "there")
    both = ((here == "held_out") & (there == "held_out")).mean()
    assert both == pytest.approx(0.25**2, abs=0.012)


def test_the_hash_is_the_documented_one() -> None:
    digest = hashlib.sha256(b"salt:row-0000001").digest()
    expected = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
    assert hash_ids(["row-0000001"], "salt").tolist() == [expected]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(), max_size=20), st.text())
def test_hashes_lie_below_one(ids: list[str], salt: str) -> None:
    numbers = hash_ids(ids, salt)
    assert numbers.shape == (len(ids),)
    assert ((numbers >= 0) & (numbers < 1)).all()


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(-(2**53), 2**53), max_size=20))
def test_an_integer_id_hashes_alike_however_it_is_stored(ids: list[int]) -> None:
    plain = hash_ids(ids, "salt", integer=True)
    assert (plain == hash_ids(np.array(ids, dtype=np.float64), "salt", integer=True)).all()
    assert (plain == hash_ids(pd.Series(ids, dtype="Int64"), "salt", integer=True)).all()
    assert (plain == hash_ids([str(number) for number in ids], "salt")).all()


def test_a_zero_share_stays_empty(telco: pd.DataFrame, project: Project) -> None:
    for train in (0.1, 0.7, 0.9):
        split = Split(train=train, held_out=1 - train, stream=0)
        parts = assign_parts(telco, project.contract, split, project.name)
        assert set(parts) == {"train", "held_out"}


def test_oldest_train_and_newest_stream(make_contract: Callable[..., Contract]) -> None:
    contract = make_contract(TIME)
    frame = pd.DataFrame(
        {
            "id": [f"c{number}" for number in range(20)],
            "at": pd.date_range("2024-01-01", periods=20, tz="UTC"),
        }
    )
    shuffled = frame.sample(frac=1, random_state=3)
    shuffled["part"] = assign_parts(shuffled, contract, Split(), "p")
    ordered = shuffled.sort_values("at")["part"].tolist()
    assert ordered == ["train"] * 12 + ["held_out"] * 5 + ["stream"] * 3


def test_rows_of_one_time_and_without_a_time(make_contract: Callable[..., Contract]) -> None:
    contract = make_contract(TIME)
    frame = pd.DataFrame(
        {"id": [f"c{number}" for number in range(100)], "at": pd.Timestamp("2024-01-01", tz="UTC")}
    )
    frame.loc[90:, "at"] = pd.NaT
    parts = assign_parts(frame, contract, Split(), "p")
    assert pd.Series(parts).value_counts().to_dict() == {"train": 60, "held_out": 25, "stream": 15}
    assert set(parts[90:]) == {"train"}
    order = frame.sample(frac=1, random_state=5)
    assert (assign_parts(order, contract, Split(), "p") == parts[order.index]).all()


@pytest.mark.parametrize("columns", [[], [TIME]])
def test_no_rows_have_no_parts(make_contract: Callable[..., Contract], columns: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(
        {"id": pd.Series([], dtype=object), "at": pd.Series([], dtype="datetime64[ns, UTC]")}
    )
    assert len(assign_parts(frame, make_contract(*columns), Split(), "p")) == 0


def test_missing_columns_and_ids_are_refused(make_contract: Callable[..., Contract]) -> None:
    frame = pd.DataFrame({"id": ["a", None]})
    with pytest.raises(ContractError, match="the id in row 1 is missing"):
        assign_parts(frame, make_contract(), Split(), "p")
    with pytest.raises(ContractError, match="column 'at' \\(time\\) is missing"):
        assign_parts(frame, make_contract(TIME), Split(), "p")
