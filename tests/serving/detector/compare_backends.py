"""Tests windows with both backends and prints how far they are apart. Run by .venv-detector's python."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd

from serving.detector.alibi import AlibiBackend, open_backend
from tenure.contract import Contract
from tenure.drift.backend import ScipyBackend
from tenure.drift.reference import FAMILIES, Reference, Sample, make_sample

CONTRACT = Contract.model_validate(
    {
        "columns": [
            {"name": "id", "role": "id", "type": "string"},
            {"name": "left", "role": "label", "type": "boolean"},
            {"name": "price", "type": "float", "nullable": True},
            {"name": "months", "type": "integer"},
            {"name": "plan", "type": "string"},
            {"name": "town", "type": "string", "nullable": True},
            {"name": "senior", "type": "boolean"},
        ]
    }
)
SIZES = (1, 7, 50, 300, 500, 1200)


def make_frame(rng: np.random.Generator, rows: int, shift: float) -> pd.DataFrame:
    """Draw rows: ties, missing cells, rare categories, and with a shift some that the reference never saw."""
    towns = np.array([*(f"t{number}" for number in range(20)), None], dtype=object)
    weights = 0.6 ** np.arange(len(towns))
    plans = np.array(["basic", "plus", "new"], dtype=object)
    score = np.clip(rng.beta(2, 5, rows) + shift / 10, 0, 1).round(6)
    return pd.DataFrame(
        {
            "price": np.where(
                rng.random(rows) < 0.05, np.nan, rng.normal(60 * (1 + shift), 20, rows).round(1)
            ),
            "months": rng.poisson(30 * (1 + shift), rows),
            "plan": rng.choice(plans, rows, p=[0.7 - shift / 4, 0.3, shift / 4]),
            "town": rng.choice(towns, rows, p=weights / weights.sum()),
            "senior": rng.random(rows) < 0.16 + shift / 5,
            "score": score,
            "label": (rng.random(rows) < score).astype(float),
        }
    )


def make_window(frame: pd.DataFrame, family: Any) -> Sample:
    columns = {column.name: frame[column.name].to_numpy(dtype=object) for column in CONTRACT.features}
    return make_sample(columns, frame["score"].to_numpy(), frame["label"].to_numpy(), CONTRACT, family)


def main(windows: int) -> None:
    rng = np.random.default_rng(4)
    known = make_frame(rng, 3000, 0)
    worst, smallest, tested = 0.0, 1.0, 0
    for family in FAMILIES:
        reference = Reference.from_frame(known, CONTRACT, family)
        ours, theirs = open_backend("scipy", reference), open_backend("alibi-detect", reference)
        assert isinstance(ours, ScipyBackend)
        assert isinstance(theirs, AlibiBackend)
        for number in range(windows // len(FAMILIES)):
            shift = 0.0 if number % 2 else float(rng.random())
            sample = make_window(make_frame(rng, SIZES[number % len(SIZES)], shift), family)
            first, second = ours.test(sample), theirs.test(sample)
            assert list(first) == list(second) == list(reference.columns)
            worst = max(worst, *(abs(first[name] - second[name]) for name in first))
            smallest = min(smallest, *first.values())
            tested += 1
        assert ours.test(make_window(known.head(0), family)) == theirs.test(
            make_window(known.head(0), family)
        )
    print(json.dumps({"windows": tested, "worst": worst, "smallest": smallest}))  # noqa: T201


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(int(sys.argv[1]))
