"""How right the models were, phase by phase, from rows as the ledger gives them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from console import display
from console.ending import print_measured
from console.performance import Phase, measure_phases
from tenure.project import load_project

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 1, 1, tzinfo=UTC)


class Rows:
    """A ledger with two versions; the second one ranks at random."""

    def __init__(self) -> None:
        generator = np.random.default_rng(4)
        left = generator.random(400) < 0.4
        good = np.where(left, 0.7, 0.3) + generator.uniform(-0.25, 0.25, 400)
        self.frame = pd.DataFrame(
            {
                "version": np.where(np.arange(400) < 200, "old", "new"),
                "score": np.where(np.arange(400) < 200, good, generator.random(400)),
                "outcome": np.where(left, "Yes", "No"),
                "time": [START + timedelta(seconds=n) for n in range(400)],
            }
        )

    def read_outcomes(self, service: str, **span: Any) -> pd.DataFrame:
        assert (service, span["horizon"], span["as_of"]) == ("telco-churn", timedelta(days=30), START)
        return self.frame[(self.frame["time"] >= span["since"]) & (self.frame["time"] < span["until"])]


def test_each_version_is_measured_in_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    project = load_project(ROOT / "projects" / "telco.yaml")
    edges = [START, START + timedelta(seconds=150), START + timedelta(seconds=400)]
    phases = [Phase("before", edges[0], edges[1]), Phase("after", edges[1], edges[2])]
    rows: Any = Rows()
    measured = measure_phases(rows, project, phases, START)
    assert [(one.phase, one.version, one.rows) for one in measured] == [
        ("before", "old", 150),
        ("after", "old", 50),
        ("after", "new", 200),
    ]
    before, _, after = measured
    assert before.roc_auc is not None
    assert after.roc_auc is not None
    assert before.roc_auc.value > 0.9
    assert after.roc_auc.low < 0.5 < after.roc_auc.high
    screen = Console(file=StringIO(), width=160)
    monkeypatch.setattr(display, "out", screen)
    print_measured(measured)
    assert [line.split()[:3] for line in screen.file.getvalue().splitlines()[3:]] == [  # type: ignore[attr-defined]
        ["before", "old", "150"],
        ["after", "old", "50"],
        ["after", "new", "200"],
    ]
