"""A small contract with every type of column, and rows of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tenure.contract import Contract
from tenure.drift.reference import Family, Reference, Sample, make_sample


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract.model_validate(
        {
            "columns": [
                {"name": "id", "role": "id", "type": "string"},
                {"name": "left", "role": "label", "type": "boolean"},
                {"name": "price", "type": "float", "nullable": True},
                {"name": "months", "type": "integer"},
                {"name": "plan", "type": "string", "nullable": True},
                {"name": "senior", "type": "boolean"},
            ]
        }
    )


@pytest.fixture(scope="session")
def make_frame() -> Callable[..., pd.DataFrame]:
    """Draw rows as `Bundle.reference` gives them."""

    def build(rows: int, seed: int = 0) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        score = rng.beta(2, 5, rows).round(6)
        return pd.DataFrame(
            {
                "price": np.where(rng.random(rows) < 0.05, np.nan, rng.normal(60, 20, rows).round(1)),
                "months": pd.array(rng.poisson(30, rows), dtype="Int64"),
                "plan": rng.choice(np.array(["basic", "plus", None], dtype=object), rows, p=[0.6, 0.3, 0.1]),
                "senior": pd.array(rng.random(rows) < 0.2, dtype="boolean"),
                "score": score,
                "label": (rng.random(rows) < score).astype(float),
            }
        )

    return build


@pytest.fixture(scope="session")
def make_window(contract: Contract) -> Callable[..., Sample]:
    """Make the sample of a frame."""

    def build(frame: pd.DataFrame, family: Family = "inputs") -> Sample:
        columns = {column.name: frame[column.name].to_numpy(dtype=object) for column in contract.features}
        return make_sample(columns, frame["score"].to_numpy(), frame["label"].to_numpy(), contract, family)

    return build


@pytest.fixture(scope="session")
def make_reference(contract: Contract, make_frame: Callable[..., pd.DataFrame]) -> Callable[..., Reference]:
    def build(family: Family = "inputs", rows: int = 2000) -> Reference:
        return Reference.from_frame(make_frame(rows), contract, family)

    return build
